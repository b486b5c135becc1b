"""The low-rank maps beside one frozen matrix, or beside a stack with one matrix for each expert."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.model.experts import products


class Adapter(nn.Module):
    """scale · B A x with A (rank, inputs) and B (outputs, rank); of a stack, such a pair for each expert.

    `shape` is that of the weight beside which it hangs: (outputs, inputs) or (experts, outputs, inputs).
    """

    def __init__(self, shape: Sequence[int], rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        *experts, outputs, inputs = shape
        self.a = nn.Parameter(torch.empty(*experts, rank, inputs))
        self.b = nn.Parameter(torch.zeros(*experts, outputs, rank))
        self.scale, self.dropout, self.active = scale, dropout, True

    @property
    def rank(self) -> int:
        return self.b.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs), in x's dtype."""
        return F.linear(*self.factors(x))

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(A x (..., rank), scale · B (outputs, rank)), whose product is the output."""
        x = F.dropout(x, self.dropout, self.training)
        return F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype) * self.scale

    def delta(self) -> Tensor:
        """What merging adds to the weight, float32, of its shape."""
        return self.scale * (self.b.float() @ self.a.float())


class ExpertsAdapter(Adapter):
    """Beside a stack: every expert has an A and a B of its own, as in PEFT's `target_parameters`."""

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:  # type: ignore[override]
        """x (assignments, inputs) sorted by expert, `counts` rows for each -> (assignments, outputs)."""
        x = F.dropout(x, self.dropout, self.training)
        return products(products(x, self.a, counts), self.b * self.scale, counts)
