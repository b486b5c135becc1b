"""Adapters from before transformers 5, when every expert had linear modules of its own (`experts.7.w1`).

Gate and up of an expert lie in one stack now: their two pairs of maps become one pair, with the rows of
both A and a B of two blocks. PEFT 0.21 does the same when it opens such a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glasshouse.model.adapter import Adapter
from glasshouse.model.layout import Part, layout
from glasshouse.model.lora import Place, places
from glasshouse.model.transformer import Transformer

Take = Callable[[str, int, int], tuple[Tensor, Tensor, float] | None]
"""take(module, inputs, outputs) -> its A (rank, inputs), B (outputs, rank) and alpha, if they are there."""


def single_experts(model: Transformer, take: Take, dropout: float) -> Iterator[tuple[Place, Adapter]]:
    """Our adapters of the stacks whose experts `take` finds; experts that it does not find have zeros."""
    modules: dict[str, list[tuple[str, Part]]] = {}  # by our stack
    for stored in layout(model.config):
        for part in stored.parts:
            if part.expert is not None:
                modules.setdefault(part.own, []).append((stored.name.removesuffix(".weight"), part))
    for place in places(model):
        if place.kind != "experts":
            continue
        found: list[tuple[int, slice, Tensor, Tensor]] = []
        for module, part in modules[place.name]:
            assert part.expert is not None
            rows = range(place.shape[1])[part.own_rows or slice(None)]
            if (taken := take(module, place.shape[2], len(rows))) is not None:
                a, b, alpha = taken
                found.append((part.expert, slice(rows.start, rows.stop), a, b * (alpha / len(a))))
        if found:
            yield place, _stacked(place, found, dropout)


def _stacked(place: Place, found: list[tuple[int, slice, Tensor, Tensor]], dropout: float) -> Adapter:
    """One adapter of scale 1 from (expert, rows of the stack's matrix, A, scaled B)."""
    ranks = dict.fromkeys((rows.start for _, rows, _, _ in found), 0)
    for _, rows, a, _ in found:
        ranks[rows.start] = max(ranks[rows.start], len(a))
    adapter = place.new_adapter(sum(ranks.values()), 1.0, dropout)
    columns = {start: sum(list(ranks.values())[:at]) for at, start in enumerate(ranks)}
    with torch.no_grad():
        adapter.a.zero_()
        for expert, rows, a, b in found:
            here = slice(columns[rows.start], columns[rows.start] + len(a))
            adapter.a[expert, here] = a.float()
            adapter.b[expert, rows, here] = b.float()
    return adapter
