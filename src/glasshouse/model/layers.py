"""The small parts of a block: linear maps and norms that compute in their input's dtype, and SwiGLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.model import kernels
from glasshouse.model.config import ModelConfig


class Linear(nn.Linear):
    """A linear map whose weights are cast to the input's dtype at use.

    Master weights stay float32 while activations are bfloat16; the gradient arrives in float32.
    A new one holds no weights yet: they come from `initialise` or from a folder.
    """

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


def joined(x: Tensor, *maps: Linear) -> Tensor:
    """The outputs of several maps of one input side by side, by one product: its backward pass reads
    the gradient once and needs no sum. Joining the weights costs little against a batch of training."""
    weight = torch.cat([linear.weight.to(x.dtype) for linear in maps])
    biases = [linear.bias.to(x.dtype) for linear in maps if linear.bias is not None]
    return F.linear(x, weight, torch.cat(biases) if biases else None)


class Embedding(nn.Embedding):
    """A table of token vectors, without weights until `initialise` or a folder gives them."""

    def reset_parameters(self) -> None:
        pass


class RMSNorm(nn.RMSNorm):
    """x / rms(x) · weight over the last axis (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        if kernels.ready(x, 16, x.shape[-1]):
            return kernels.rms_norm(x, self.weight, self.variance_epsilon)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.variance_epsilon)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, width = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(d, width, bias=False)
        self.up_proj = Linear(d, width, bias=False)
        self.down_proj = Linear(width, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and kernels.ready(x, 16, self.gate_proj.out_features):
            return self.down_proj(kernels.swiglu(joined(x, self.gate_proj, self.up_proj)))
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
