"""Packed batches: rows filled with whole documents, as a pure function of (seed, step).

An epoch cuts documents longer than a row into row-long pieces (at a fresh random phase each epoch, so
that the cuts fall elsewhere), shuffles all pieces globally, takes them in blocks and packs each block
into rows by best fit decreasing. Rows are shuffled within their block. Nothing but the step number is
needed to continue: the rows before it are counted again from lengths alone, without reading a token.

Memory: one permutation of the pieces, plus the pieces of one block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from glasshouse.core.errors import DataError
from glasshouse.core.seeds import numpy_rng
from glasshouse.data.shards import Shards

IGNORE = -100
"""Target of a position that does not count in the loss (PyTorch's `ignore_index`)."""

BLOCK_ROWS = 512
"""Rows a block fills, about: more pack tighter, fewer need less memory; padding is < 1% on short texts."""


@dataclass(frozen=True)
class Batch:
    """Arrays of one step, all (rows, sequence_length).

    `inputs` int64; `targets` int64, IGNORE where not counted; `segments` int32, the number of the
    document within its row, -1 on padding; `positions` int64, from 0 in each segment.
    """

    inputs: np.ndarray
    targets: np.ndarray
    segments: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class _Block:
    """Pieces of packed rows, ordered by row: where each lies in the stream and where it goes."""

    starts: np.ndarray  # (pieces,) first input in the token stream
    lengths: np.ndarray  # (pieces,)
    columns: np.ndarray  # (pieces,) first column in its row
    ranks: np.ndarray  # (pieces,) how many pieces stand before it in its row
    bounds: np.ndarray  # (rows + 1,) the pieces of row r are bounds[r] .. bounds[r + 1]

    @property
    def rows(self) -> int:
        return len(self.bounds) - 1


class PackedBatches:
    """`batch(step)` gives the same arrays in every process for the same shards, seed and sizes.

    With `fixed_cuts` long documents are cut from their first token on instead of at a random phase, so
    that a score does not depend on the seed.
    Raises DataError when the corpus is smaller than one row.
    """

    def __init__(
        self,
        shards: Shards,
        sequence_length: int,
        rows_per_batch: int,
        seed: int,
        *,
        fixed_cuts: bool = False,
    ) -> None:
        self.shards, self.sequence_length, self.rows_per_batch = shards, sequence_length, rows_per_batch
        self.seed, self.fixed_cuts = seed, fixed_cuts
        offsets = np.asarray(shards.offsets, dtype=np.int64)
        # Without a separator the last token of a document predicts nothing.
        self._lengths = np.diff(offsets) - (0 if shards.end_of_text is not None else 1)
        self._lengths = np.maximum(self._lengths, 0)
        total = int(self._lengths.sum())
        if total < sequence_length:
            raise DataError(
                f"the corpus has {total} tokens, less than one sequence of {sequence_length}",
                where=shards.folder,
                fix="give more text or set a smaller sequence_length",
            )
        mean = total / max(1, int(np.count_nonzero(self._lengths)))
        self._block_pieces = max(64, int(BLOCK_ROWS * sequence_length / min(mean, sequence_length)))
        self._epoch: _Epoch | None = None
        self._rows_before: list[tuple[int, int, int]] = []  # (first row, epoch, block) of counted blocks
        self._next = (0, 0, 0)  # the first block that is not counted yet
        self._cache: OrderedDict[tuple[int, int], _Block] = OrderedDict()

    @property
    def steps_per_epoch(self) -> float:
        """Batches in epoch 0 (later epochs differ by less than a row in a hundred)."""
        epoch = self._open(0)
        return sum(self._block(0, number).rows for number in range(epoch.blocks)) / self.rows_per_batch

    def batch(self, step: int) -> Batch:
        """The rows of step 0, 1, ...; epochs follow each other without a gap."""
        first = step * self.rows_per_batch
        parts: list[tuple[_Block, int, int]] = []
        row = first
        while row < first + self.rows_per_batch:
            start, epoch, number = self._find(row)
            block = self._block(epoch, number)
            stop = min(start + block.rows, first + self.rows_per_batch)
            parts.append((block, row - start, stop - start))
            row = stop
        return self._fill(parts)

    def _find(self, row: int) -> tuple[int, int, int]:
        """(first row, epoch, block) of the block that holds `row`, counting on where needed."""
        while self._next[0] <= row:
            start, epoch, number = self._next
            self._rows_before.append(self._next)
            rows = self._block(epoch, number).rows
            last = number + 1 == self._open(epoch).blocks
            self._next = (start + rows, epoch + 1, 0) if last else (start + rows, epoch, number + 1)
        return self._rows_before[bisect_right(self._rows_before, row, key=lambda block: block[0]) - 1]

    def _open(self, epoch: int) -> _Epoch:
        if self._epoch is None or self._epoch.number != epoch:
            self._epoch = _Epoch(self, epoch)
        return self._epoch

    def _block(self, epoch: int, number: int) -> _Block:
        key = (epoch, number)
        if key not in self._cache:
            self._cache[key] = self._open(epoch).pack(number)
            while len(self._cache) > 3:
                self._cache.popitem(last=False)
        return self._cache[key]

    def _fill(self, parts: list[tuple[_Block, int, int]]) -> Batch:
        starts, lengths, targets_at, ranks = [], [], [], []
        row = 0
        for block, low, high in parts:
            pieces = slice(block.bounds[low], block.bounds[high])
            in_row = np.repeat(np.arange(row, row + high - low), np.diff(block.bounds[low : high + 1]))
            starts.append(block.starts[pieces])
            lengths.append(block.lengths[pieces])
            targets_at.append(in_row * self.sequence_length + block.columns[pieces])
            ranks.append(block.ranks[pieces])
            row += high - low
        start, length = np.concatenate(starts), np.concatenate(lengths)
        within = _count_up(length)
        source = np.repeat(start, length) + within
        place = np.repeat(np.concatenate(targets_at), length) + within
        shape = (self.rows_per_batch, self.sequence_length)
        inputs = np.zeros(shape, np.int64)
        targets = np.full(shape, IGNORE, np.int64)
        segments = np.full(shape, -1, np.int32)
        positions = np.zeros(shape, np.int64)
        inputs.ravel()[place] = self.shards.tokens[source]
        following = np.asarray(self.shards.tokens[source + 1], np.int64)
        if self.shards.mask is not None:
            following = np.where(self.shards.mask[source + 1] == 1, following, IGNORE)
        targets.ravel()[place] = following
        segments.ravel()[place] = np.repeat(np.concatenate(ranks), length)
        positions.ravel()[place] = within
        return Batch(inputs, targets, segments, positions)


class _Epoch:
    """One pass over the corpus: its pieces and their order."""

    def __init__(self, parent: PackedBatches, number: int) -> None:
        self.number, self._parent = number, parent
        lengths, row = parent._lengths, parent.sequence_length
        self._firsts: np.ndarray | None = None  # length of the first piece of each long document
        counts = np.minimum(lengths, 1)
        if (lengths > row).any():
            phases = np.full(len(lengths), row)
            if not parent.fixed_cuts:
                phases = numpy_rng(parent.seed, "phase", number).integers(1, row + 1, len(lengths))
            self._firsts = np.where(lengths > row, phases, lengths)
            counts = counts + -(-(lengths - self._firsts) // row)
        self._pieces_before = np.concatenate([[0], np.cumsum(counts)])
        total = int(self._pieces_before[-1])
        size = np.uint32 if total < 1 << 32 else np.uint64
        # permutation() of an array keeps its small type, of a number it takes 8 bytes a piece.
        self._order = numpy_rng(parent.seed, "order", number).permutation(np.arange(total, dtype=size))
        self.blocks = -(-total // parent._block_pieces)

    def pack(self, number: int) -> _Block:
        parent, row = self._parent, self._parent.sequence_length
        size = parent._block_pieces
        pieces = self._order[number * size : (number + 1) * size].astype(np.int64)
        document = np.searchsorted(self._pieces_before, pieces, side="right") - 1
        lengths = parent._lengths[document]
        starts = np.asarray(parent.shards.offsets, dtype=np.int64)[document]
        if self._firsts is not None:
            k = pieces - self._pieces_before[document]  # 0 for the first piece of its document
            first = self._firsts[document]
            skipped = np.where(k > 0, first + (k - 1) * row, 0)
            starts = starts + skipped
            lengths = np.where(k > 0, np.minimum(lengths - skipped, row), first)
        rows, count = best_fit(lengths, row)
        rows = numpy_rng(parent.seed, "rows", self.number, number).permutation(count)[rows]
        order = np.argsort(rows, kind="stable")
        rows, starts, lengths = rows[order], starts[order], lengths[order]
        bounds = np.searchsorted(rows, np.arange(count + 1))
        before = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        columns = before - np.repeat(before[bounds[:-1]], np.diff(bounds))
        ranks = np.arange(len(rows)) - np.repeat(bounds[:-1], np.diff(bounds))
        return _Block(starts, lengths, columns, ranks.astype(np.int32), bounds)


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Pack pieces into rows by best fit decreasing; returns (row of each piece, number of rows).

    The longest piece goes first, each into the fullest row that still takes it (Ding et al. 2024,
    "Fewer Truncations Improve Language Modeling", arXiv:2404.10830, use the same rule).

    >>> best_fit(np.array([3, 2, 5, 2]), 5)
    (array([1, 1, 0, 2]), 3)
    """
    rows = np.zeros(len(lengths), dtype=np.int64)
    free: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room they have left
    present = 0  # bit r is set where free[r] is not empty: the fullest fitting row is one bit scan away
    count = 0
    order = np.argsort(-lengths, kind="stable")
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = present >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = free[room].pop()
            if not free[room]:
                present ^= 1 << room
        else:
            row, room, count = count, capacity, count + 1
        rows[piece] = row
        left = room - length
        if left:
            if not free[left]:
                present |= 1 << left
            free[left].append(row)
    return rows, count


def _count_up(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each length, one after the other: [2, 3] -> [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
