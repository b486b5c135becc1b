"""Low-rank adapters (LoRA, arXiv:2106.09685): a frozen model learns through small maps beside its own.

An adapted linear map computes W x + (alpha / r) · B A x, with A (r, inputs) and B (outputs, r). B
starts at zero, so a new adapter changes nothing. Several adapters may hang on one base, each switched
on or off; merging adds one to the base's weights for good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from pydantic import Field
from torch import nn

from glasshouse.core.config import Config
from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.core.seeds import derive
from glasshouse.model.adapter import Adapter, ExpertsAdapter
from glasshouse.model.experts import STACKS, Experts, SparseMLP
from glasshouse.model.layers import Linear
from glasshouse.model.transformer import Transformer

ALL = "all-linear"


class LoRAConfig(Config):
    """One adapter's shape, and where it hangs, by PEFT's rules.

    `targets` (PEFT's target_modules) names linear maps: "all-linear", a regular expression over whole names,
    or last parts of names. "all-linear" is what PEFT's documentation says: every linear map but the output
    head, which is adapted where "lm_head" is named. Experts and routers are parameters in transformers 5,
    not linear modules, and are adapted where `target_parameters` names them: "experts.gate_up_proj",
    "experts.down_proj", "gate.weight". (PEFT 0.21 itself adds all of these to "all-linear" in the families
    that have them, gate and up with rank 2 r. Here they have to be asked for: maps for each of many experts
    are far larger than all others together.)
    """

    r: int = Field(8, ge=1, description="rank")
    alpha: float | None = Field(None, gt=0, description="the output is scaled by alpha / r; by default 2 r")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the input's channels left out in training")
    targets: str | tuple[str, ...] = Field(
        default=ALL, description="'all-linear', a regular expression over whole names, or last parts of names"
    )
    target_parameters: tuple[str, ...] = Field(
        default=(), description="last parts of the names of parameters: those of experts and routers"
    )

    @property
    def scale(self) -> float:
        return 2.0 if self.alpha is None else self.alpha / self.r

    def matches(self, place: Place) -> bool:
        """Whether the map or the stack at `place` is adapted."""
        if _ends_with(place.parameter, self.target_parameters):
            return True
        if place.kind in ("router", "experts"):
            return False
        if self.targets == ALL:
            return place.kind != "head"
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, place.name) is not None
        return _ends_with(place.name, self.targets)


def _ends_with(name: str, endings: Iterable[str]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


class Place(NamedTuple):
    """Where adapters may hang: a linear map, or one stack of the experts of a layer."""

    name: str  # of the map; of a stack, its parameter's
    owner: Linear | Experts
    kind: str  # "linear" (inside the blocks), "router", "experts" or "head"

    @property
    def parameter(self) -> str:
        """The name of the weight."""
        return self.name if isinstance(self.owner, Experts) else f"{self.name}.weight"

    @property
    def weight(self) -> nn.Parameter:
        return getattr(self.owner, self.parameter.rsplit(".", 1)[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs), of a stack (experts, outputs, inputs); without unpacking few-bit weights."""
        if isinstance(self.owner, Linear):
            return self.owner.out_features, self.owner.in_features
        return tuple(self.weight.shape)

    @property
    def adapters(self) -> nn.ModuleDict | None:
        """What hangs here, by name."""
        if isinstance(self.owner, Linear):
            return self.owner.adapters
        stack = self.owner.adapters[self.name.rsplit(".", 1)[1]]
        assert isinstance(stack, nn.ModuleDict)
        return stack

    def new_adapter(self, rank: int, scale: float, dropout: float) -> Adapter:
        """An adapter of this shape; A is still to be written."""
        kind = Adapter if isinstance(self.owner, Linear) else ExpertsAdapter
        return kind(self.shape, rank, scale, dropout)

    def attach(self, name: str, adapter: Adapter) -> None:
        if isinstance(self.owner, Linear) and self.owner.adapters is None:
            self.owner.adapters = nn.ModuleDict()
        assert self.adapters is not None
        self.adapters[name] = adapter

    def adapter(self, name: str) -> Adapter | None:
        """The adapter of this name, if it hangs here."""
        if self.adapters is None or name not in self.adapters:
            return None
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        return adapter

    def remove(self, name: str) -> None:
        if self.adapters is not None and name in self.adapters:
            del self.adapters[name]
            if isinstance(self.owner, Linear) and not self.adapters:
                self.owner.adapters = None


def linear_maps(model: Transformer) -> Iterator[tuple[str, Linear]]:
    """Every linear map inside the blocks by name, routers apart."""
    for name, module in model.named_modules():
        if isinstance(module, Linear) and "layers." in name and not name.endswith("mlp.gate"):
            yield name, module


def places(model: Transformer) -> Iterator[Place]:
    """Everything that adapters may hang on. A head that is the embedding matrix is no map of its own."""
    for name, linear in linear_maps(model):
        yield Place(name, linear, "linear")
    for name, module in model.named_modules():
        if isinstance(module, SparseMLP):
            yield Place(f"{name}.gate", module.gate, "router")
            for stack in STACKS:
                yield Place(f"{name}.experts.{stack}", module.experts, "experts")
    if not model.config.tie_word_embeddings:
        yield Place("lm_head", model.lm_head, "head")


def add_adapter(model: Transformer, config: LoRAConfig, *, name: str = "default", seed: int = 0) -> None:
    """Hang a new, trainable adapter on the model and freeze everything else.

    A is drawn uniformly from ±sqrt(3 / inputs) · 1/sqrt(3), as PEFT does; B is zero. Raises ConfigError
    when the targets match nothing, or name a head that is tied to the embeddings; UsageError when the model
    has an adapter of this name.
    """
    if name in adapter_names(model):
        raise UsageError(f"the model has an adapter called '{name}' already", fix="choose another name")
    chosen = [place for place in places(model) if config.matches(place)]
    _check_targets(model, config, chosen)
    model.requires_grad_(False)
    for place in chosen:
        adapter = place.new_adapter(config.r, config.scale, config.dropout)
        generator = torch.Generator().manual_seed(derive(seed, "adapter", name, place.name))
        bound = 1 / math.sqrt(place.shape[-1])
        adapter.a.data.uniform_(-bound, bound, generator=generator)
        place.attach(name, adapter.to(model.device).train(model.training))


def _check_targets(model: Transformer, config: LoRAConfig, chosen: list[Place]) -> None:
    named = () if isinstance(config.targets, str) else config.targets
    if model.config.tie_word_embeddings and ("lm_head" in named or config.targets == "lm_head"):
        raise ConfigError(
            "the head of this model is its embedding matrix (tie_word_embeddings): what an adapter learnt "
            "beside the one could not be merged into both",
            fix="leave lm_head out of the targets",
        )
    for wanted in config.target_parameters:
        if not any(_ends_with(place.parameter, (wanted,)) for place in chosen):
            experts = [place for place in places(model) if place.kind in ("experts", "router")]
            known = {".".join(place.parameter.split(".")[-2:]) for place in experts}
            raise ConfigError(
                f"no parameter matches target_parameters {wanted!r}",
                fix=f"use some of: {', '.join(sorted(known)) or 'none, this model is dense'}",
            )
    if not chosen:
        known = sorted({place.name.rsplit(".", 1)[-1] for place in places(model) if place.kind == "linear"})
        raise ConfigError(f"no linear map matches {config.targets!r}", fix=f"use some of: {', '.join(known)}")


def adapter_names(model: Transformer) -> list[str]:
    """The adapters on the model, in the order in which they came."""
    names: dict[str, None] = {}
    for place in places(model):
        names.update(dict.fromkeys(place.adapters or ()))
    return list(names)


def active_adapters(model: Transformer) -> list[str]:
    """The adapters that are switched on."""
    return [
        name
        for name in adapter_names(model)
        if any((adapter := place.adapter(name)) is not None and adapter.active for place in places(model))
    ]


def use_adapters(model: Transformer, *names: str) -> None:
    """Switch on the named adapters, whose outputs add up, and all others off; none: the base alone.

    Raises UsageError for a name that the model does not have.
    """
    check_adapters(model, *names)
    for name in adapter_names(model):
        for place in places(model):
            if (adapter := place.adapter(name)) is not None:
                adapter.active = name in names


@contextmanager
def only_adapters(model: Transformer, *names: str) -> Iterator[None]:
    """Within it the named adapters are on and all others off; none: the base alone."""
    before = active_adapters(model)
    use_adapters(model, *names)
    try:
        yield
    finally:
        use_adapters(model, *before)


def remove_adapter(model: Transformer, name: str) -> None:
    check_adapters(model, name)
    for place in places(model):
        place.remove(name)


@torch.no_grad()
def merge_adapter(model: Transformer, name: str) -> None:
    """Add an adapter to the base's weights and take it off.

    Raises UsageError where the base is quantized: rounding the sum would change the model silently.
    """
    check_adapters(model, name)
    for place in places(model):
        if (adapter := place.adapter(name)) is not None:
            if type(place.owner) not in (Linear, Experts):
                raise UsageError(
                    f"'{place.name}' is quantized, and an adapter cannot be added to it without rounding",
                    fix="load the base in full precision and merge there",
                )
            place.weight.copy_(place.weight.float() + adapter.delta())
    remove_adapter(model, name)


def check_adapters(model: Transformer, *names: str) -> None:
    """Raise UsageError for a name that the model has no adapter of."""
    known = adapter_names(model)
    for name in names:
        if name not in known:
            raise UsageError(
                f"the model has no adapter called '{name}'", fix=f"it has: {', '.join(known) or 'none'}"
            )
