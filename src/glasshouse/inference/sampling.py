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
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor

from glasshouse.core.config import Config
from glasshouse.core.seeds import derive

CANDIDATES = 128
"""Truncation and noise look at this many of the likeliest tokens first; rarely is it not enough. Finding
1,024 of 8,192 would take three times as long."""


class Sampling(Config):
    """How to choose a token. Temperature 0 is greedy: then truncation and the seed do not matter."""

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=1)  # only the k most likely
    top_p: float | None = Field(None, gt=0, le=1)  # the fewest tokens that hold this much probability
    min_p: float | None = Field(None, ge=0, le=1)  # at least this share of the largest probability
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)  # of tokens in prompt or text
    frequency_penalty: float = Field(0.0, ge=-2, le=2)  # for each time a token came in the text so far
    presence_penalty: float = Field(0.0, ge=-2, le=2)  # for tokens that came at all
    logit_bias: dict[int, FiniteFloat] = Field(default_factory=dict)  # token id -> added to its logit
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
    logits: Tensor,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
) -> Tensor:
    """Set the logits (batch, vocab) of excluded tokens to -inf; at least one token always stays.

    In this order, each on what the one before left: top-k (arXiv:1805.04833), top-p (arXiv:1904.09751), min-p
    (arXiv:2407.01082). Tokens as likely as the last one kept are kept too. A setting is one number, or one a
    row (batch,): `vocab`, 1.0 and 0.0 exclude nothing. What stays of a row depends on that row alone.
    """
    if top_k is None and top_p is None and min_p is None:
        return logits
    settings = (_column(value, logits) for value in (top_k, top_p, min_p))
    least = thresholds(logits, likeliest(logits)[0], *settings)
    return logits.masked_fill(logits < least, -torch.inf)


def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logits of each row and their ids, (batch, candidates), largest first."""
    values, ids = logits.topk(min(CANDIDATES, logits.shape[-1]))
    return values, ids


def thresholds(
    logits: Tensor, ordered: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None
) -> Tensor:
    """The least logit that stays in each row, (batch, 1); `ordered` are the likeliest."""
    least = ordered[:, :1].new_full((len(logits), 1), -torch.inf)
    if min_p is not None:  # p >= min_p * p_max, whatever the sum is
        least = ordered[:, :1] + min_p.log()
    if top_k is None:
        top_k = torch.full_like(least, logits.shape[-1], dtype=torch.int64)
    within = top_k <= ordered.shape[-1]  # (batch, 1)
    of_k = ordered.gather(-1, top_k.clamp(max=ordered.shape[-1]) - 1)
    of_k = of_k.masked_fill(~within, -torch.inf)
    if top_p is None:
        wide = (~within & (top_k < logits.shape[-1]))[:, 0]
    else:
        whole = logits.masked_fill(logits < of_k, -torch.inf).logsumexp(-1, keepdim=True)  # (batch, 1)
        of_p, reached = _nucleus(ordered.masked_fill(ordered < of_k, -torch.inf), whole, top_p)
        wide = (~reached | (~within & (top_k < logits.shape[-1])))[:, 0]
        of_k = torch.maximum(of_k, of_p)
    if wide.any():  # more than the candidates stay: these rows are sorted as a whole
        every = logits[wide].sort(descending=True).values
        wide_k = every.gather(-1, top_k[wide] - 1)
        if top_p is not None:
            every = every.masked_fill(every < wide_k, -torch.inf)
            of_p, _ = _nucleus(every, every.logsumexp(-1, keepdim=True), top_p[wide])
            wide_k = torch.maximum(wide_k, of_p)
        of_k = of_k.index_put((wide.nonzero()[:, 0],), wide_k)
    return torch.maximum(least, of_k)


def _nucleus(ordered: Tensor, whole: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """The last logit that top-p keeps, (batch, 1), and whether so much probability is among `ordered`.

    `ordered` (batch, some) are the largest logits, largest first; `whole` (batch, 1) is the row's logsumexp.
    """
    probabilities = (ordered - whole).exp()
    before = probabilities.cumsum(-1) - probabilities  # what more likely tokens hold already
    kept = (before < top_p).sum(-1, keepdim=True).clamp(min=1)
    least = ordered.gather(-1, kept - 1).masked_fill(top_p >= 1, -torch.inf)
    return least, (top_p >= 1) | (kept < ordered.shape[-1])


def _column(value: int | float | Tensor | None, logits: Tensor) -> Tensor | None:
    """A setting as (batch, 1); None for one that excludes nothing."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        whole = isinstance(value, int) and not isinstance(value, bool)
        value = torch.tensor(value, dtype=torch.int64 if whole else logits.dtype, device=logits.device)
    if not value.is_floating_point():
        value = value.clamp(max=logits.shape[-1])
    return value.reshape(-1, 1).expand(len(logits), 1)


def gumbel(keys: Tensor, positions: Tensor, vocab: int) -> Tensor:
    """Standard Gumbel noise (batch, vocab) float32, a pure function of key, position and token id."""
    return gumbel_of(keys, positions, torch.arange(vocab, dtype=torch.int64, device=keys.device))


def gumbel_of(keys: Tensor, positions: Tensor, tokens: Tensor) -> Tensor:
    """`gumbel` of some tokens alone: (batch, some) or (some,) ids -> (batch, some).

    -log(-log(1 - v)) with v = (k + 1/2) / 2^23 from 23 hashed bits: every v is exact in float32, so
    the noise is finite and its upper tail, which decides, is fine-grained down to probability 2^-24.
    """
    state = _mix(_mix(keys) + positions)[:, None]  # (batch, 1)
    bits = (_mix(state + tokens) >> 41) & 0x7FFFFF
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
