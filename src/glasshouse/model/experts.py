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


class Experts(nn.Module):
    """The weights of all experts of a layer, stacked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        count, d, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, d))  # rows: gate, then up
        self.down_proj = nn.Parameter(torch.empty(count, d, width))
        self.act, self.is_silu = ACTIVATIONS[config.hidden_act], config.hidden_act == "silu"

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """x (assignments, hidden) sorted by expert, `counts` rows for each -> the same shape."""
        done = []
        for expert, rows in enumerate(x.split(list(counts))):
            if len(rows):
                both = rows @ self.gate_up_proj[expert].to(x.dtype).T  # (rows, 2 · width)
                done.append(self._gated(both) @ self.down_proj[expert].to(x.dtype).T)
        return torch.cat(done)

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
        weights, chosen = logits.softmax(-1, dtype=torch.float32).topk(self.top_k)  # (tokens, top_k)
        if self.normed:
            weights = weights / weights.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)  # assignments (token · top_k + choice) by expert
        counts = torch.bincount(chosen.flatten(), minlength=self.gate.out_features).tolist()
        done = self.experts(flat.index_select(0, order // self.top_k), counts)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        done = done.index_select(0, back).view(len(flat), self.top_k, -1)
        return (done * weights[..., None].to(x.dtype)).sum(1).view(x.shape)


def balance_loss(logits: Tensor, top_k: int) -> Tensor:
    """experts · Σ share of assignments · mean probability; 1 · top_k where all experts are used alike.

    logits (tokens, experts). Switch Transformer, arXiv:2101.03961, equations 4 to 6.
    """
    probabilities = logits.softmax(-1, dtype=torch.float32)
    chosen = probabilities.topk(top_k).indices.flatten()
    load = torch.bincount(chosen, minlength=logits.shape[1]) / len(logits)
    return logits.shape[1] * (load * probabilities.mean(0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log of the softmax's denominator (ST-MoE, arXiv:2202.08906, equation 5)."""
    return logits.float().logsumexp(-1).square().mean()
