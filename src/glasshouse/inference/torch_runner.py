"""The model's own modules over a paged cache: every family, adapters, few-bit weights, CPU and GPU.

Pages are gathered into one piece of memory for each layer's attention, and new keys scattered into
them; the model sees a `Cache`. Pieces of similar lengths go through the model together, padded on the
right; padding is computed and thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from glasshouse.inference.placement import Placement
from glasshouse.inference.runner import Piece
from glasshouse.model import Transformer
from glasshouse.model.adapter import Adapter
from glasshouse.model.lora import places

PAGE_TOKENS = 16

PADDED = 1.5
"""Pieces share a batch while it has at most so many times their own tokens, and positions to look at."""

SLOTS = 8192
"""Positions that may be looked at in vain whatever the ratio."""


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
            pages[self._new.to(pages.device)] = new if self._real is None else new[self._real.to(new.device)]
            found.append(pages[self._slots.to(pages.device)].transpose(1, 2))
        return found[0], found[1]

    def advance(self, seq: int) -> None:
        """The view lives for one pass: there is nothing to count."""


class TorchRunner:
    """A `Runner` (see `runner.py`) on PyTorch.

    `deterministic`: every token goes through the model alone, because PyTorch's products of other
    shapes differ in their last bits. Then nothing that shares a step can change a hidden state.
    """

    page_tokens = PAGE_TOKENS

    def __init__(
        self, model: Transformer, *, deterministic: bool = False, placement: Placement | None = None
    ) -> None:
        """`placement`: where the blocks work, if not where the model's embedding lies."""
        self.model, self.deterministic = model, deterministic
        layers = model.config.num_hidden_layers
        self._devices = (model.device,) * layers if placement is None else placement.devices
        config = model.config
        shape = config.num_key_value_heads, config.head_dim
        self._shape = shape
        token = 2 * config.num_hidden_layers * shape[0] * shape[1] * model.compute_dtype.itemsize
        self.page_bytes = token * self.page_tokens
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._adapters: dict[str, list[Adapter]] = {}
        self._at_head: set[str] = set()
        for place in places(model):
            for name in place.adapters or ():
                if (adapter := place.adapter(name)) is not None:
                    self._adapters.setdefault(name, []).append(adapter)
                    if place.kind == "head":
                        self._at_head.add(name)
        scaling = config.rope_scaling
        self._trained = config.max_position_embeddings
        self._dynamic = scaling is not None and scaling.rope_type == "dynamic"

    def allocate(self, pages: int) -> None:
        """Zeros, written now: what a mask hides must be a number, and all memory is taken at once."""
        slots = pages * self.page_tokens
        for tensors in (self._keys, self._values):
            for device in self._devices:
                tensor = torch.empty(slots, *self._shape, dtype=self.model.compute_dtype, device=device)
                tensors.append(tensor.zero_())

    @torch.inference_mode()
    def hidden(self, pieces: Sequence[Piece]) -> Tensor:
        """See `Runner`. The model's switches of adapters are left as they were."""
        with self._switches_kept():
            return self._hidden(pieces)

    @contextlib.contextmanager
    def _switches_kept(self) -> Iterator[None]:
        before = [(adapter, adapter.active) for adapters in self._adapters.values() for adapter in adapters]
        try:
            yield
        finally:
            for adapter, active in before:
                adapter.active = active

    def _switch(self, wanted: str | None) -> None:
        for name, adapters in self._adapters.items():
            for adapter in adapters:
                adapter.active = name == wanted

    def _hidden(self, pieces: Sequence[Piece]) -> Tensor:
        wanted: list[Tensor | None] = [None] * len(pieces)
        for group in self._groups(pieces):
            for place, states in zip(group, self._read([pieces[place] for place in group]), strict=True):
                wanted[place] = states
        return torch.cat([states for states in wanted if states is not None])

    @torch.inference_mode()
    def logits(self, hidden: Tensor, adapters: Sequence[str | None]) -> Tensor:
        """See `Runner`."""
        with self._switches_kept():
            if not self._at_head.intersection(adapters):
                self._switch(None)
                return self._head(hidden)
            out = torch.empty(len(hidden), self.model.config.vocab_size)
            for name in set(adapters):
                self._switch(name)
                rows = [row for row, adapter in enumerate(adapters) if adapter == name]
                out[rows] = self._head(hidden[rows])
            return out

    def _head(self, hidden: Tensor) -> Tensor:
        if self.deterministic:
            return torch.cat([self.model.head(row[None]) for row in hidden]).float().cpu()
        return self.model.head(hidden).float().cpu()

    def _groups(self, pieces: Sequence[Piece]) -> Iterator[list[int]]:
        """Places of pieces that go through the model together: of one adapter, and much alike in length."""
        sizes = [(len(piece.ids), piece.start + len(piece.ids)) for piece in pieces]
        group: list[int] = []
        tokens = history = longest = 0  # of the group
        for place in sorted(
            range(len(pieces)), key=lambda place: (pieces[place].adapter or "", *sizes[place])
        ):
            count, end = sizes[place]
            rows, tokens, history, longest = len(group) + 1, tokens + count, history + end, max(longest, end)
            unlike = rows * count > PADDED * tokens or rows * longest > PADDED * history + SLOTS
            alone = self.deterministic or (self._dynamic and longest > self._trained)
            if group and (unlike or alone or pieces[place].adapter != pieces[group[0]].adapter):
                yield group
                group, tokens, history, longest = [], count, end, end
            group.append(place)
        if group:
            yield group

    def _read(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """The wanted states of pieces of one adapter."""
        self._switch(pieces[0].adapter)
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
        ids = torch.tensor([_padded(piece.ids, seq) for piece in pieces])
        pages = torch.tensor([_padded(piece.pages, -(-longest // size)) for piece in pieces])
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


def _padded(numbers: Sequence[int], length: int) -> list[int]:
    """The first `length` numbers, and zeros in place of those that are missing."""
    return [*numbers[:length], *[0] * (length - len(numbers))]
