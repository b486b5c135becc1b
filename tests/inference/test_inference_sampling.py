"""Sampling: the right distribution, from noise that depends on its key alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import ConfigError
from glasshouse.inference.sampling import Sampling, choose, gumbel, row_key, truncate

SPLITMIX_OF_0 = 0xE220A8397B1DCDAF  # first output of SplitMix64 seeded with 0 (Vigna's reference program)


def test_the_hash_is_splitmix64() -> None:
    """The mixing function gives the published first output."""
    from glasshouse.inference.sampling import _mix

    assert int(_mix(torch.zeros(1, dtype=torch.int64))) % 2**64 == SPLITMIX_OF_0


def test_noise_is_gumbel_distributed() -> None:
    """Kolmogorov–Smirnov distance to exp(-exp(-x)) stays below its 0.1% critical value; values differ."""
    keys = torch.arange(50)
    noise = gumbel(keys, torch.full((50,), 7), 2000).flatten().double().sort().values
    n = len(noise)
    expected = torch.exp(-torch.exp(-noise))
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert float((steps - expected).abs().max()) < 1.95 / math.sqrt(n)
    assert noise.isfinite().all()


def test_noise_depends_on_its_key_alone() -> None:
    """A row's noise is the same in any batch, and differs by key, position and token."""
    keys, positions = torch.tensor([3, 5, 5]), torch.tensor([1, 1, 2])
    together = gumbel(keys, positions, 100)
    for row in range(3):
        assert torch.equal(together[row], gumbel(keys[row : row + 1], positions[row : row + 1], 100)[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[1], together[2])
    assert torch.equal(gumbel(keys, positions, 40), together[:, :40])  # also of the vocabulary's size
    assert abs(float(torch.corrcoef(together)[0, 1])) < 0.35


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_softmax(temperature: float) -> None:
    """Chosen tokens follow softmax(logits / temperature): chi-square below its 0.1% critical value."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])
    n = 20_000
    keys = torch.tensor([row_key(0, choice, [1, 2]) for choice in range(n)])
    sampling = Sampling(temperature=temperature)
    tokens = choose(logits.expand(n, -1), sampling, keys, torch.zeros(n, dtype=torch.int64))
    expected = (logits / temperature).softmax(0) * n
    counts = torch.bincount(tokens, minlength=5)
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.47  # 4 degrees of freedom


def test_temperature_zero_is_the_largest_logit() -> None:
    """Greedy asks for no noise, whatever the seed and truncation say."""
    logits = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(10, dtype=torch.int64)
    assert torch.equal(choose(logits, Sampling(seed=4, top_k=3), zeros, zeros), logits.argmax(-1))


def test_keys_differ_by_seed_choice_and_prompt() -> None:
    """Two prompts, seeds or choices never share their noise."""
    keys = {row_key(*parts) for parts in [(0, 0, [1]), (1, 0, [1]), (0, 1, [1]), (0, 0, [2]), (0, 0, [1, 1])]}
    assert len(keys) == 5
    assert row_key(0, 0, [1, 2]) == row_key(0, 0, (1, 2))


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30),
    top_k=st.none() | st.integers(1, 40),
    top_p=st.none() | st.floats(0.001, 1),
    min_p=st.none() | st.floats(0, 1),
)
def test_truncation_keeps_the_likeliest(
    logits: list[float], top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    """One token at least stays, the largest among them; none that stays is less likely than one that goes."""
    before = torch.tensor([logits])
    after = truncate(before, top_k, top_p, min_p)
    stays = ~after.isinf()
    assert bool(stays[0, before.argmax()])
    assert torch.equal(after[stays], before[stays])
    if not stays.all():
        assert before[stays].min() >= before[~stays].max()


def test_truncation_by_hand() -> None:
    """Probabilities 0.5, 0.3, 0.15, 0.05: how many tokens each rule keeps."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()

    def kept(**options: float) -> int:
        return int((~truncate(logits, **options).isinf()).sum())  # type: ignore[arg-type]

    assert [kept(top_k=k) for k in (1, 2, 4, 9)] == [1, 2, 4, 4]
    assert [kept(top_p=p) for p in (0.1, 0.49, 0.6, 0.81, 0.96, 1.0)] == [1, 1, 2, 3, 4, 4]
    assert [kept(min_p=p) for p in (0.0, 0.09, 0.2, 0.5, 1.0)] == [4, 4, 3, 2, 1]
    assert kept(top_k=3, min_p=0.35) == 2


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1e-9}, "overflows"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_impossible_options_are_refused(options: dict, word: str) -> None:
    """A value out of range or a misspelled option is an error that names it."""
    with pytest.raises(ConfigError, match=word):
        Sampling.parse(options)
