"""What PEFT adapts in a model of a family, under its names and in its shapes, and the places of ours in it.

PEFT names a map as the family's file does. Where that file keeps several of our maps in one (GPT-2's
c_attn), an adapter of the one is an adapter of each of ours with a shared A; the other way round three
adapters of rank r become one of rank 3r, with a B of three blocks. Both are exact.

Experts and routers are named as the parameters of transformers 5 are, which are ours. A stack's adapters
of rank r lie in two matrices: A (experts · r, inputs), expert by expert, and B (outputs, r · experts), whose
columns run over the experts first (`ParamWrapper` in PEFT's tuners/lora/layer.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glasshouse.model.adapter import Adapter
from glasshouse.model.layout import layout
from glasshouse.model.lora import Place, places
from glasshouse.model.transformer import Transformer


@dataclass(frozen=True)
class Target:
    """One map, or one stack of experts, that PEFT hangs one adapter on."""

    name: str  # PEFT's
    places: tuple[Place, ...]  # ours, in their order
    is_parameter: bool = False  # whether it is one of target_parameters, and named as a parameter is

    @property
    def module(self) -> str:
        """The module beside which PEFT keeps the adapter."""
        return self.name.rsplit(".", 1)[0] if self.is_parameter else self.name

    @property
    def experts(self) -> int:
        """How many adapters lie in one; 1 of a plain map."""
        return self.places[0].shape[0] if len(self.places[0].shape) == 3 else 1

    def shapes(self, rows: int) -> list[list[int]]:
        """Those of A and B where A has so many rows."""
        outputs = sum(place.shape[-2] for place in self.places)
        return [[rows, self.places[0].shape[-1]], [outputs, rows]]

    def joined(self, name: str) -> tuple[Tensor, Tensor, int, float] | None:
        """(A, B, rank, scale) of our adapters of this name as one; None where there are none."""
        found = [(place, place.adapter(name)) for place in self.places]
        present = [adapter for _, adapter in found if adapter is not None]
        if not present:
            return None
        a, scale = torch.cat([_plain(adapter.a) for adapter in present], -2), present[0].scale
        rank, column, blocks = a.shape[-2], 0, []
        for place, adapter in found:  # a part without an adapter has rows of zeros
            block = a.new_zeros(*place.shape[:-1], rank)
            if adapter is not None:
                here = slice(column, column + adapter.rank)
                block[..., here] = _plain(adapter.b) * (adapter.scale / scale)
                column += adapter.rank
            blocks.append(block)
        b = torch.cat(blocks, -2)
        if b.ndim == 3:
            a, b = a.flatten(0, 1), b.permute(1, 2, 0).flatten(1)
        return a.contiguous(), b.contiguous(), rank, scale

    def apart(self, a: Tensor, b: Tensor, alpha: float, dropout: float) -> Iterator[tuple[Place, Adapter]]:
        """Our adapters of what PEFT keeps as one, on the CPU."""
        rank = len(a) // self.experts
        if len(self.places[0].shape) == 3:
            a = a.unflatten(0, (self.experts, rank))
            b = b.unflatten(1, (rank, self.experts)).permute(2, 0, 1)
        pieces = b.split([place.shape[-2] for place in self.places], -2)
        for place, piece in zip(self.places, pieces, strict=True):
            adapter = place.new_adapter(rank, alpha / rank, dropout)
            adapter.a.data.copy_(a)
            adapter.b.data.copy_(piece)
            yield place, adapter


def _plain(parameter: Tensor) -> Tensor:
    return parameter.detach().float().cpu()


def targets(model: Transformer) -> Iterator[Target]:
    """Everything that PEFT may adapt in the model."""
    maps: dict[str, Place] = {}
    for place in places(model):
        # In a mixture of experts PEFT takes the module names of dense MLPs for those of experts before
        # transformers 5, and adapts these: only as parameters are the MLPs told apart from them.
        dense = model.config.num_experts > 0 and ".mlp." in place.name
        if place.kind in ("router", "experts") or dense:
            yield Target(place.parameter, (place,), is_parameter=True)
        else:
            maps[place.parameter] = place
    for stored in layout(model.config):
        if all(part.own in maps for part in stored.parts):
            name = stored.name.removesuffix(".weight")
            yield Target(name, tuple(maps[part.own] for part in stored.parts))


def stems(adapted: Iterable[Target]) -> dict[str, Target]:
    """What the names of their tensors begin with, when just these are adapted.

    PEFT wraps a module once for each of its parameters: the tensors of all but the last one lie one
    `base_layer` deeper.
    """
    found: dict[str, Target] = {}
    for target in reversed(list(adapted)):
        stem = target.module
        while stem in found:
            stem += ".base_layer"
        found[stem] = target
    return dict(reversed(found.items()))
