"""Texts with a common beginning, read as branches of one segment, against each text by itself."""

from __future__ import annotations

import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.model import Transformer, kernels
from glasshouse.model.documents import find_branches, find_spans

TRUNK, TAILS = 21, (17, 5, 30)
ALONE = 14
"""Tokens of another text, which comes first in the row."""


def texts() -> list[torch.Tensor]:
    """Ids of the other text, then of those that share their first 21 tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 64, (ALONE + TRUNK + sum(TAILS),), generator=generator)
    alone, trunk, *tails = ids.split([ALONE, TRUNK, *TAILS])
    return [alone, *(torch.cat([trunk, tail]) for tail in tails)]


def row() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, segments, positions) of all texts and some padding, (1, tokens) each."""
    alone, first, *others = texts()
    ids = torch.cat([alone, first, *(text[TRUNK:] for text in others), torch.zeros(3, dtype=torch.int64)])
    counts = [len(alone), len(ids) - len(alone) - 3, 3]
    segments = torch.tensor([0, 1, -1]).repeat_interleave(torch.tensor(counts))
    steps = [torch.arange(len(alone)), torch.arange(len(first))]
    steps += [torch.arange(TRUNK, len(text)) for text in others]
    return ids[None], segments[None], torch.cat([*steps, torch.zeros(3, dtype=torch.int64)])[None]


def apart(model: Transformer) -> torch.Tensor:
    """Hidden states of each text by itself, in the order of the row, without what it shares."""
    states = [model.hidden(text[None])[0] for text in texts()]
    return torch.cat([*states[:2], *(state[TRUNK:] for state in states[2:])])


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    "family",
    [
        {"model_type": "qwen3"},
        {"model_type": "gpt2", "num_key_value_heads": 4},
        {"model_type": "mistral", "sliding_window": 9},
    ],
)
def test_branches_are_read_as_texts_of_their_own(random_model, monkeypatch, family, native):
    """States, and gradients through the shared beginning, are those of the texts one by one."""
    if not native:
        monkeypatch.setattr(kernels, "ready", lambda *arguments: False)
    model = random_model(**family, hidden_size=128, head_dim=32, max_position_embeddings=128)
    weights = list(model.model.parameters())
    weigh = torch.randn(ALONE + TRUNK + sum(TAILS), 128, generator=torch.Generator().manual_seed(1))
    found = model.hidden(row()[0], segments=row()[1], positions=row()[2])[0, :-3]
    expected = apart(model)
    assert torch.allclose(found, expected, atol=2e-5)
    for mine, theirs in zip(
        torch.autograd.grad((found * weigh).sum(), weights),
        torch.autograd.grad((expected * weigh).sum(), weights),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=2e-4, rtol=1e-3)
    with torch.no_grad():
        assert torch.allclose(model.hidden(row()[0], row()[2], row()[1])[0, :-3], expected, atol=2e-5)


def test_a_branch_begins_where_positions_do_not_go_on():
    _, segments, positions = row()
    branches = find_branches(segments, positions)
    starts = (branches[0] > 0).nonzero()[:, 0].tolist()
    assert starts == [ALONE + TRUNK + TAILS[0], ALONE + TRUNK + TAILS[0] + TAILS[1]]
    assert branches[0, starts].tolist() == [TRUNK, TRUNK]
    assert find_branches(torch.tensor([[0, 0, 1, -1, -1]]), torch.tensor([[0, 1, 0, 0, 0]])) is None


def test_branches_of_one_text_begin_at_one_place():
    """The kernel reads their common beginning once."""
    segments, positions = torch.zeros(1, 9, dtype=torch.int64), torch.tensor([[0, 1, 2, 3, 2, 3, 1, 2, 3]])
    with pytest.raises(UsageError, match="at different tokens"):
        find_spans(segments, 2, 2, find_branches(segments, positions))
