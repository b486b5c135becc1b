"""The decoder: embedding, blocks, final norm, head. Module names are the names in the file."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.core.errors import UsageError
from glasshouse.model import kernels
from glasshouse.model.attention import Attention, Cache, Sight, Turn, make_mask
from glasshouse.model.config import ModelConfig
from glasshouse.model.documents import Spans, find_branches, find_documents, find_spans
from glasshouse.model.experts import SparseMLP, balance_loss, z_loss
from glasshouse.model.layers import MLP, Embedding, GatedMLP, Linear, norm
from glasshouse.model.loss import IGNORED, head_loss, target_losses
from glasshouse.model.positions import sinusoids
from glasshouse.model.rope import Rope


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = norm(config)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = norm(config)
        if config.has_experts(layer):
            self.mlp = SparseMLP(config)
        else:
            self.mlp = GatedMLP(config) if config.family.gated else MLP(config)

    def forward(
        self,
        x: Tensor,
        turn: Turn | None,
        sight: Sight,
        cache: Cache | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, sight, cache)
        normed = self.post_attention_layernorm(x)
        return x + (self.mlp(normed, routing) if isinstance(self.mlp, SparseMLP) else self.mlp(normed))


class Decoder(nn.Module):
    """Everything below the head; the `model.` of Hugging Face's parameter names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        length = config.max_position_embeddings
        if config.positions == "learned":
            self.embed_positions = Embedding(length, config.hidden_size)
        elif config.positions == "sinusoidal":
            self.sinusoids = nn.Buffer(sinusoids(length, config.hidden_size), persistent=False)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = norm(config)

    @property
    def position_vectors(self) -> Tensor | None:
        """What is added to the embeddings, (max_position_embeddings, hidden); None where nothing is."""
        if hasattr(self, "embed_positions"):
            return self.embed_positions.weight
        return getattr(self, "sinusoids", None)


def _recomputed(
    block: nn.Module, x: Tensor, turn: Turn | None, sight: Sight, routing: list[Tensor] | None
) -> Tensor:
    """The block's output, of which the backward pass keeps nothing but x."""
    from torch.utils.checkpoint import checkpoint

    def run(x: Tensor) -> tuple[Tensor, ...]:
        routed: list[Tensor] = []
        return block(x, turn, sight, None, None if routing is None else routed), *routed

    x, *routed = checkpoint(run, x, use_reentrant=False)
    if routing is not None:
        routing += routed
    return x


class Transformer(nn.Module):
    """A decoder-only transformer. `compute_dtype` is the dtype of activations and matrix products.

    Weights may be kept in float32 (master weights) while `compute_dtype` is bfloat16. Logits come in
    `compute_dtype`; losses are float32. With `recompute` a training step keeps each block's input only and
    computes the block again in the backward pass (arXiv:1604.06174): a third more work, a fraction of the
    memory, the same bits.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.recompute = False
        self.model = Decoder(config)
        self.rope = Rope(config) if config.family.rotary else None
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

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
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """The normed output of the last block, (batch, seq, hidden), for ids (batch, seq) int64.

        Embeddings (batch, seq, hidden) may stand in place of ids. `segments` (batch, seq): a token
        attends only to earlier tokens of its own segment (-1 is padding). `positions` (batch, seq): by
        default 0, 1, ... or, with a cache, after what each row already holds; where they do not follow each
        other inside a segment, a branch begins that shares the segment's first tokens (`find_branches`).
        `routing` receives each sparse layer's router logits, (batch · seq, experts). Raises UsageError for
        rows longer than the context.
        """
        batch, seq = ids.shape[:2]
        if seq > self.config.context:
            raise UsageError(f"a row has {seq} tokens, the context holds {self.config.context}")
        if segments is not None and segments.shape != (batch, seq):
            raise UsageError(f"segments are {list(segments.shape)}, ids {list(ids.shape)}")
        if positions is None and cache is not None:
            positions = cache.lengths[:, None] + torch.arange(seq, device=ids.device)
        windows = [self.config.window(layer) for layer in range(len(self.model.layers))]
        sights = {window: self._sight(ids, segments, positions, cache, window) for window in set(windows)}
        plain = any(isinstance(sight, Spans) for sight in sights.values())
        turn = self._turn(ids, positions, cache, plain)
        x = self._embed(ids, positions)
        for block, window in zip(self.model.layers, windows, strict=True):
            if self.recompute and torch.is_grad_enabled():
                x = _recomputed(block, x, turn, sights[window], routing)
            else:
                x = block(x, turn, sights[window], cache, routing)
        if cache is not None:
            cache.advance(seq)
        return self.model.norm(x)

    def _embed(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """(batch, seq, hidden) in `compute_dtype`: token vectors, and those of positions if there are any."""
        x = ids if ids.is_floating_point() else self.model.embed_tokens(ids)
        table = self.model.position_vectors
        if table is not None:
            x = x + (table[: ids.shape[1]] if positions is None else table[positions])
        return x.to(self.compute_dtype)

    def _turn(
        self, ids: Tensor, positions: Tensor | None, cache: Cache | None, whole: bool
    ) -> tuple[Tensor, Tensor] | None:
        """RoPE's cosines and sines, (batch or 1, seq, head_dim / 2); `whole`: for every row, in one piece."""
        batch, seq = ids.shape[:2]
        if self.rope is None:
            if not whole:
                return None
            shape = batch, seq, self.config.head_dim // 2
            return torch.ones(shape, device=ids.device), torch.zeros(shape, device=ids.device)
        if positions is None:
            cos, sin = (table[None, :seq] for table in self.rope.tables(seq, ids.device))
        else:
            length = int(positions.max()) + 1 if cache is None else cache.longest + seq
            cos, sin = (table[positions] for table in self.rope.tables(length, ids.device))
        if whole:
            cos, sin = (table.expand(batch, -1, -1).contiguous() for table in (cos, sin))
        return cos, sin

    def _sight(
        self,
        ids: Tensor,
        segments: Tensor | None,
        positions: Tensor | None,
        cache: Cache | None,
        window: int | None,
    ) -> Sight:
        """How tokens see each other in all layers of one window.

        On a CPU, attention by documents also serves rows without segments when gradients are wanted:
        the backward pass of PyTorch's own CPU kernel is several times slower.
        """
        batch, seq = ids.shape[:2]
        if cache is not None:
            return cache.mask(seq, window)
        branches = None if segments is None or positions is None else find_branches(segments, positions)
        if ids.device.type == "cpu" and (segments is not None or torch.is_grad_enabled()):
            documents = torch.zeros(batch, seq, dtype=torch.int64) if segments is None else segments
            heads = self.config.num_attention_heads, self.config.num_key_value_heads
            if kernels.ready(torch.empty(0, dtype=self.compute_dtype), 32, self.config.head_dim):
                return find_spans(documents, *heads, branches)
            if branches is None:
                return find_documents(documents, *heads)
        if segments is None and (window is None or seq <= window):
            return None
        if segments is None:
            segments = torch.zeros(batch, seq, dtype=torch.int64, device=ids.device)
        return make_mask(segments, window, positions, branches)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocab) of hidden states (..., hidden)."""
        if self.config.tie_word_embeddings:
            return F.linear(hidden, self.head_weight.to(hidden.dtype))
        return self.lm_head(hidden)

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits (batch, seq, vocab), or (batch, 1, vocab) of the last token; see `hidden`."""
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
        gradient accumulation over micro-batches gives the same gradient as one large batch. Where
        gradients are wanted, a mixture of experts adds its router losses, weighted by the config and
        the count of targets.
        """
        routing: list[Tensor] | None = [] if self.config.num_experts and torch.is_grad_enabled() else None
        hidden = self.hidden(ids, positions, segments, routing=routing).flatten(0, 1)
        low_rank = None if self.config.tie_word_embeddings else self.lm_head.low_rank(hidden)
        loss = head_loss(hidden, self.head_weight, targets.flatten(), low_rank)
        if routing:
            loss = loss + self._router_loss(routing, segments) * (targets != IGNORED).sum()
        return loss

    def target_logprobs(
        self,
        ids: Tensor,
        targets: Tensor,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities in nats of the targets that are not -100, row by row: (counted,) float32.

        As `loss` takes them, but each by itself, for objectives that weigh them; without router losses.
        """
        hidden = self.hidden(ids, positions, segments).flatten(0, 1)
        counted = (targets.flatten() != IGNORED).nonzero()[:, 0]
        return self.logprobs(hidden.index_select(0, counted), targets.flatten()[counted])

    def logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probabilities in nats of targets (n,) int64 after hidden states (n, hidden): (n,) float32."""
        low_rank = None if self.config.tie_word_embeddings else self.lm_head.low_rank(hidden)
        return -target_losses(hidden, self.head_weight, targets, low_rank)

    def _router_loss(self, routing: list[Tensor], segments: Tensor | None) -> Tensor:
        """The mean over layers of the weighted load-balancing and z-losses, over real tokens."""
        config = self.config
        total = torch.zeros((), device=self.device)
        for logits in routing:
            if segments is not None:
                logits = logits[segments.flatten() >= 0]
            total = total + config.router_aux_loss_coef * balance_loss(logits, config.num_experts_per_tok)
            total = total + config.router_z_loss_coef * z_loss(logits)
        return total / len(routing)
