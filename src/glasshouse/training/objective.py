"""What a training loop minimises: batches by step number, and the summed loss of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from glasshouse.data import IGNORE, PackedBatches


@dataclass(frozen=True)
class LossSum:
    """`loss_sum` (scalar tensor with gradient) over `count` targets; `metrics` are sums over them too."""

    loss_sum: Tensor
    count: int
    metrics: dict[str, Tensor] = field(default_factory=dict)


class TrainingBatch(Protocol):
    """One step's data. `count`: what the loss is divided by, known before the forward pass."""

    @property
    def count(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Real input tokens, padding apart."""
        ...

    def split(self, rows: int | None) -> Iterator[Self]:
        """Micro-batches of at most `rows` rows."""
        ...

    def to(self, device: str) -> Self: ...


B = TypeVar("B", bound=TrainingBatch)


class Objective(Protocol[B]):
    """A loss and its data. `batch` must be a pure function of the step: that is what makes resume exact."""

    @property
    def steps_per_epoch(self) -> float: ...

    def batch(self, step: int) -> B: ...

    def loss(self, model: nn.Module, batch: B) -> LossSum: ...

    def identity(self) -> dict[str, Any]:
        """What the batches depend on, as JSON: a resumed run must find it unchanged."""
        ...


@dataclass(frozen=True)
class TokenBatch:
    """Tensors of packed rows, all (rows, sequence_length); see `glasshouse.data.Batch`."""

    inputs: Tensor
    targets: Tensor
    segments: Tensor
    positions: Tensor
    count: int
    tokens: int

    @classmethod
    def from_arrays(
        cls, inputs: np.ndarray, targets: np.ndarray, segments: np.ndarray, positions: np.ndarray
    ) -> Self:
        return cls(
            torch.from_numpy(inputs),
            torch.from_numpy(targets),
            torch.from_numpy(segments),
            torch.from_numpy(positions),
            int(np.count_nonzero(targets != IGNORE)),
            int(np.count_nonzero(segments >= 0)),
        )

    def split(self, rows: int | None) -> Iterator[Self]:
        if rows is None or rows >= len(self.inputs):
            yield self
            return
        for start in range(0, len(self.inputs), rows):
            part = slice(start, start + rows)
            targets, segments = self.targets[part], self.segments[part]
            yield type(self)(
                self.inputs[part],
                targets,
                segments,
                self.positions[part],
                int((targets != IGNORE).sum()),
                int((segments >= 0).sum()),
            )

    def to(self, device: str) -> Self:
        if device == "cpu":
            return self
        moved = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.inputs, self.targets, self.segments, self.positions)
        )
        return type(self)(*moved, self.count, self.tokens)


class NextToken:
    """Next-token prediction on packed documents: cross entropy in nats, summed over the targets."""

    def __init__(self, batches: PackedBatches) -> None:
        self.batches = batches

    @property
    def steps_per_epoch(self) -> float:
        return self.batches.steps_per_epoch

    def batch(self, step: int) -> TokenBatch:
        arrays = self.batches.batch(step)
        return TokenBatch.from_arrays(arrays.inputs, arrays.targets, arrays.segments, arrays.positions)

    def loss(self, model: nn.Module, batch: TokenBatch) -> LossSum:
        loss_sum = model.loss(batch.inputs, batch.targets, batch.segments, batch.positions)
        return LossSum(loss_sum, batch.count)

    def identity(self) -> dict[str, Any]:
        return {
            "objective": "next token",
            "data": self.batches.shards.sha256,
            "sequence_length": self.batches.sequence_length,
            "rows_per_batch": self.batches.rows_per_batch,
            "seed": self.batches.seed,
        }
