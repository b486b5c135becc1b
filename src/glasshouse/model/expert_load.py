"""How a mixture of experts shares its work out: which experts its routers chose, and how surely."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glasshouse.model.experts import count_choices, probabilities


class ExpertLoad:
    """Sums over routed tokens; what one forward pass left in `routing` is added at a time."""

    def __init__(self, layers: int, experts: int, top_k: int) -> None:
        self.top_k = top_k
        self.tokens = 0
        self.counts = torch.zeros(layers, experts, dtype=torch.int64)  # assignments
        self._entropy = torch.zeros(layers, dtype=torch.float64)  # summed over tokens

    def add(self, routing: Sequence[Tensor], real: Tensor) -> None:
        """Router logits (tokens, experts) of each sparse layer; `real` (tokens,) is False on padding."""
        self.tokens += int(real.sum())
        for layer, logits in enumerate(routing):
            chances = probabilities(logits[real])  # (tokens, experts)
            self.counts[layer] += count_choices(chances, self.top_k).cpu()
            self._entropy[layer] += torch.special.entr(chances).sum().cpu()

    @property
    def shares(self) -> Tensor:
        """Each expert's share of its layer's assignments, float64 (layers, experts); 1 / experts is even."""
        return self.counts.double() / max(1, self.tokens * self.top_k)

    @property
    def entropy(self) -> float:
        """Mean entropy of the routers' probabilities in nats: ln(experts) where they know no preference."""
        return float(self._entropy.mean()) / max(1, self.tokens)
