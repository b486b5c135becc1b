"""Scores of given tokens against one forward pass each."""

from __future__ import annotations

import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.inference import LanguageModel, scoring


def some_lists(lengths: list[int], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 300, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize("batch_tokens", [16_384, 70])
def test_scores_equal_one_at_a_time(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    """Every continuation token's log-probability is that of reading the text alone, whatever the batches."""
    monkeypatch.setattr(scoring, "BATCH_TOKENS", batch_tokens)
    monkeypatch.setattr(scoring, "LOGITS", 300 * 7)
    prompts = some_lists([3, 40, 1, 10, 10], 1)
    continuations = some_lists([5, 2, 30, 1, 0], 2)
    for prompt, more, score in zip(
        prompts, continuations, model.score_batch(prompts, continuations), strict=True
    ):
        assert score.dtype == torch.float32
        logprobs = model.logits([[*prompt, *more]])[0].log_softmax(-1)
        expected = [logprobs[len(prompt) + i - 1, token] for i, token in enumerate(more)]
        assert torch.allclose(score, torch.tensor(expected), atol=1e-4)


def test_next_token_logprobs(model: LanguageModel) -> None:
    """Rows are normalised log-probabilities of the token after each prompt, in the prompts' order."""
    prompts = some_lists([3, 40, 1, 10], 3)
    result = model.next_token_logprobs(prompts)
    assert result.shape == (4, 300)
    assert torch.allclose(result.exp().sum(-1), torch.ones(4), atol=1e-4)
    for prompt, row in zip(prompts, result, strict=True):
        assert torch.allclose(row, model.logits([prompt])[0, -1].log_softmax(-1), atol=1e-4)


def test_bad_pairs_are_named(model: LanguageModel) -> None:
    """Unequal counts, an empty prompt and a text beyond the context are errors that say so."""
    with pytest.raises(UsageError, match="2 prompts but 1 continuations"):
        model.score_batch([[1], [2]], [[3]])
    with pytest.raises(UsageError, match="empty"):
        model.score_batch([[]], [[3]])
    with pytest.raises(UsageError, match="130 tokens"):
        model.score_batch([[1] * 100], [[3] * 30])
