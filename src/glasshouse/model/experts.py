"""Mixture of experts: a router sends every token to a few of many small MLPs (arXiv:1701.06538).

No expert has a limit of tokens and none is dropped. Tokens are sorted by expert, so that each expert's
work is one dense product over a contiguous piece; what Python loops over is experts, not tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glasshouse.model import kernels
from glasshouse.model.config import ModelConfig
from glasshouse.model.layers import ACTIVATIONS, Linear

STACKS = ("gate_up_proj", "down_proj")
"""The matrices of a layer's experts, each kind in one parameter (experts, outputs, inputs)."""

ROUNDING = 16
"""On a CPU an expert's rows are rounded up to a multiple of about this part of the mean load."""


class Experts(nn.Module):
    """The weights of all experts of a layer, stacked.

    `adapters` holds for each stack the low-rank maps beside it, by name (see `lora.py`).
    """

    adapters: nn.ModuleDict

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        count, d, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, d))  # rows: gate, then up
        self.down_proj = nn.Parameter(torch.empty(count, d, width))
        self.act, self.is_silu = ACTIVATIONS[config.hidden_act], config.hidden_act == "silu"
        self.adapters = nn.ModuleDict({stack: nn.ModuleDict() for stack in STACKS})

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """x (assignments, hidden) sorted by expert, `counts` rows for each -> the same shape."""
        both = self._adapted(x, "gate_up_proj", counts)  # (assignments, 2 · width)
        return self._adapted(self._gated(both), "down_proj", counts)

    def _adapted(self, rows: Tensor, stack: str, counts: Sequence[int]) -> Tensor:
        """The product with what the active adapters of the stack add to it."""
        y = self.product(rows, stack, counts)
        for adapter in self.adapters[stack].values():  # type: ignore[operator]
            if adapter.active:
                y = y + adapter(rows, counts)
        return y

    def product(self, rows: Tensor, stack: str, counts: Sequence[int]) -> Tensor:
        """Each expert's rows times its matrix of that stack, transposed."""
        return products(rows, getattr(self, stack), counts)

    def _gated(self, both: Tensor) -> Tensor:
        if self.is_silu and torch.is_grad_enabled() and kernels.ready(both, 16, both.shape[-1] // 2):
            return kernels.swiglu(both)
        gate, up = both.chunk(2, dim=-1)
        return self.act(gate) * up


class SparseMLP(nn.Module):
    """Each token's MLP is the weighted sum of its `num_experts_per_tok` best experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k, self.normed = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = Experts(config)

    def forward(self, x: Tensor, routing: list[Tensor] | None = None) -> Tensor:
        """x (batch, seq, hidden) -> the same; the router's logits (batch · seq, experts) go to `routing`."""
        flat = x.flatten(0, 1)  # (tokens, hidden)
        logits = self.gate(flat)
        if routing is not None:
            routing.append(logits)
        weights, chosen = probabilities(logits).topk(self.top_k)  # (tokens, top_k)
        if self.normed:
            weights = weights / weights.sum(-1, keepdim=True)
        tokens, places, rooms = _sorted_by_expert(chosen, self.gate.out_features)
        done = self.experts(_Gather.apply(flat, tokens, places), rooms)  # (rows, hidden)
        return _Combine.apply(done, weights.to(x.dtype), places).view(x.shape)


def _sorted_by_expert(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Where the assignments go: tokens (rows,), places (tokens, top_k), rows of each expert.

    Row `places[t, c]` works on token t for its choice c, and `tokens` is the way back. On a CPU oneDNN
    compiles every new shape of a product, which takes as long as two products of a thousand rows; so
    counts are rounded up, and shapes come back. Spare rows work on token 0, and nobody reads them.
    """
    flat, top_k = chosen.flatten(), chosen.shape[1]
    order = flat.argsort(stable=True)  # assignments (token · top_k + choice) by expert
    counts = torch.bincount(flat, minlength=experts)
    mean = len(flat) // experts // ROUNDING
    step = 2 ** max(0, mean.bit_length() - 1) if chosen.device.type == "cpu" else 1
    rooms = (counts + step - 1) // step * step
    shift = (rooms.cumsum(0) - rooms) - (counts.cumsum(0) - counts)  # (experts,)
    place = torch.arange(len(flat), device=flat.device) + shift[flat[order]]
    sizes: list[int] = rooms.tolist()
    tokens, places = order.new_zeros(sum(sizes)), torch.empty_like(order)
    tokens[place] = order // top_k
    places[order] = place
    return tokens, places.view_as(chosen), sizes


def products(rows: Tensor, weight: Tensor, counts: Sequence[int]) -> Tensor:
    """rows (assignments, in), weight (experts, out, in) -> (assignments, out): expert by expert rows · Wᵀ."""
    return _Products.apply(rows, weight, counts)


class _Products(torch.autograd.Function):
    """See `products`.

    All matrices are cast to the rows' dtype at once, and their gradients are written side by side. Plain
    autograd would fill a gradient of the whole stack with zeros for each expert, and add them up.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, counts: Sequence[int]) -> Tensor:
        matrices, out = weight.to(rows.dtype), rows.new_empty(len(rows), weight.shape[1])
        for piece, matrix, into in zip(rows.split(counts), matrices, out.split(counts), strict=True):
            if len(piece):
                torch.mm(piece, matrix.T, out=into)
        ctx.save_for_backward(rows, matrices)
        ctx.counts, ctx.dtype = counts, weight.dtype
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        rows, matrices = ctx.saved_tensors
        grad = grad.contiguous()
        slopes, pieces = grad.split(ctx.counts), rows.split(ctx.counts)
        by_rows = by_weight = None
        if ctx.needs_input_grad[0]:
            by_rows = torch.empty_like(rows)
            for slope, matrix, into in zip(slopes, matrices, by_rows.split(ctx.counts), strict=True):
                if len(slope):
                    torch.mm(slope, matrix, out=into)
        if ctx.needs_input_grad[1]:
            by_weight = torch.empty_like(matrices)
            for slope, piece, into in zip(slopes, pieces, by_weight, strict=True):
                torch.mm(slope.T, piece, out=into)  # zeros where an expert has no rows
            by_weight = by_weight.to(ctx.dtype)
        return by_rows, by_weight, None


class _Gather(torch.autograd.Function):
    """flat (tokens, hidden) -> (rows, hidden); a token's gradient is the sum over its own places.

    PyTorch's would add rows up one by one, without knowing that each token has exactly top_k of them.
    """

    @staticmethod
    def forward(ctx, flat: Tensor, tokens: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return flat.index_select(0, tokens)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (places,) = ctx.saved_tensors
        total, *more = (grad.index_select(0, places[:, c]) for c in range(places.shape[1]))
        for rows in more:
            total += rows
        return total, None, None


class _Combine(torch.autograd.Function):
    """The weighted sum over a token's choices: done (rows, hidden), weights and places (tokens, top_k)."""

    @staticmethod
    def forward(ctx, done: Tensor, weights: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(done, weights, places)
        total, *more = (
            done.index_select(0, places[:, c]).mul_(weights[:, c, None]) for c in range(places.shape[1])
        )
        for rows in more:
            total += rows
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        done, weights, places = ctx.saved_tensors
        by_done, by_weights = torch.zeros_like(done), torch.empty_like(weights)
        for c in range(places.shape[1]):
            by_done.index_copy_(0, places[:, c], grad * weights[:, c, None])
            by_weights[:, c] = (done.index_select(0, places[:, c]) * grad).sum(-1)
        return by_done, by_weights, None


def probabilities(logits: Tensor) -> Tensor:
    """The router's softmax, float32 (tokens, experts).

    Over the first axis of the transposed logits, where a CPU's vectors run along the tokens: experts are
    few, and a softmax over short rows took nine times as long.
    """
    return logits.T.softmax(0, dtype=torch.float32).T


def count_choices(chances: Tensor, top_k: int) -> Tensor:
    """How many assignments each expert gets, int64 (experts,), by the probabilities (tokens, experts)."""
    return torch.bincount(chances.detach().topk(top_k).indices.flatten(), minlength=chances.shape[1])


def balance_loss(logits: Tensor, top_k: int) -> Tensor:
    """experts · Σ share of assignments · mean probability; 1 · top_k where all experts are used alike.

    logits (tokens, experts). Switch Transformer, arXiv:2101.03961, equations 4 to 6.
    """
    chances = probabilities(logits)
    load = count_choices(chances, top_k) / len(logits)
    return logits.shape[1] * (load * chances.mean(0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log of the softmax's denominator (ST-MoE, arXiv:2202.08906, equation 5)."""
    return logits.float().logsumexp(-1).square().mean()
