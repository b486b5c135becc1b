"""Rotary position embeddings (RoFormer, arXiv:2104.09864), in Hugging Face's half-rotation layout.

Channel i of a head's first half is paired with channel i of its second half; the pair turns by
position · theta^(-2i/head_dim) radians.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_tables(
    head_dim: int, theta: float, length: int, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions 0..length-1, float32, each (length, head_dim / 2)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    frequencies = 1.0 / theta**exponents  # (head_dim / 2)
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x (batch, seq, heads, head_dim) by cos, sin (batch or 1, seq, head_dim / 2), in x's dtype."""
    cos, sin = cos[:, :, None].to(x.dtype), sin[:, :, None].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
