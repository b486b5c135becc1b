"""From logits to a token: temperature, truncation, and noise that depends on nothing but its key.

Sampling adds Gumbel noise to log-probabilities and takes the largest (Gumbel-max, Maddison et al.,
arXiv:1411.0030). The noise of a token is a hash of (key of the row, position, token id), so a text
does not change with its neighbours in a batch, with the order of work, or with how many tokens a
step computes. No generator has a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from glasshouse.core.config import Config
from glasshouse.core.seeds import derive


class Sampling(Config):
    """How to choose a token. Temperature 0 is greedy, and then nothing else matters."""

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=1)  # only the k most likely
    top_p: float | None = Field(None, gt=0, le=1)  # the fewest tokens that hold this much probability
    min_p: float | None = Field(None, ge=0, le=1)  # at least this share of the largest probability
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)  # of tokens in prompt or text
    frequency_penalty: float = Field(0.0, ge=-2, le=2)  # for each time a token came in the text so far
    presence_penalty: float = Field(0.0, ge=-2, le=2)  # for tokens that came at all
    logit_bias: dict[int, float] = Field(default_factory=dict)  # token id -> added to its logit
    seed: int = 0

    @model_validator(mode="after")
    def _temperature_is_usable(self) -> Self:
        if 0 < self.temperature < 1e-4:
            raise ValueError("a temperature below 0.0001 overflows; use 0 for greedy")
        return self


def row_key(seed: int, choice: int, prompt: Sequence[int]) -> int:
    """The 63-bit key of one row's noise. The prompt is part of it, so that two prompts sampled with
    one seed are independent; `choice` numbers several samples of the same prompt."""
    return derive(seed, "sampling", choice, ",".join(map(str, prompt)))


def choose(logits: Tensor, sampling: Sampling, keys: Tensor, positions: Tensor) -> Tensor:
    """One token id per row: logits (batch, vocab), keys and positions (batch,) int64 -> (batch,)."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scores = truncate(logits.float() / sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    return (scores + gumbel(keys, positions, scores.shape[-1])).argmax(-1)


def truncate(
    logits: Tensor, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Tensor:
    """Set the logits (batch, vocab) of excluded tokens to -inf; at least one token always stays.

    In this order, each on what the one before left: top-k (arXiv:1805.04833), top-p
    (arXiv:1904.09751), min-p (arXiv:2407.01082). Ties with the last token kept are kept by top-k.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities  # what more likely tokens hold already
        excluded = (before >= top_p).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(excluded, -torch.inf)
    if min_p is not None and min_p > 0:
        probabilities = logits.softmax(-1)
        least = min_p * probabilities.amax(-1, keepdim=True)
        logits = logits.masked_fill(probabilities < least, -torch.inf)
    return logits


def gumbel(keys: Tensor, positions: Tensor, vocab: int) -> Tensor:
    """Standard Gumbel noise (batch, vocab) float32, a pure function of key, position and token id.

    -log(-log(1 - v)) with v = (k + 1/2) / 2^23 from 23 hashed bits: every v is exact in float32, so
    the noise is finite and its upper tail, which decides, is fine-grained down to probability 2^-24.
    """
    token = torch.arange(vocab, dtype=torch.int64, device=keys.device)
    state = _mix(_mix(keys) + positions)[:, None]  # (batch, 1)
    bits = (_mix(state + token) >> 41) & 0x7FFFFF
    v = (bits.float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log1p(-v))


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's step and finalizer (Steele, Lea & Flood 2014) on int64 that wraps around."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that brings in zeros, as on unsigned numbers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
