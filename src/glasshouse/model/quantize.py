"""Weights in 8 or 4 bits with a scale for each group of them; products run on the weights unpacked again.

    int8  round(w / s), s = largest / 127                                   8.25 bits a weight, groups of 64
    int4  round(w / s) in -8..7, s = the weight of largest size / -8        4.25 bits
    nf4   the nearest of 16 quantiles of a normal distribution, scaled to   4.25 bits
          the largest: QLoRA's data type (arXiv:2305.14314, section 3)

Scales are bfloat16. Embeddings, head, norms, biases and routers keep their precision; of experts, all
matrices are in few bits, and only those that get tokens are unpacked, one at a time. Unpacked weights
live for one product and are unpacked again in the backward pass, so that training adapters over a
quantized base (QLoRA) never holds the base in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.core.errors import ConfigError
from glasshouse.model.experts import STACKS, Experts, SparseMLP
from glasshouse.model.layers import Linear
from glasshouse.model.lora import linear_maps
from glasshouse.model.transformer import Transformer

Scheme = Literal["int8", "int4", "nf4"]
SCHEMES: tuple[str, ...] = get_args(Scheme)

GROUP = 64
"""Weights of one row that share a scale; a row's last group may be padded with zeros."""

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""QLoRA, appendix E."""


def quantize(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """(codes uint8, scales bfloat16 (rows, groups)) of a weight (rows, columns).

    Codes are (rows, groups · 64) for int8, and half as many for the others: the even column of two in
    the low four bits.
    """
    rows, columns = weight.shape
    groups = F.pad(weight.float(), (0, -columns % GROUP)).view(rows, -1, GROUP)
    largest = groups.abs().amax(-1, keepdim=True)
    if scheme == "int8":
        scales = (largest / 127).bfloat16()
        codes = (groups / _divisor(scales)).round().clamp(-127, 127) + 128
    elif scheme == "int4":
        extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
        scales = (extreme / -8).bfloat16()
        codes = (groups / _divisor(scales)).round().clamp(-8, 7) + 8
    else:
        scales = largest.bfloat16()
        levels = torch.tensor(NF4, device=weight.device)
        between = (levels[1:] + levels[:-1]) / 2
        codes = torch.bucketize(groups / _divisor(scales), between)
    codes = codes.to(torch.uint8).view(rows, -1)
    if scheme != "int8":
        codes = codes[:, 0::2] | (codes[:, 1::2] << 4)
    return codes.contiguous(), scales[..., 0].contiguous()


def _divisor(scales: Tensor) -> Tensor:
    scales = scales.float()
    return torch.where(scales == 0, 1.0, scales)


def dequantize(codes: Tensor, scales: Tensor, scheme: Scheme, columns: int, dtype: torch.dtype) -> Tensor:
    """The weight (rows, columns) that codes and scales stand for."""
    if scheme == "int8":
        levels = codes.to(dtype) - 128
    else:
        levels = F.embedding(codes.int(), _pairs(scheme, dtype, codes.device))  # (rows, bytes, 2)
    weight = levels.view(*scales.shape, GROUP) * scales[..., None].to(dtype)
    return weight.view(len(codes), -1)[:, :columns]


_PAIRS: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}


def _pairs(scheme: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The two values that each byte stands for, (256, 2)."""
    if (key := (scheme, dtype, device)) not in _PAIRS:
        levels = torch.tensor(NF4) if scheme == "nf4" else torch.arange(-8.0, 8.0)
        byte = torch.arange(256)
        _PAIRS[key] = torch.stack([levels[byte & 15], levels[byte >> 4]], 1).to(device, dtype)
    return _PAIRS[key]


class QuantizedLinear(Linear):
    """A frozen linear map with its weight in few bits."""

    codes: Tensor
    scales: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool, scheme: Scheme) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = inputs, outputs
        self.scheme: Scheme = scheme
        self.adapters = None
        groups = -(-inputs // GROUP)
        width = groups * GROUP // (1 if scheme == "int8" else 2)
        self.codes = nn.Buffer(torch.empty(outputs, width, dtype=torch.uint8))
        self.scales = nn.Buffer(torch.empty(outputs, groups, dtype=torch.bfloat16))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None
        )

    @classmethod
    def of(cls, linear: Linear, scheme: Scheme) -> QuantizedLinear:
        """The same map in few bits, with the same adapters."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None, scheme)
        made.codes, made.scales = (nn.Buffer(t) for t in quantize(linear.weight.detach(), scheme))
        made.bias, made.adapters = linear.bias, linear.adapters
        if made.bias is not None:
            made.bias.requires_grad_(False)
        return made

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The weight (outputs, inputs)."""
        return dequantize(self.codes, self.scales, self.scheme, self.in_features, dtype)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.unpacked(torch.float32)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y = _Product.apply(x, self)
        return y if bias is None else y + bias


class _Product(torch.autograd.Function):
    """x Wᵀ, with W unpacked for each of the two passes rather than kept between them."""

    @staticmethod
    def forward(ctx, x: Tensor, linear: QuantizedLinear) -> Tensor:
        ctx.linear = linear
        return x @ linear.unpacked(x.dtype).T

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        return grad @ ctx.linear.unpacked(grad.dtype), None


class FewBits(nn.Module):
    """A stack of matrices (count, rows, columns) in few bits: codes and scales of each, stacked too."""

    codes: Tensor
    scales: Tensor

    def __init__(self, shape: tuple[int, ...], scheme: Scheme) -> None:
        super().__init__()
        self.count, self.rows, self.columns = shape
        self.scheme: Scheme = scheme
        groups = -(-self.columns // GROUP)
        width = groups * GROUP // (1 if scheme == "int8" else 2)
        self.codes = nn.Buffer(torch.empty(self.count, self.rows, width, dtype=torch.uint8))
        self.scales = nn.Buffer(torch.empty(self.count, self.rows, groups, dtype=torch.bfloat16))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, rows, columns)."""
        return self.count, self.rows, self.columns

    def pack(self, weight: Tensor) -> None:
        """Take over the values of a stack of matrices."""
        for codes, scales, matrix in zip(self.codes, self.scales, weight.detach(), strict=True):
            for mine, found in zip((codes, scales), quantize(matrix, self.scheme), strict=True):
                mine.copy_(found)

    def unpacked(self, index: int, dtype: torch.dtype) -> Tensor:
        """The matrix (rows, columns) of one place in the stack."""
        return dequantize(self.codes[index], self.scales[index], self.scheme, self.columns, dtype)


class QuantizedExperts(Experts):
    """The frozen experts of a layer with their weights in few bits."""

    gate_up_proj: FewBits  # type: ignore[assignment]
    down_proj: FewBits  # type: ignore[assignment]

    def __init__(self, experts: Experts, scheme: Scheme) -> None:
        """Of the same shape; the codes are still to be packed, or read from a folder."""
        nn.Module.__init__(self)
        self.act, self.is_silu, self.adapters = experts.act, experts.is_silu, experts.adapters
        for name in STACKS:
            setattr(self, name, FewBits(getattr(experts, name).shape, scheme))

    @classmethod
    def of(cls, experts: Experts, scheme: Scheme) -> QuantizedExperts:
        made = cls(experts, scheme).to(experts.down_proj.device)
        made.gate_up_proj.pack(experts.gate_up_proj)
        made.down_proj.pack(experts.down_proj)
        return made

    def product(self, rows: Tensor, stack: str, counts: Sequence[int]) -> Tensor:
        return _StackProduct.apply(rows, getattr(self, stack), counts)


class _StackProduct(torch.autograd.Function):
    """Expert by expert rows · Wᵀ, each W unpacked for the moment of its product, in both passes."""

    @staticmethod
    def forward(ctx, rows: Tensor, stack: FewBits, counts: Sequence[int]) -> Tensor:
        ctx.stack, ctx.counts = stack, counts
        out = rows.new_empty(len(rows), stack.rows)
        for index, (piece, into) in enumerate(zip(rows.split(counts), out.split(counts), strict=True)):
            if len(piece):
                torch.mm(piece, stack.unpacked(index, rows.dtype).T, out=into)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        stack, counts = ctx.stack, ctx.counts
        by_rows = grad.new_empty(len(grad), stack.columns)
        for index, (slope, into) in enumerate(zip(grad.split(counts), by_rows.split(counts), strict=True)):
            if len(slope):
                torch.mm(slope, stack.unpacked(index, grad.dtype), out=into)
        return by_rows, None, None


def quantize_model(model: Transformer, scheme: Scheme) -> None:
    """Replace every linear map and all experts inside the blocks, in place, one at a time.

    Raises ConfigError for an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"no quantization is called {scheme!r}", fix=f"use one of: {', '.join(SCHEMES)}")
    for name, linear in list(linear_maps(model)):
        if type(linear) is Linear:
            parent, child = name.rsplit(".", 1)
            setattr(model.get_submodule(parent), child, QuantizedLinear.of(linear, scheme))
    for mlp, experts in _stacks(model):
        if type(experts) is Experts:
            mlp.experts = QuantizedExperts.of(experts, scheme)


def _stacks(model: Transformer) -> Iterator[tuple[SparseMLP, Experts]]:
    for module in list(model.modules()):
        if isinstance(module, SparseMLP):
            yield module, module.experts


def empty_quantized(model: Transformer, scheme: Scheme) -> None:
    """Replace every linear map and all experts inside the blocks by such whose codes are still to be read."""
    for name, linear in list(linear_maps(model)):
        made = QuantizedLinear(linear.in_features, linear.out_features, linear.bias is not None, scheme)
        parent, child = name.rsplit(".", 1)
        setattr(model.get_submodule(parent), child, made.to(model.device))
    for mlp, experts in _stacks(model):
        mlp.experts = QuantizedExperts(experts, scheme).to(model.device)


def quantization(model: Transformer) -> Scheme | None:
    """The scheme of a quantized model, None of one in full precision."""
    return next((m.scheme for m in model.modules() if isinstance(m, QuantizedLinear | FewBits)), None)


def size_in_bytes(model: Transformer) -> int:
    """What weights, codes and scales take in memory; a tied head counts once."""
    tensors = [*model.parameters(), *(buffer for _, buffer in model.named_buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
