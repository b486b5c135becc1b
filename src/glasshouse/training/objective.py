"""What a training loop minimises: batches by step number, and the summed loss of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from glasshouse.core.errors import ConfigError, DataError
from glasshouse.data import IGNORE, Batch, PackedBatches
from glasshouse.model import Transformer


@dataclass(frozen=True)
class LossSum:
    """`loss_sum`, a scalar tensor with its gradient, over `count` targets.

    `metrics` are other sums over the same targets, scalars without gradient: the metrics file tells their
    means.
    """

    loss_sum: Tensor
    count: int
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


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

    def check(self, model: Transformer) -> None:
        """Raise, before the first step, where this model cannot take these batches."""
        ...

    def batch(self, step: int) -> B: ...

    def loss(self, model: Transformer, batch: B) -> LossSum: ...

    def identity(self) -> dict[str, Any]:
        """What the batches depend on, as JSON: a resumed run must find it unchanged."""
        ...


@runtime_checkable
class OnPolicy(Protocol):
    """What an objective has besides, when the model in training writes its data itself.

    Its `batch(step)` is a pure function of the step, and of the weights and the `state` at the newest step
    that `begins`. The loop keeps checkpoints of such steps only: whoever continues samples the same again.
    """

    def begins(self, step: int) -> bool:
        """Whether data is sampled anew before this step; always true of step 0."""
        ...

    def sample(self, model: Transformer, step: int) -> None:
        """Write the data of this step and of those up to the next that begins."""
        ...

    def state(self) -> dict[str, float]:
        """What the next samples depend on beside step and weights, such as a coefficient that adapts."""
        ...

    def restore(self, state: dict[str, float]) -> None: ...

    def metrics(self) -> dict[str, float]:
        """About the newest data and the newest step on it, for the row of metrics."""
        ...


@dataclass(frozen=True)
class TokenBatch:
    """Tensors of packed rows, all (rows, sequence_length); see `glasshouse.data.Batch`.

    `segments` and `positions` are None where every row is one whole document piece: plain causal
    attention is then the same, and faster.
    """

    inputs: Tensor
    targets: Tensor
    segments: Tensor | None
    positions: Tensor | None
    count: int
    tokens: int

    @classmethod
    def from_arrays(cls, arrays: Batch) -> Self:
        inputs, targets = torch.from_numpy(arrays.inputs), torch.from_numpy(arrays.targets)
        count = int(np.count_nonzero(arrays.targets != IGNORE))
        if not arrays.segments.any():  # no second document and no padding in any row
            return cls(inputs, targets, None, None, count, inputs.numel())
        segments, positions = torch.from_numpy(arrays.segments), torch.from_numpy(arrays.positions)
        return cls(inputs, targets, segments, positions, count, int(np.count_nonzero(arrays.segments >= 0)))

    def split(self, rows: int | None) -> Iterator[Self]:
        if rows is None or rows >= len(self.inputs):
            yield self
            return
        for start in range(0, len(self.inputs), rows):
            part = slice(start, start + rows)
            inputs, targets = self.inputs[part], self.targets[part]
            count = int((targets != IGNORE).sum())
            if self.segments is None or self.positions is None:
                yield type(self)(inputs, targets, None, None, count, inputs.numel())
            else:
                segments = self.segments[part]
                tokens = int((segments >= 0).sum())
                yield type(self)(inputs, targets, segments, self.positions[part], count, tokens)

    def to(self, device: str) -> Self:
        if device == "cpu":
            return self
        inputs, targets, segments, positions = (
            None if tensor is None else tensor.to(device, non_blocking=True)
            for tensor in (self.inputs, self.targets, self.segments, self.positions)
        )
        assert inputs is not None
        assert targets is not None
        return type(self)(inputs, targets, segments, positions, self.count, self.tokens)


class NextToken:
    """Next-token prediction on packed documents: cross entropy in nats, summed over the targets."""

    def __init__(self, batches: PackedBatches) -> None:
        self.batches = batches

    @property
    def steps_per_epoch(self) -> float:
        return self.batches.steps_per_epoch

    def check(self, model: Transformer) -> None:
        shards, config = self.batches.shards, model.config
        if shards.vocab_size > config.vocab_size:
            raise DataError(
                f"the data has token ids up to {shards.vocab_size - 1}, the model knows {config.vocab_size}",
                where=shards.folder,
                fix="encode the data with this model's tokenizer",
            )
        if self.batches.sequence_length > config.max_position_embeddings:
            raise ConfigError(
                f"sequence_length {self.batches.sequence_length} is longer than the model's context of "
                f"{config.max_position_embeddings}",
                fix=f"set sequence_length to at most {config.max_position_embeddings}",
            )

    def batch(self, step: int) -> TokenBatch:
        return TokenBatch.from_arrays(self.batches.batch(step))

    def loss(self, model: Transformer, batch: TokenBatch) -> LossSum:
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
