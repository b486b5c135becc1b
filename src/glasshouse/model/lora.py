"""Low-rank adapters (LoRA, arXiv:2106.09685): a frozen model learns through small maps beside its own.

An adapted linear map computes W x + (alpha / r) · B A x, with A (r, inputs) and B (outputs, r). B
starts at zero, so a new adapter changes nothing. Several adapters may hang on one base, each switched
on or off; merging adds one to the base's weights for good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from glasshouse.core.config import Config
from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.core.seeds import derive
from glasshouse.model.layers import Linear
from glasshouse.model.transformer import Transformer

ALL = "all-linear"


class LoRAConfig(Config):
    """One adapter's shape."""

    r: int = Field(8, ge=1, description="rank")
    alpha: float | None = Field(None, gt=0, description="the output is scaled by alpha / r; by default 2 r")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the input's channels left out in training")
    targets: str | tuple[str, ...] = Field(
        default=ALL, description="'all-linear', a regular expression over whole names, or last parts of names"
    )

    @property
    def scale(self) -> float:
        return 2.0 if self.alpha is None else self.alpha / self.r

    def matches(self, name: str) -> bool:
        """Whether the linear map `name` is adapted, by PEFT's rules."""
        if self.targets == ALL:
            return True
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, name) is not None
        return any(name == target or name.endswith(f".{target}") for target in self.targets)


class Adapter(nn.Module):
    """The two small maps beside one linear map."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale, self.dropout, self.active = scale, dropout, True

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs), in x's dtype."""
        x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype) * self.scale)

    def delta(self) -> Tensor:
        """What merging adds to the weight, float32 (outputs, inputs)."""
        return self.scale * (self.b.float() @ self.a.float())


def linear_maps(model: Transformer) -> Iterator[tuple[str, Linear]]:
    """Every linear map inside the blocks by name, routers apart: those that adapters may hang on."""
    for name, module in model.named_modules():
        if isinstance(module, Linear) and "layers." in name and not name.endswith("mlp.gate"):
            yield name, module


def add_adapter(model: Transformer, config: LoRAConfig, *, name: str = "default", seed: int = 0) -> None:
    """Hang a new, trainable adapter on the model and freeze everything else.

    A is drawn uniformly from ±sqrt(3 / inputs) · 1/sqrt(3), as PEFT does; B is zero. Raises ConfigError
    when the targets match nothing, UsageError when the model has an adapter of this name.
    """
    if name in adapter_names(model):
        raise UsageError(f"the model has an adapter called '{name}' already", fix="choose another name")
    chosen = [(path, linear) for path, linear in linear_maps(model) if config.matches(path)]
    if not chosen:
        known = sorted({path.rsplit(".", 1)[1] for path, _ in linear_maps(model)})
        raise ConfigError(f"no linear map matches {config.targets!r}", fix=f"use some of: {', '.join(known)}")
    model.requires_grad_(False)
    for path, linear in chosen:
        adapter = Adapter(linear.in_features, linear.out_features, config.r, config.scale, config.dropout)
        generator = torch.Generator().manual_seed(derive(seed, "adapter", name, path))
        bound = 1 / math.sqrt(linear.in_features)
        adapter.a.data.uniform_(-bound, bound, generator=generator)
        attach(linear, name, adapter.to(model.device))


def attach(linear: Linear, name: str, adapter: Adapter) -> None:
    if linear.adapters is None:
        linear.adapters = nn.ModuleDict()
    linear.adapters[name] = adapter


def adapter_of(linear: Linear, name: str) -> Adapter | None:
    """The adapter of this name on one linear map, if it has one."""
    if linear.adapters is None or name not in linear.adapters:
        return None
    adapter = linear.adapters[name]
    assert isinstance(adapter, Adapter)
    return adapter


def adapter_names(model: Transformer) -> list[str]:
    """The adapters on the model, in the order in which they came."""
    names: dict[str, None] = {}
    for _, linear in linear_maps(model):
        names.update(dict.fromkeys(linear.adapters or ()))
    return list(names)


def active_adapters(model: Transformer) -> list[str]:
    """The adapters that are switched on."""
    return [
        name
        for name in adapter_names(model)
        if any(
            (adapter := adapter_of(linear, name)) is not None and adapter.active
            for _, linear in linear_maps(model)
        )
    ]


def use_adapters(model: Transformer, *names: str) -> None:
    """Switch on the named adapters, whose outputs add up, and all others off; none: the base alone.

    Raises UsageError for a name that the model does not have.
    """
    _check(model, *names)
    for name in adapter_names(model):
        for _, linear in linear_maps(model):
            if (adapter := adapter_of(linear, name)) is not None:
                adapter.active = name in names


def remove_adapter(model: Transformer, name: str) -> None:
    _check(model, name)
    for _, linear in linear_maps(model):
        if linear.adapters is not None and name in linear.adapters:
            del linear.adapters[name]
            if not linear.adapters:
                linear.adapters = None


@torch.no_grad()
def merge_adapter(model: Transformer, name: str) -> None:
    """Add an adapter to the base's weights and take it off.

    Raises UsageError where the base is quantized: rounding the sum would change the model silently.
    """
    _check(model, name)
    for path, linear in linear_maps(model):
        if (adapter := adapter_of(linear, name)) is not None:
            if type(linear) is not Linear:
                raise UsageError(
                    f"'{path}' is quantized, and an adapter cannot be added to it without rounding",
                    fix="load the base in full precision and merge there",
                )
            linear.weight.copy_(linear.weight.float() + adapter.delta())
    remove_adapter(model, name)


def _check(model: Transformer, *names: str) -> None:
    known = adapter_names(model)
    for name in names:
        if name not in known:
            raise UsageError(
                f"the model has no adapter called '{name}'", fix=f"it has: {', '.join(known) or 'none'}"
            )
