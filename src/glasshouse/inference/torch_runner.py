"""The model's own modules over a paged cache: every family, adapters, few-bit weights, CPU and GPU.

Pages are gathered into one piece of memory for each layer's attention, and new keys scattered into
them; the model sees a `Cache`. Pieces of similar lengths go through the model together, padded on the
right; padding is computed and thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from glasshouse.inference.runner import Piece
from glasshouse.model import Transformer
from glasshouse.model.lora import adapter_names, use_adapters

PAGE_TOKENS = 16

PADDED = 1.5
"""Pieces share a batch while it holds at most so many times their own tokens, padding included."""


class PagedCache:
    """The cache of one batch of pieces: a view of some pages, for one pass through the model."""

    def __init__(
        self,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        slots: Tensor,
        starts: Tensor,
        new: Tensor,
        real: Tensor | None,
        plain: bool,
    ) -> None:
        """keys, values: (all slots, kv_heads, head_dim) of each layer; slots (batch, longest): where each
        row's positions lie; starts (batch,): the first new position; new (batch, seq): the new positions'
        slots; real: bool of that shape, false for padding, None where there is none; plain: each token
        sees everything up to itself without a mask."""
        self._keys, self._values, self._slots = keys, values, slots
        self._real, self._new = real, new if real is None else new[real]
        self.lengths, self.longest, self._plain = starts, slots.shape[1] - new.shape[1], plain

    def mask(self, seq: int, window: int | None) -> Tensor | None:
        """Slots up to each token's own and not before the window, bool (batch, 1, seq, longest)."""
        longest = self._slots.shape[1]
        if self._plain and (window is None or longest <= window):
            return None
        own = self.lengths[:, None, None] + torch.arange(seq, device=self._slots.device)[:, None]
        places = torch.arange(longest, device=self._slots.device)
        seen = places <= own  # (batch, seq, longest)
        if window is not None:
            seen &= places > own - window
        return seen[:, None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (batch, kv_heads, seq, head_dim); return (batch, kv_heads, longest, head_dim) of all."""
        found = []
        for pages, new in ((self._keys[layer], keys), (self._values[layer], values)):
            new = new.transpose(1, 2)  # (batch, seq, kv_heads, head_dim)
            pages[self._new] = new if self._real is None else new[self._real]
            found.append(pages[self._slots].transpose(1, 2))
        return found[0], found[1]

    def advance(self, seq: int) -> None:
        """The view lives for one pass: there is nothing to count."""


class TorchRunner:
    """A `Runner` (see `runner.py`) on PyTorch.

    `deterministic`: every token goes through the model alone, because PyTorch's products of other
    shapes differ in their last bits. Then nothing that shares a step can change a hidden state.
    """

    page_tokens = PAGE_TOKENS

    def __init__(self, model: Transformer, *, deterministic: bool = False) -> None:
        self.model, self.deterministic = model, deterministic
        config = model.config
        shape = config.num_key_value_heads, config.head_dim
        self._shape = shape
        token = 2 * config.num_hidden_layers * shape[0] * shape[1] * model.compute_dtype.itemsize
        self.page_bytes = token * self.page_tokens
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._adapted = bool(adapter_names(model))
        scaling = config.rope_scaling
        self._trained = config.max_position_embeddings
        self._dynamic = scaling is not None and scaling.rope_type == "dynamic"

    def allocate(self, pages: int) -> None:
        """Zeros, written now: what a mask hides must be a number, and memory is taken once, not bit by bit."""
        slots = pages * self.page_tokens
        for tensors in (self._keys, self._values):
            for _ in range(self.model.config.num_hidden_layers):
                tensor = torch.empty(
                    slots, *self._shape, dtype=self.model.compute_dtype, device=self.model.device
                )
                tensors.append(tensor.zero_())

    @torch.inference_mode()
    def hidden(self, pieces: Sequence[Piece]) -> Tensor:
        """See `Runner`."""
        wanted: list[Tensor | None] = [None] * len(pieces)
        for group in self._groups(pieces):
            for place, states in zip(group, self._read([pieces[place] for place in group]), strict=True):
                wanted[place] = states
        return torch.cat([states for states in wanted if states is not None])

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """See `Runner`."""
        if self.deterministic:
            rows = [self.model.head(row[None]) for row in hidden]
            return (
                torch.cat(rows).float().cpu() if rows else hidden.new_empty(0, self.model.config.vocab_size)
            )
        return self.model.head(hidden).float().cpu()

    def _groups(self, pieces: Sequence[Piece]) -> Iterator[list[int]]:
        """Places of pieces that go through the model together."""

        def kind(place: int) -> tuple[str, bool, int]:
            piece = pieces[place]
            alone = self._dynamic and piece.start + len(piece.ids) > self._trained
            return piece.adapter or "", alone, len(piece.ids)

        for (_, alone, _), places in groupby(
            sorted(range(len(pieces)), key=kind), lambda p: (*kind(p)[:2], 0)
        ):
            group: list[int] = []
            tokens = 0
            for place in places:  # from short to long
                length = len(pieces[place].ids)
                padded = (len(group) + 1) * length
                if group and (alone or self.deterministic or padded > PADDED * (tokens + length)):
                    yield group
                    group, tokens = [], 0
                group.append(place)
                tokens += length
            yield group

    def _read(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """The wanted states of pieces of one adapter."""
        if self._adapted:
            use_adapters(self.model, *([pieces[0].adapter] if pieces[0].adapter is not None else []))
        if not self.deterministic:
            return self._pass(pieces)
        (piece,) = pieces
        states = []
        for place in range(len(piece.ids)):
            one = Piece(piece.ids[place : place + 1], piece.start + place, piece.pages)
            states += self._pass([one])
        return [torch.cat(states)[len(states) - piece.wanted :]]

    def _pass(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """One pass through the model."""
        size, device = self.page_tokens, self.model.device
        ends = [piece.start + len(piece.ids) for piece in pieces]
        seq, longest = max(len(piece.ids) for piece in pieces), max(ends)
        fresh = all(piece.start == 0 for piece in pieces)
        pages = torch.zeros(len(pieces), -(-longest // size), dtype=torch.int64)
        ids = torch.zeros(len(pieces), seq, dtype=torch.int64)
        for row, (piece, end) in enumerate(zip(pieces, ends, strict=True)):
            count = -(-end // size)
            pages[row, :count] = torch.tensor(piece.pages[:count])
            ids[row, : len(piece.ids)] = torch.tensor(piece.ids)
        slots = (pages[:, :, None] * size + torch.arange(size)).flatten(1)[:, :longest]  # (batch, longest)
        starts = torch.tensor([piece.start for piece in pieces])
        positions = starts[:, None] + torch.arange(seq)
        last = torch.tensor(ends)[:, None] - 1
        real = positions <= last
        positions = torch.minimum(positions, last)
        places = [tensor.to(device) for tensor in (slots, starts, slots.gather(1, positions))]
        padded = None if bool(real.all()) else real.to(device)
        plain = fresh or (seq == 1 and min(ends) == longest)
        cache = PagedCache(self._keys, self._values, *places, real=padded, plain=plain)
        hidden = self.model.hidden(ids.to(device), positions.to(device), cache=cache)  # (batch, seq, hidden)
        counts = [len(piece.ids) for piece in pieces]
        return [
            states[count - piece.wanted : count]
            for states, count, piece in zip(hidden, counts, pieces, strict=True)
        ]
