"""Penalties and truncation against transformers' logits processors, step by step."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from glasshouse.inference.penalties import Penalties
from glasshouse.inference.sampling import Sampling, truncate

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the peer is not installed")

VOCAB = 500


def rows(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(8, VOCAB, generator=generator) * 4,
        torch.randint(0, VOCAB, (8, 30), generator=generator),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.7, 1.2, 3.0])
def test_repetition_penalty(penalty: float, seed: int) -> None:
    """RepetitionPenaltyLogitsProcessor on prompt and text together."""
    logits, ids = rows(seed)
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    for row in range(len(logits)):
        ours = logits[row].clone()
        prompt, text = ids[row, :20].tolist(), ids[row, 20:].tolist()
        Penalties(Sampling(repetition_penalty=penalty), prompt, VOCAB).apply(ours, text)
        torch.testing.assert_close(ours, expected[row], rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_logit_bias(seed: int) -> None:
    """SequenceBiasLogitsProcessor with sequences of one token."""
    logits, ids = rows(seed)
    bias = {3: 2.5, 77: -100.0, VOCAB - 1: 0.125}
    theirs = transformers.SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()])
    expected = theirs(ids, logits.clone())
    for row in range(len(logits)):
        ours = logits[row].clone()
        Penalties(Sampling(logit_bias=bias), [], VOCAB).apply(ours, [])
        torch.testing.assert_close(ours, expected[row], rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 1},
        {"top_k": 40},
        {"top_p": 0.1},
        {"top_p": 0.95},
        {"min_p": 0.02},
        {"top_k": 50, "top_p": 0.8},
        {"top_k": 100, "top_p": 0.99, "min_p": 0.01},
    ],
)
def test_truncation_in_order(options: dict[str, Any], seed: int) -> None:
    """TopK, TopP and MinP one after the other leave the same tokens with the same logits."""
    logits, ids = rows(seed)
    expected = logits.clone()
    warpers = {
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
    }
    for name, value in options.items():
        expected = warpers[name](**{name: value})(ids, expected)
    assert torch.equal(truncate(logits, **options), expected)
