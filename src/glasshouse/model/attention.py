"""Causal self-attention with grouped queries, QK-norm and RoPE, bounded by document segments."""

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
    """What attention needs of a key/value cache; `glasshouse.inference.KVCache` is one.

    Slot == position: the key of a row's token at position p lies in slot p.
    """

    lengths: Tensor  # (batch,) tokens already stored in each row

    def mask(self, seq: int) -> Tensor | None:
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


Sight = Tensor | Spans | Documents | None
"""How the tokens of a batch see each other: a bool mask (batch or 1, 1, seq, slots), documents for
the native kernel, documents for the same on PyTorch's operators, or every earlier token."""


def make_mask(segments: Tensor) -> Tensor:
    """Who may attend to whom, for packed rows.

    `segments` (batch, seq) numbers the documents of each row; -1 is padding. Returns bool
    (batch, 1, seq, seq), true where the key is not later than the query and of the same segment.
    Padding sees padding, so that no row of the softmax is empty; real tokens never see it.
    """
    seq = segments.shape[1]
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return same & torch.ones(seq, seq, dtype=torch.bool, device=segments.device).tril()


class Attention(nn.Module):
    """One attention sublayer; `layer` is its place in the stack, and so in the cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        d, bias = config.hidden_size, config.attention_bias
        self.layer, self.head_dim = layer, config.head_dim
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = Linear(d, self.heads * self.head_dim, bias=bias)
        self.k_proj = Linear(d, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = Linear(d, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = Linear(self.heads * self.head_dim, d, bias=bias)
        self.eps = config.rms_norm_eps
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, sight: Sight, cache: Cache | None = None
    ) -> Tensor:
        """x (batch, seq, hidden) -> the same shape; cos, sin (batch or 1, seq, head_dim / 2) float32."""
        if isinstance(sight, Spans):
            qkv = joined(x, self.q_proj, self.k_proj, self.v_proj)
            q_norm, k_norm = self.q_norm.weight, self.k_norm.weight
            return self.o_proj(kernels.attend(qkv, q_norm, k_norm, self.eps, cos, sin, sight))
        batch, seq, _ = x.shape
        queries = self.q_proj(x).view(batch, seq, self.heads, self.head_dim)
        keys = self.k_proj(x).view(batch, seq, self.kv_heads, self.head_dim)
        values = self.v_proj(x).view(batch, seq, self.kv_heads, self.head_dim)
        queries, keys = rotate(self.q_norm(queries), cos, sin), rotate(self.k_norm(keys), cos, sin)
        if isinstance(sight, Documents):
            mixed = attend_documents(queries, keys, values, sight)
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
