"""Rotary position embeddings (RoFormer, arXiv:2104.09864), in Hugging Face's half-rotation layout.

Channel i of a head's first half is paired with channel i of its second half; the pair turns by
position · theta^(-2i/head_dim) radians. `RopeScaling` slows the turning, so that a model trained on
short contexts meets no angle that it does not know:

- linear: all pairs, by the factor (position interpolation, arXiv:2306.15595);
- dynamic: a larger theta, the larger the longer the text at hand (NTK-aware scaling);
- yarn: slow pairs by the factor, fast ones not at all, a ramp between (arXiv:2309.00071, section 3.2),
  and attention a little sharper (section 3.4);
- llama3: the same idea with a ramp over the wavelength (Llama 3.1's reference code).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glasshouse.model.config import ModelConfig, RopeScaling

WHOLE_TABLE = 8192
"""Contexts up to this length have their table made at once; longer ones as far as they are used."""


class Rope:
    """Cosines and sines of one model's angles, by position."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        empty = torch.empty(0, config.head_dim // 2)
        self._cos, self._sin = empty, empty
        self._made_for = -1

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(cos, sin) float32, each (at least length, head_dim / 2), for a text of `length` tokens.

        Raises IndexError for a length beyond the context.
        """
        if length > self.config.context:
            raise IndexError(f"position {length - 1} lies beyond the context of {self.config.context}")
        wanted = self._size(length)
        if wanted != self._made_for or self._cos.device != device:
            with torch.inference_mode(
                False
            ):  # an engine may ask first, and training go on with the same table
                rates, factor = frequencies(self.config, length)
                angles = torch.arange(wanted, dtype=torch.float32, device=device)[:, None] * rates.to(device)
                self._cos, self._sin = angles.cos() * factor, angles.sin() * factor
            self._made_for = wanted
        return self._cos, self._sin

    def _size(self, length: int) -> int:
        limit = self.config.max_position_embeddings
        if length > limit:
            return length  # dynamic: every length beyond the trained context has its own angles
        if limit <= WHOLE_TABLE:
            return limit
        return min(limit, max(WHOLE_TABLE, 1 << (length - 1).bit_length()))


def frequencies(config: ModelConfig, length: int) -> tuple[Tensor, float]:
    """(radians a position for each pair, float32 (head_dim / 2); the factor on cosines and sines)."""
    scaling, theta, width = config.rope_scaling, config.rope_theta, config.head_dim
    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    if scaling is None:
        return 1.0 / theta**exponents, 1.0
    match scaling.rope_type:
        case "linear":
            return 1.0 / theta**exponents / scaling.factor, 1.0
        case "dynamic":
            share = max(length / config.max_position_embeddings, 1.0)
            stretched = theta * (scaling.factor * share - (scaling.factor - 1)) ** (width / (width - 2))
            return 1.0 / stretched**exponents, 1.0
        case "yarn":
            return _yarn(1.0 / theta**exponents, theta, scaling), _yarn_attention(scaling)
        case "llama3":
            return _llama3(1.0 / theta**exponents, scaling), 1.0


def _yarn(rates: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    trained = scaling.original_max_position_embeddings
    assert trained is not None
    width = 2 * len(rates)

    def channel(turns: float) -> float:
        """The pair that turns so many times over the trained context, as a fraction of channels."""
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    high += 0.001 if low == high else 0  # a ramp of no length is a step
    stretched = ((torch.arange(len(rates), dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return rates / scaling.factor * stretched + rates * (1 - stretched)


def _yarn_attention(scaling: RopeScaling) -> float:
    def sharpness(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return sharpness(scaling.mscale) / sharpness(scaling.mscale_all_dim)
    return sharpness(1.0)


def _llama3(rates: Tensor, scaling: RopeScaling) -> Tensor:
    trained = scaling.original_max_position_embeddings
    assert trained is not None
    turns = trained * rates / (2 * math.pi)  # of each pair over the trained context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return rates / scaling.factor * (1 - kept) + rates * kept


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x (batch, seq, heads, head_dim) by cos, sin (batch or 1, seq, head_dim / 2), in x's dtype."""
    cos, sin = cos[:, :, None].to(x.dtype), sin[:, :, None].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
