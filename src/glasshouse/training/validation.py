"""Validation loss: mean nats per token on held-out shards."""

from __future__ import annotations

from typing import NamedTuple

import torch

from glasshouse.data import PackedBatches, Shards
from glasshouse.model import Transformer
from glasshouse.training.objective import NextToken

POSITIONS_AT_ONCE = 8192


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
    at_once = max(1, min(max_tokens or POSITIONS_AT_ONCE, POSITIONS_AT_ONCE) // sequence_length)
    batches = PackedBatches(shards, sequence_length, at_once, seed=0, fixed_cuts=True)
    rows = round(batches.steps_per_epoch * at_once)
    if max_tokens is not None:
        rows = min(rows, max(1, max_tokens // sequence_length))
    objective = NextToken(batches)
    loss_sum, count = 0.0, 0
    for step in range(-(-rows // at_once)):
        part = next(objective.batch(step).split(min(at_once, rows - step * at_once)))
        result = objective.loss(model, part.to(str(model.device)))
        loss_sum += float(result.loss_sum)
        count += result.count
    return ValidationLoss(loss_sum / max(1, count), count)
