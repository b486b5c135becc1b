"""A longer window for a trained model: the same weights, other positions.

What a position is decides how it is stretched. RoPE's angles are slowed (see `rope.py`), a learned table is
drawn out (as position interpolation does with angles, arXiv:2306.15595, here with the vectors themselves),
sinusoids and no positions at all just go on. The model then has to read long rows for a while: stretched
positions are near to those it knows, but not the same.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.model.config import ModelConfig
from glasshouse.model.lora import adapter_names
from glasshouse.model.quantize import quantization
from glasshouse.model.transformer import Transformer

Scaling = Literal["yarn", "linear", "llama3", "dynamic", "none"]


@torch.no_grad()
def extend_context(
    model: Transformer, length: int, scaling: Scaling | None = None, rope_theta: float | None = None
) -> Transformer:
    """A copy of `model` that takes rows of `length` tokens; see `extended_config`.

    With RoPE and `none` or `dynamic`, and with sinusoids or no positions, rows that fit the old window
    have the same logits. Raises UsageError for a model with adapters or few-bit weights.
    """
    if adapter_names(model) or quantization(model) is not None:
        raise UsageError(
            "only a plain model can be extended: this one has adapters or few-bit weights",
            fix="extend the model in full precision, then adapt or quantize it",
        )
    config = extended_config(model.config, length, scaling, rope_theta)
    longer = Transformer.empty(config, model.device, model.model.embed_tokens.weight.dtype)
    longer.compute_dtype = model.compute_dtype
    weights = model.state_dict()
    if config.positions == "learned":
        name = "model.embed_positions.weight"
        weights[name] = drawn_out(weights[name], length)
    longer.load_state_dict(weights)
    return longer.train(model.training)


def extended_config(
    config: ModelConfig, length: int, scaling: Scaling | None = None, rope_theta: float | None = None
) -> ModelConfig:
    """The shape with a window of `length` tokens. Raises ConfigError for what cannot be.

    `scaling` for RoPE is by default the kind that the model has already, else yarn; `none` leaves the
    angles as they are. A second extension of the same kind multiplies the factors and keeps all other
    constants, the originally trained window among them; another kind on top of the first is refused: no
    config.json could say it. `dynamic` keeps max_position_embeddings, as transformers does: its angles
    begin to change there, and the factor tells how far it goes. `rope_theta` replaces RoPE's base.

    Learned positions know `linear` only, sinusoidal ones and none at all `none` only; both are the
    default there.
    """
    old = config.context
    if length <= old:
        raise ConfigError(
            f"the new window of {length} tokens is not longer than the model's {old}",
            fix=f"set max_position_embeddings above {old}",
        )
    if not config.family.rotary:
        _check_without_rope(config, scaling, rope_theta)
        return _changed(config, max_position_embeddings=length)
    had = config.rope_scaling
    kind = scaling or (had.rope_type if had is not None else "yarn")
    if had is not None and kind != had.rope_type and (kind != "none" or had.rope_type == "dynamic"):
        raise ConfigError(
            f"the model's positions are scaled already ({had.rope_type}); {kind} cannot come on top",
            fix=f"set scaling={had.rope_type}, or leave it out",
        )
    theta = config.rope_theta if rope_theta is None else rope_theta
    if kind == "none":
        return _changed(config, max_position_embeddings=length, rope_theta=theta)
    if kind == "dynamic":
        trained = config.max_position_embeddings
        return _changed(
            config,
            rope_scaling={"rope_type": kind, "factor": _factor(length, trained)},
            rope_theta=theta,
        )
    if had is not None:
        scaled = {**had.model_dump(), "factor": had.factor * length / old}
    else:
        scaled = {"rope_type": kind, "factor": length / old}
        if kind != "linear":
            scaled["original_max_position_embeddings"] = old
    return _changed(config, max_position_embeddings=length, rope_scaling=scaled, rope_theta=theta)


def drawn_out(table: Tensor, length: int) -> Tensor:
    """(old, width) -> (length, width): linear between neighbours; the outer two stay the ends."""
    columns = table.float().T[None]  # (1, width, old)
    return F.interpolate(columns, size=length, mode="linear", align_corners=True)[0].T.to(table.dtype)


def _check_without_rope(config: ModelConfig, scaling: Scaling | None, rope_theta: float | None) -> None:
    way = "linear" if config.positions == "learned" else "none"
    if scaling not in (None, way):
        raise ConfigError(
            f"{scaling} scales RoPE; the positions of this model are {config.positions}",
            fix=f"leave scaling out, or set it to {way}",
        )
    if rope_theta is not None:
        raise ConfigError("this model has no RoPE, so rope_theta means nothing", fix="leave rope_theta out")


def _factor(length: int, trained: int) -> float:
    """length / trained, a hair more where rounding would lose the last token of the window."""
    factor = length / trained
    while int(trained * factor) < length:
        factor = math.nextafter(factor, math.inf)
    return factor


def _changed(config: ModelConfig, **changes: Any) -> ModelConfig:
    return ModelConfig.parse({**config.model_dump(), **changes}, source="extended context")
