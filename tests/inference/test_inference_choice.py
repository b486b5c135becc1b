"""Rows with settings of their own: every row's token is what it would be alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glasshouse.core.errors import UsageError
from glasshouse.inference import sampling
from glasshouse.inference.choice import Row, RowSettings, choose_rows
from glasshouse.inference.penalties import Penalties
from glasshouse.inference.sampling import Sampling, choose, gumbel, gumbel_of, truncate

VOCAB = 60

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        "top_k": st.integers(1, 80),
        "top_p": st.floats(0.05, 1),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.sampled_from([0.5, 1.0, 1.3]),
        "frequency_penalty": st.sampled_from([-1.0, 0.0, 0.7]),
        "presence_penalty": st.sampled_from([-1.0, 0.0, 0.7]),
        "logit_bias": st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-9, 9), max_size=3),
    },
)
IDS = st.lists(st.integers(0, VOCAB - 1), max_size=12)


def draw_logits(rows: int, seed: int, vocab: int = VOCAB) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(SETTINGS, IDS, IDS), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_row_does_not_know_its_neighbours(
    rows: list[tuple[dict[str, Any], list[int], list[int]]], seed: int
) -> None:
    """In any batch a row's token is the one that it has alone; the logits stay as they were."""
    logits = draw_logits(len(rows), seed)
    before = logits.clone()
    keys, positions = torch.arange(len(rows)) + seed, torch.arange(len(rows))
    samplings = [Sampling(**options) for options, _, _ in rows]
    texts = [Row(text) for _, _, text in rows]
    prompts = [prompt for _, prompt, _ in rows]
    together = choose_rows(logits, RowSettings(samplings, prompts, VOCAB), keys, positions, texts)
    assert torch.equal(logits, before)
    for row in range(len(rows)):
        one = slice(row, row + 1)
        alone = RowSettings(samplings[one], prompts[one], VOCAB)
        chosen = choose_rows(logits[one], alone, keys[one], positions[one], texts[one])
        assert int(chosen) == int(together[row])
        penalties = Penalties(samplings[row], prompts[row], VOCAB)
        changed = logits[row].clone()
        penalties.apply(changed, texts[row].text)
        assert int(chosen) == int(choose(changed[None], samplings[row], keys[one], positions[one]))


def by_definition(logits: list[float], options: dict[str, Any]) -> list[float]:
    """Top-k, top-p and min-p of one row, token by token."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    kept = [token for token in order if logits[token] >= logits[order[min(options["top_k"], len(order)) - 1]]]
    weights = torch.tensor([logits[token] for token in kept], dtype=torch.float64).softmax(0).tolist()
    held, nucleus = 0.0, []
    for token, weight in zip(kept, weights, strict=True):
        if held < options["top_p"] or not nucleus:
            nucleus.append(token)
        held += weight
    best = max(weights)
    few = {t for t, w in zip(kept, weights, strict=True) if t in nucleus and w >= options["min_p"] * best}
    return [value if token in few else -float("inf") for token, value in enumerate(logits)]


@pytest.mark.parametrize("candidates", [3, 16, 1024])
def test_truncation_follows_its_definition(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row, with settings of its own, also where more tokens stay than are looked at first."""
    monkeypatch.setattr(sampling, "CANDIDATES", candidates)
    draw = torch.Generator().manual_seed(candidates)
    rows = 60
    logits = draw_logits(rows, candidates, vocab=40)
    top_k = torch.randint(1, 60, (rows,), generator=draw)
    top_p = torch.rand(rows, generator=draw).clamp(min=0.01)
    top_p[::3] = 1.0
    min_p = torch.rand(rows, generator=draw) ** 6
    together = truncate(logits, top_k, top_p, min_p)
    for row in range(rows):
        options = {"top_k": int(top_k[row]), "top_p": float(top_p[row]), "min_p": float(min_p[row])}
        assert together[row].tolist() == by_definition(logits[row].tolist(), options)
        assert torch.equal(truncate(logits[row : row + 1], **options)[0], together[row])


@pytest.mark.parametrize("candidates", [2, 8, 1024])
def test_few_candidates_choose_the_same(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many tokens are looked at first changes no choice."""
    samplings = [Sampling(temperature=1.5, top_p=p, min_p=m) for p in (0.3, 0.9, 1.0) for m in (None, 0.001)]
    logits, keys = draw_logits(len(samplings), 1), torch.arange(len(samplings))
    prepared = RowSettings(samplings, [()] * len(samplings), VOCAB)
    expected = [choose_rows(logits, prepared, keys, keys + place) for place in range(50)]
    monkeypatch.setattr(sampling, "CANDIDATES", candidates)
    for place in range(50):
        assert torch.equal(choose_rows(logits, prepared, keys, keys + place), expected[place])


def test_noise_of_some_tokens_is_that_of_all() -> None:
    """Noise asked for by token id is the same as in the whole row."""
    keys, positions = torch.tensor([3, 4]), torch.tensor([0, 9])
    tokens = torch.tensor([[5, 1, 39], [0, 0, 7]])
    assert torch.equal(gumbel_of(keys, positions, tokens), gumbel(keys, positions, 40).gather(-1, tokens))


def test_penalties_by_hand() -> None:
    """Repetition looks at prompt and text, frequency and presence at the text alone."""
    logits = torch.tensor([2.0, -2.0, 4.0, 1.0, 0.5])

    def changed(text: list[int], **options: Any) -> list[float]:
        row = logits.clone()
        Penalties(Sampling(**options), [0, 1, 1], 5).apply(row, text)
        return row.tolist()

    assert changed([2, 2], repetition_penalty=2.0) == [1.0, -4.0, 2.0, 1.0, 0.5]
    assert changed([2, 2, 3], frequency_penalty=0.5) == [2.0, -2.0, 3.0, 0.5, 0.5]
    assert changed([2, 2, 3], presence_penalty=0.5) == [2.0, -2.0, 3.5, 0.5, 0.5]
    assert changed([2, 2], frequency_penalty=-1, presence_penalty=0.5) == [2.0, -2.0, 5.5, 1.0, 0.5]
    assert changed([], logit_bias={4: 1.5, 0: -100}) == [-98.0, -2.0, 4.0, 1.0, 2.0]
    assert changed([], frequency_penalty=2, presence_penalty=2) == logits.tolist()


def test_bias_counts_before_the_repetition_penalty() -> None:
    """The order of the steps: a biased logit is what the penalty divides."""
    row = torch.tensor([1.0, 0.0])
    Penalties(Sampling(logit_bias={0: 3}, repetition_penalty=2), [0], 2).apply(row, [])
    assert row.tolist() == [2.0, 0.0]


def test_penalties_change_greedy_texts_too() -> None:
    """A repeated token loses its place; without rows to tell of there are no penalties."""
    prepared = RowSettings([Sampling(frequency_penalty=1.0)], [()], 3)
    logits, zero = torch.tensor([[1.0, 0.5, 0.0]]), torch.zeros(1, dtype=torch.int64)
    assert choose_rows(logits, prepared, zero, zero, [Row([])]).item() == 0
    assert choose_rows(logits, prepared, zero, zero, [Row([0])]).item() == 1


@pytest.mark.parametrize("token", [-1, 5])
def test_a_bias_on_an_unknown_token_is_refused(token: int) -> None:
    """With the token's id and the vocabulary's size."""
    with pytest.raises(UsageError, match=f"{token}.*vocabulary has 5"):
        RowSettings([Sampling(logit_bias={token: 1.0})], [()], 5)
