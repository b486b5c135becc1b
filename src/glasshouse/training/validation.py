"""Validation on held-out shards: mean nats per token, and how a mixture of experts shares its work out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from glasshouse.data import PackedBatches, Shards
from glasshouse.model import Transformer
from glasshouse.model.expert_load import ExpertLoad
from glasshouse.training.objective import NextToken, TokenBatch

POSITIONS_AT_ONCE = 8192

LOAD_TOKENS = 16_384
"""Positions from which the experts' load is told: shares of some percent need no more."""


class ValidationLoss(NamedTuple):
    nats_per_token: float
    tokens: int


@torch.no_grad()
def validation_loss(
    model: Transformer, shards: Shards, sequence_length: int, max_tokens: int | None = None
) -> ValidationLoss:
    """Mean cross entropy in nats over the targets of `shards`, each once, in rows of `sequence_length`.

    Documents longer than a row are cut into non-overlapping windows from their start. With `max_tokens`
    about so many positions are scored, drawn from the whole of the shards, the same ones every time.
    """
    objective, batches = _held_out(shards, sequence_length, max_tokens)
    loss_sum, count = 0.0, 0
    for part in batches:
        result = objective.loss(model, part.to(str(model.device)))
        loss_sum += float(result.loss_sum)
        count += result.count
    return ValidationLoss(loss_sum / max(1, count), count)


@torch.no_grad()
def expert_load(
    model: Transformer, shards: Shards, sequence_length: int, max_tokens: int | None = None
) -> dict[str, float]:
    """For the metrics of a mixture of experts, on text held out or learnt from; nothing for a dense model.

    `expert_load_max` and `expert_load_min`: the largest and the smallest share of a layer's assignments
    that one expert has, times the number of experts (1 is even, 0 is an expert that nobody needs);
    `router_entropy`: of the routers' probabilities, mean nats a token.
    """
    config = model.config
    layers = sum(config.has_experts(layer) for layer in range(config.num_hidden_layers))
    if not layers:
        return {}
    load = ExpertLoad(layers, config.num_experts, config.num_experts_per_tok)
    _, batches = _held_out(shards, sequence_length, min(max_tokens or LOAD_TOKENS, LOAD_TOKENS))
    for part in batches:
        part = part.to(str(model.device))
        routing: list[Tensor] = []
        model.hidden(part.inputs, part.positions, part.segments, routing=routing)
        real = torch.ones_like(part.inputs) if part.segments is None else part.segments >= 0
        load.add(routing, real.flatten().bool())
    shares = load.shares * config.num_experts
    return {
        "expert_load_max": float(shares.max()),
        "expert_load_min": float(shares.min()),
        "router_entropy": load.entropy,
    }


def _held_out(
    shards: Shards, sequence_length: int, max_tokens: int | None
) -> tuple[NextToken, Iterator[TokenBatch]]:
    """The objective, and its batches of about `max_tokens` positions from the whole of the shards."""
    at_once = max(1, min(max_tokens or POSITIONS_AT_ONCE, POSITIONS_AT_ONCE) // sequence_length)
    batches = PackedBatches(shards, sequence_length, at_once, seed=0, fixed_cuts=True)
    rows = round(batches.steps_per_epoch * at_once)
    if max_tokens is not None:
        rows = min(rows, max(1, max_tokens // sequence_length))
    objective = NextToken(batches)
    steps = range(-(-rows // at_once))
    return objective, (next(objective.batch(s).split(min(at_once, rows - s * at_once))) for s in steps)
