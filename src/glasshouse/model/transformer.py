"""The decoder: embedding, blocks, final norm, head. Module names are the names in the file."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.core.errors import UsageError
from glasshouse.model import kernels
from glasshouse.model.attention import Attention, Cache, Sight, make_mask
from glasshouse.model.config import ModelConfig
from glasshouse.model.documents import Spans, find_documents, find_spans
from glasshouse.model.layers import Embedding, Linear, RMSNorm, SwiGLU
from glasshouse.model.loss import head_loss
from glasshouse.model.rope import rope_tables


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, sight: Sight, cache: Cache | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, sight, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Everything below the head; the `model.` of Hugging Face's parameter names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Transformer(nn.Module):
    """A decoder-only transformer. `compute_dtype` is the dtype of activations and matrix products.

    Weights may be kept in float32 (master weights) while `compute_dtype` is bfloat16. Logits come in
    `compute_dtype`; losses are float32.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.model = Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        cos, sin = rope_tables(config.head_dim, config.rope_theta, config.max_position_embeddings)
        self.rope_cos = nn.Buffer(cos, persistent=False)  # (max_position_embeddings, head_dim)
        self.rope_sin = nn.Buffer(sin, persistent=False)

    @classmethod
    def empty(
        cls, config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Transformer:
        """A model whose weights are not yet written: nothing is drawn, and nothing held twice."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):  # by way of the meta device torch would load its symbolic algebra
                model = cls(config)
        finally:
            torch.set_default_dtype(before)
        model.compute_dtype = dtype
        return model

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def head_weight(self) -> Tensor:
        """(vocab, hidden): the embedding matrix itself where the head is tied to it."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def num_parameters(self) -> int:
        """Trained numbers; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The normed output of the last block, (batch, seq, hidden), for ids (batch, seq) int64.

        `segments` (batch, seq): a token attends only to earlier tokens of its own segment (-1 is
        padding). `positions` (batch, seq): RoPE positions, by default 0, 1, ... or, with a cache,
        after what each row already holds. Raises UsageError for rows longer than the context.
        """
        if ids.shape[1] > self.config.max_position_embeddings:
            raise UsageError(
                f"a row has {ids.shape[1]} tokens, the context holds {self.config.max_position_embeddings}"
            )
        if segments is not None and segments.shape != ids.shape:
            raise UsageError(f"segments are {list(segments.shape)}, ids {list(ids.shape)}")
        if positions is None and cache is not None:
            positions = cache.lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        if positions is None:
            cos, sin = self.rope_cos[None, : ids.shape[1]], self.rope_sin[None, : ids.shape[1]]
        else:
            cos, sin = self.rope_cos[positions], self.rope_sin[positions]  # (batch, seq, head_dim / 2)
        sight = self._sight(ids, segments) if cache is None else cache.mask(ids.shape[1])
        if isinstance(sight, Spans):
            cos, sin = (table.expand(len(ids), -1, -1).contiguous() for table in (cos, sin))
        x = self.model.embed_tokens(ids).to(self.compute_dtype)  # (batch, seq, hidden)
        for block in self.model.layers:
            x = block(x, cos, sin, sight, cache)
        if cache is not None:
            cache.advance(ids.shape[1])
        return self.model.norm(x)

    def _sight(self, ids: Tensor, segments: Tensor | None) -> Sight:
        """How tokens see each other, prepared once for all layers.

        On a CPU, attention by documents also serves rows without segments when gradients are wanted:
        the backward pass of PyTorch's own CPU kernel is several times slower.
        """
        if ids.device.type == "cpu" and (segments is not None or torch.is_grad_enabled()):
            documents = torch.zeros_like(ids) if segments is None else segments
            heads = self.config.num_attention_heads, self.config.num_key_value_heads
            if kernels.ready(torch.empty(0, dtype=self.compute_dtype), 32, self.config.head_dim):
                return find_spans(documents, *heads)
            return find_documents(documents, *heads)
        return None if segments is None else make_mask(segments)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocab) of hidden states (..., hidden)."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype))

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits (batch, seq, vocab), or (batch, 1, vocab) of the last token with `last_only`."""
        hidden = self.hidden(ids, positions, segments, cache)
        return self.head(hidden[:, -1:] if last_only else hidden)

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Summed cross entropy in nats over the targets that are not -100, a float32 scalar.

        Divide by the batch's count of such targets to get the mean; the sum is returned so that
        gradient accumulation over micro-batches gives the same gradient as one large batch.
        """
        hidden = self.hidden(ids, positions, segments)
        return head_loss(hidden.flatten(0, 1), self.head_weight, targets.flatten())
