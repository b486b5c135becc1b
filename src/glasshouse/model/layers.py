"""The small parts of a block: linear maps and norms that compute in their input's dtype, and dense MLPs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.model import kernels
from glasshouse.model.config import ModelConfig


class Linear(nn.Linear):
    """A linear map whose weights are cast to the input's dtype at use.

    Master weights stay float32 while activations are bfloat16; the gradient arrives in float32.
    A new one holds no weights yet: they come from `initialise` or from a folder. `adapters` are
    low-rank maps beside it (see `lora.py`), whose outputs are added.
    """

    adapters: nn.ModuleDict | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.adapters = None

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        y, delta = self.product(input, bias), self.delta(input)
        return y if delta is None else y + delta

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), bias)

    def delta(self, x: Tensor) -> Tensor | None:
        """The sum of the active adapters' outputs for x; None where there are none."""
        total = None
        for adapter in self.adapters.values() if self.adapters is not None else ():
            if adapter.active:
                total = adapter(x) if total is None else total + adapter(x)
        return total

    def low_rank(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """The active adapters side by side: (A x (..., ranks), scale · B (outputs, ranks)), or None."""
        active = [adapter for adapter in (self.adapters or {}).values() if adapter.active]
        if not active:
            return None
        inner, outer = zip(*(adapter.factors(x) for adapter in active), strict=True)  # type: ignore[operator]
        return torch.cat(inner, -1), torch.cat(outer, -1)


def joined(x: Tensor, *maps: Linear) -> Tensor:
    """The outputs of several maps of one input side by side, by one product: its backward pass reads
    the gradient once and needs no sum. Joining the weights costs little against a batch of training."""
    if any(type(linear) is not Linear for linear in maps):  # weights in few bits are not joined
        return torch.cat([linear(x) for linear in maps], dim=-1)
    weight = torch.cat([linear.weight.to(x.dtype) for linear in maps])
    biases = [linear.bias.to(x.dtype) for linear in maps if linear.bias is not None]
    y = F.linear(x, weight, torch.cat(biases) if biases else None)
    deltas = [linear.delta(x) for linear in maps]
    if all(delta is None for delta in deltas):
        return y
    rows = x.shape[:-1]
    return y + torch.cat(
        [x.new_zeros(*rows, m.out_features) if d is None else d for m, d in zip(maps, deltas, strict=True)],
        -1,
    )


class Embedding(nn.Embedding):
    """A table of token vectors, without weights until `initialise` or a folder gives them."""

    def reset_parameters(self) -> None:
        pass


class RMSNorm(nn.RMSNorm):
    """x / rms(x) · weight over the last axis (arXiv:1910.07467)."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__(width, eps=eps)
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        if kernels.ready(x, 16, x.shape[-1]):
            return kernels.rms_norm(x, self.weight, self.variance_epsilon)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.variance_epsilon)


class LayerNorm(nn.LayerNorm):
    """(x - mean) / deviation · weight + bias over the last axis (arXiv:1607.06450)."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """The family's norm over the residual stream."""
    kind = LayerNorm if config.family.norm == "layer" else RMSNorm
    return kind(config.hidden_size, eps=config.rms_norm_eps)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


class GatedMLP(nn.Module):
    """down(act(gate(x)) · up(x)), with silu SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, width, bias = config.hidden_size, config.intermediate_size, config.has_mlp_bias
        self.gate_proj = Linear(d, width, bias=bias)
        self.up_proj = Linear(d, width, bias=bias)
        self.down_proj = Linear(width, d, bias=bias)
        self.act, self.is_silu = ACTIVATIONS[config.hidden_act], config.hidden_act == "silu"

    def forward(self, x: Tensor) -> Tensor:
        if self.is_silu and torch.is_grad_enabled() and kernels.ready(x, 16, self.gate_proj.out_features):
            return self.down_proj(kernels.swiglu(joined(x, self.gate_proj, self.up_proj)))
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class MLP(nn.Module):
    """down(act(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, width, bias = config.hidden_size, config.intermediate_size, config.has_mlp_bias
        self.up_proj = Linear(d, width, bias=bias)
        self.down_proj = Linear(width, d, bias=bias)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.up_proj(x)))
