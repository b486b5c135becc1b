"""Native kernels for training on a CPU: what lies between the matrix products, in one pass each.

PyTorch's CPU operators for norms, rotary positions, small attention and cross entropy each walk over
memory several times, and the backward pass of its attention is slow in bfloat16. The C files in
`native/` do each in one pass. They are compiled at first use with the machine's own compiler and
cached; without a compiler everything runs on PyTorch's operators, with a notice.

Measured on an AMD Zen 5 with AVX512-BF16 (torch 2.13, one thread, the machine busy with other work,
so compare within a column), forward + backward of 8,192 tokens, vocabulary 2,048, in thousands of
tokens per CPU second; documents of about 90 tokens, about 45 tokens, and whole rows of 512:

    layers x width, kv heads / heads              6x128, 2/4   5x160, 5/5   6x128, 2/4
    float32, dense mask, PyTorch's attention          4.6          4.9          4.7
    the same under autocast to bfloat16               7.4          8.2          6.9
    bfloat16, by documents, PyTorch's operators      12.8         12.3         12.0
    these kernels, float32                            8.2          6.7          7.5
    these kernels, bfloat16                          23.0         20.9         16.8

torch.compile of the parts between attention and products came to about 1.2 times the third line, for
20 to 30 seconds of compiling; these kernels compile in one or two.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glasshouse.core.native_library import native_library
from glasshouse.model.documents import Spans

SOURCES = Path(__file__).parent / "native"

PIECES = 64
"""Partial sums of a norm's gradient: fixed, so that the number of threads does not change its bits."""

_SLOWER = "PyTorch's own operators are used instead, and training on a CPU takes about twice as long"


def ready(x: Tensor, multiple_of: int, *widths: int) -> bool:
    """Whether a kernel may take `x`: a CPU tensor of a known dtype, of widths that fill its vectors."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not any(width % multiple_of for width in widths)
        and not torch.compiler.is_compiling()
        and _library(x.dtype) is not None
    )


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x, gain = x.contiguous(), weight.float()
        width = x.shape[-1]
        rows = x.numel() // width
        y, scale = torch.empty_like(x), torch.empty(rows)
        _call("norm_forward", x, gain, y, scale, rows, width, eps)
        ctx.save_for_backward(x, gain, scale)
        ctx.weight_dtype = weight.dtype
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, gain, scale = ctx.saved_tensors
        by_x, by_weight = torch.empty_like(x), torch.empty(PIECES, x.shape[-1])
        grad = grad.contiguous()
        _call("norm_backward", grad, x, gain, scale, by_x, by_weight, scale.numel(), x.shape[-1], PIECES)
        return by_x, by_weight.sum(0).to(ctx.weight_dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) · weight over the last axis, a multiple of 16 wide."""
    return _Norm.apply(x, weight, eps)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, both: Tensor) -> Tensor:
        both = both.contiguous()
        width = both.shape[-1] // 2
        out = both.new_empty(*both.shape[:-1], width)
        _call("swiglu_forward", both, out, out.numel() // width, width)
        ctx.save_for_backward(both)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (both,) = ctx.saved_tensors
        width = grad.shape[-1]
        by_both = torch.empty_like(both)
        _call("swiglu_backward", grad.contiguous(), both, by_both, grad.numel() // width, width)
        return by_both


def swiglu(both: Tensor) -> Tensor:
    """silu(gate) · up, where the last axis of `both` is [gate, up], each a multiple of 16 wide."""
    return _SwiGLU.apply(both)


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """Losses float32 (rows) of logits (rows, vocab), which are overwritten with their gradient."""
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
        raise IndexError(f"a target lies outside the vocabulary of {logits.shape[1]}")
    assert logits.is_contiguous()
    losses = torch.empty(len(logits))
    _call("cross_entropy", logits, targets.contiguous(), losses, len(logits), logits.shape[1])
    return losses


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        qkv: Tensor,
        q_weight: Tensor | None,
        k_weight: Tensor | None,
        eps: float,
        cos: Tensor,
        sin: Tensor,
        spans: Spans,
        window: int,
    ) -> Tensor:
        qkv = qkv.contiguous()
        gains = [None if weight is None else weight.float() for weight in (q_weight, k_weight)]
        width = qkv.shape[-1] // (spans.heads + 2 * spans.kv_heads)
        tokens = qkv.numel() // qkv.shape[-1]
        assert cos.numel() == sin.numel() == tokens * width // 2
        assert int(spans.length.sum()) == tokens
        out = qkv.new_empty(*qkv.shape[:-1], spans.heads * width)
        log_sum = torch.empty(tokens, spans.heads)
        where = (
            cos,
            sin,
            spans.first,
            spans.length,
            spans.bounds,
            spans.trunk,
            len(spans.trunk),
            spans.longest,
        )
        shape = (spans.heads, spans.kv_heads, width, window)
        _call("attention_forward", qkv, *gains, *where, *shape, eps, out, log_sum)
        ctx.save_for_backward(qkv, *gains, log_sum)
        ctx.where, ctx.shape, ctx.eps = where, shape, eps
        ctx.weight_dtypes = [None if weight is None else weight.dtype for weight in (q_weight, k_weight)]
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        qkv, q_gain, k_gain, log_sum = ctx.saved_tensors
        documents, kv_heads, width = ctx.where[6], ctx.shape[1], ctx.shape[2]
        by_qkv = torch.empty_like(qkv)
        by_weight = torch.empty(documents * kv_heads, 2, width)
        _call(
            "attention_backward",
            grad.contiguous(),
            qkv,
            q_gain,
            k_gain,
            *ctx.where,
            *ctx.shape,
            ctx.eps,
            log_sum,
            by_qkv,
            by_weight,
        )
        by_gains = [
            None if dtype is None else gain.to(dtype)
            for gain, dtype in zip(by_weight.sum(0), ctx.weight_dtypes, strict=True)
        ]
        return by_qkv, *by_gains, None, None, None, None, None


def attend(
    qkv: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    spans: Spans,
    window: int | None = None,
) -> Tensor:
    """QK-norm, RoPE and causal attention inside documents, in one.

    qkv (batch, seq, (heads + 2 · kv_heads) · head_dim) before norms; norms: weights of queries' and
    keys', (head_dim) each; cos, sin float32 (batch · seq, head_dim / 2); window: how many tokens a
    token sees, itself among them. Returns (batch, seq, heads · head_dim).
    """
    q_weight, k_weight = norms or (None, None)
    return _Attention.apply(qkv, q_weight, k_weight, eps, cos, sin, spans, window or _EVERYTHING)


_EVERYTHING = 2**30


# Loading, calling


def _call(name: str, *arguments: Any) -> None:
    """Call a kernel: tensors go as pointers (None as null), sizes as int64, eps as float, threads last."""
    library = _library(arguments[0].dtype)
    assert library is not None
    converted = [
        ctypes.c_void_p(argument.data_ptr() if isinstance(argument, Tensor) else None)
        if argument is None or isinstance(argument, Tensor)
        else ctypes.c_int64(argument)
        if isinstance(argument, int)
        else ctypes.c_float(argument)
        for argument in arguments
    ]
    getattr(library, name)(*converted, ctypes.c_int(torch.get_num_threads()))


@lru_cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled kernels for tensors stored as `dtype`; None, with a notice, where there are none."""
    options = ("-DBF16",) if dtype == torch.bfloat16 else ()
    return native_library((SOURCES,), options, _SLOWER)
