"""Causal self-attention with grouped queries, and what a family adds: QK-norm, RoPE, a sliding window."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.model import kernels
from glasshouse.model.config import ModelConfig
from glasshouse.model.documents import Documents, Spans, attend_documents
from glasshouse.model.layers import Linear, RMSNorm, joined
from glasshouse.model.rope import rotate


class Cache(Protocol):
    """What attention needs of a key/value cache; `inference/torch_runner.py` has one.

    Slot == position: the key of a row's token at position p lies in slot p.
    """

    lengths: Tensor  # (batch,) tokens already stored in each row
    longest: int  # max(lengths)

    def mask(self, seq: int, window: int | None) -> Tensor | None:
        """Which slots the next `seq` tokens may see, bool (batch, 1, seq, slots).

        None is short for every slot before the token's own, and its own.
        """
        ...

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (batch, kv_heads, seq, head_dim) after each row's length; return (.., slots, ..) of all."""
        ...

    def advance(self, seq: int) -> None:
        """Count `seq` more tokens in every row, once all layers have written."""
        ...


Turn = tuple[Tensor, Tensor]
"""Cosines and sines of RoPE's angles."""

Sight = Tensor | Spans | Documents | None
"""How the tokens of a batch see each other: a bool mask (batch or 1, 1, seq, slots), documents for
the native kernel, documents for the same on PyTorch's operators, or every earlier token."""


def make_mask(
    segments: Tensor,
    window: int | None = None,
    positions: Tensor | None = None,
    branches: Tensor | None = None,
) -> Tensor:
    """Who may attend to whom, for packed rows, where a token sees `window` tokens, itself among them.

    `segments` (batch, seq) numbers the documents of each row; -1 is padding. Returns bool
    (batch, 1, seq, seq), true where the key is not later than the query and of the same segment.
    Padding sees padding, so that no row of the softmax is empty; real tokens never see it. `branches`, of
    `find_branches`, see the beginning of their segment and themselves; they need the `positions`.
    """
    seq = segments.shape[1]
    same = segments[:, None, :, None] == segments[:, None, None, :]
    seen = same & torch.ones(seq, seq, dtype=torch.bool, device=segments.device).tril()
    if branches is None:
        return seen if window is None else seen & seen.new_ones(seq, seq).triu(1 - window)
    assert positions is not None
    starts = branches > 0
    starts[:, 1:] |= segments[:, 1:] != segments[:, :-1]
    newest = torch.where(starts, torch.arange(seq, device=segments.device), 0).cummax(1).values
    stretch, shared = starts.cumsum(1), branches.gather(1, newest)  # (batch, seq) each, of every token
    seen &= (stretch[:, None, :, None] == stretch[:, None, None, :]) | (
        (shared == 0)[:, None, None, :] & (positions[:, None, None, :] < shared[:, None, :, None])
    )
    if window is not None:
        seen &= positions[:, None, :, None] - positions[:, None, None, :] < window
    return seen


class Attention(nn.Module):
    """One attention sublayer; `layer` is its place in the stack, and so in the cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        d, bias = config.hidden_size, config.qkv_bias
        self.layer, self.head_dim, self.window = layer, config.head_dim, config.window(layer)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = Linear(d, self.heads * self.head_dim, bias=bias)
        self.k_proj = Linear(d, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = Linear(d, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = Linear(self.heads * self.head_dim, d, bias=config.output_bias)
        self.normed, self.eps = config.family.qk_norm, config.rms_norm_eps
        if self.normed:
            self.q_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
            self.k_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, turn: Turn | None, sight: Sight, cache: Cache | None = None) -> Tensor:
        """x (batch, seq, hidden) -> the same shape.

        `turn`: RoPE's (cos, sin), (batch or 1, seq, head_dim / 2) float32 each; None without RoPE. The
        native kernel always turns: Spans come with angles of zero where there is no RoPE.
        """
        if isinstance(sight, Spans):
            assert turn is not None
            qkv = joined(x, self.q_proj, self.k_proj, self.v_proj)
            norms = (self.q_norm.weight, self.k_norm.weight) if self.normed else None
            return self.o_proj(kernels.attend(qkv, norms, self.eps, *turn, sight, self.window))
        batch, seq, _ = x.shape
        queries = self.q_proj(x).view(batch, seq, self.heads, self.head_dim)
        keys = self.k_proj(x).view(batch, seq, self.kv_heads, self.head_dim)
        values = self.v_proj(x).view(batch, seq, self.kv_heads, self.head_dim)
        if self.normed:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        if turn is not None:
            queries, keys = rotate(queries, *turn), rotate(keys, *turn)
        if isinstance(sight, Documents):
            mixed = attend_documents(queries, keys, values, sight, self.window)
        else:
            mixed = self._attend(queries, keys, values, sight, cache)
        return self.o_proj(mixed.reshape(batch, seq, -1))

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """PyTorch's own kernel, over the cache's keys and values where there is one."""
        queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
        if cache is not None:
            keys, values = cache.write(self.layer, keys, values)  # (batch, kv_heads, slots, head_dim)
        mixed = F.scaled_dot_product_attention(
            queries,  # (batch, heads, seq, head_dim)
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and queries.shape[2] > 1,
            enable_gqa=self.kv_heads != self.heads,
        )
        return mixed.transpose(1, 2)
