"""Validation loss: mean nats per token on held-out shards."""

from __future__ import annotations

from typing import NamedTuple

import torch

from glasshouse.data import PackedBatches, Shards
from glasshouse.model import Transformer
from glasshouse.training.objective import NextToken


class ValidationLoss(NamedTuple):
    nats_per_token: float
    tokens: int


@torch.no_grad()
def validation_loss(
    model: Transformer, shards: Shards, sequence_length: int, max_tokens: int | None = None, rows: int = 32
) -> ValidationLoss:
    """Mean cross entropy in nats over the targets of `shards`, each once, in rows of `sequence_length`.

    Documents longer than a row are cut into non-overlapping windows from their start. With `max_tokens`
    the first rows that hold about as many positions are scored, the same ones every time.
    """
    rows = min(rows, max(1, (max_tokens or rows * sequence_length) // sequence_length))
    objective = NextToken(PackedBatches(shards, sequence_length, rows, seed=0, shuffle=False))
    return _score(model, objective, max_tokens)


def _score(model: Transformer, objective: NextToken, max_tokens: int | None) -> ValidationLoss:
    batches = objective.batches
    total_rows = round(objective.steps_per_epoch * batches.rows_per_batch)
    if max_tokens is not None:
        total_rows = min(total_rows, max(1, max_tokens // batches.sequence_length))
    loss_sum, count = 0.0, 0
    for step in range(-(-total_rows // batches.rows_per_batch)):
        left = total_rows - step * batches.rows_per_batch
        part = next(objective.batch(step).split(left if left < batches.rows_per_batch else None))
        result = objective.loss(model, part.to(str(model.device)))
        loss_sum += float(result.loss_sum)
        count += result.count
    return ValidationLoss(loss_sum / max(1, count), count)
