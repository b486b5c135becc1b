"""Positions that are vectors added to the embeddings; rotary ones are in `rope.py`."""

from __future__ import annotations

import torch
from torch import Tensor


def sinusoids(length: int, width: int) -> Tensor:
    """The fixed vectors of "Attention Is All You Need" (arXiv:1706.03762, section 3.5).

    float32 (length, width). Even channels hold sines, odd ones cosines, of wavelengths from 2π to
    10,000 · 2π.
    """
    rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
