"""Encoded pairs as batches: both conversations of a pair in one step, whole and packed.

A step takes the next pairs of a shuffled epoch while their tokens fit into `batch_tokens`, and packs their
sequences into rows, each a segment that sees nothing outside. The two of a pair are one segment with a branch
where they fit into a row: the prompt is read once. It is a function of (seed, step).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from glasshouse.alignment.preference_pairs import JUDGEMENTS, SHARDS
from glasshouse.core.errors import ConfigError, DataError
from glasshouse.core.seeds import numpy_rng
from glasshouse.core.storage import hash_file
from glasshouse.data import IGNORE, Shards
from glasshouse.data.packing import best_fit
from glasshouse.model import Transformer


@dataclass(frozen=True)
class PairBatch:
    """n pairs in packed rows. Sequences are numbered chosen, rejected, chosen, ...: 2 n of them."""

    inputs: Tensor  # (rows, width) int64
    targets: Tensor  # (rows, width) int64: the reply's tokens, IGNORE elsewhere
    segments: Tensor  # (rows, width) int32, -1 on padding
    positions: Tensor  # (rows, width) int64
    last: Tensor  # (2 n,) int64: where each sequence's last token (not padding) stands in the flattened rows
    owner: Tensor  # (counted,) int64: the sequence of each counted target, in the order of the rows
    lengths: Tensor  # (2 n,) int64: counted targets of each sequence
    preferred: Tensor  # (n,) float32
    margin: Tensor  # (n,) float32
    pairs: np.ndarray  # (n,) numbers of the pairs
    source: Pairs
    tokens: int

    @property
    def count(self) -> int:
        return len(self.pairs)

    def split(self, rows: int | None) -> Iterator[PairBatch]:
        """Batches of consecutive pairs whose tokens fit into `rows` rows, at least one pair in each."""
        if rows is None:
            yield self
            return
        for part in self.source.portions(self.pairs, rows * self.source.sequence_length):
            yield self.source.gather(part).to(str(self.inputs.device))

    def to(self, device: str) -> PairBatch:
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def sequence_logprobs(self, model: Transformer) -> Tensor:
        """Summed log-probability of each reply in nats, (n, 2) float32: chosen, rejected."""
        logprobs = model.target_logprobs(self.inputs, self.targets, self.segments, self.positions)
        sums = torch.zeros(2 * self.count, device=logprobs.device).index_add(0, self.owner, logprobs)
        return sums.view(-1, 2)


class Pairs:
    """The encoded pairs of a folder, and their batches by step number."""

    def __init__(
        self,
        folder: str | Path,
        sequence_length: int,
        batch_tokens: int,
        seed: int,
        *,
        pad: int | None = None,
    ) -> None:
        """`pad`: a token that no sequence counts as its last one; see `last_token`."""
        folder = Path(folder)
        self.shards = Shards(folder / SHARDS)
        self._judgements = folder / JUDGEMENTS
        judgements = load_file(self._judgements)
        self.preferred, self.margin = judgements["preferred"], judgements["margin"]
        self.sequence_length, self.batch_tokens, self.seed = sequence_length, batch_tokens, seed
        self.pad = pad
        sizes = np.diff(np.asarray(self.shards.offsets, dtype=np.int64))  # (2 n,)
        self._tokens = sizes.reshape(-1, 2).sum(1)
        self._epochs: list[list[np.ndarray]] = []

    def __len__(self) -> int:
        return len(self.preferred)

    @property
    def steps_per_epoch(self) -> float:
        """Batches in epoch 0 (later epochs may have one more or less)."""
        return len(self._epoch(0))

    def _epoch(self, number: int) -> list[np.ndarray]:
        """The pairs of each batch of an epoch."""
        while len(self._epochs) <= number:
            order = numpy_rng(self.seed, "pairs", len(self._epochs)).permutation(len(self))
            self._epochs.append(list(self.portions(order, self.batch_tokens)))
        return self._epochs[number]

    def portions(self, pairs: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
        """Consecutive pairs whose tokens add up to at most `tokens`; one pair may have more."""
        begin, total = 0, 0
        for i, size in enumerate(self._tokens[pairs].tolist()):
            if i > begin and total + size > tokens:
                yield pairs[begin:i]
                begin, total = i, 0
            total += size
        yield pairs[begin:]

    def batch(self, step: int) -> PairBatch:
        """The pairs of step 0, 1, ...; epochs follow each other."""
        epoch = 0
        while step >= len(self._epoch(epoch)):
            step -= len(self._epoch(epoch))
            epoch += 1
        return self.gather(self._epoch(epoch)[step])

    def in_order(self) -> Iterator[PairBatch]:
        """Every pair once, from the first to the last."""
        return (self.gather(part) for part in self.portions(np.arange(len(self)), self.batch_tokens))

    def gather(self, pairs: np.ndarray) -> PairBatch:
        """The batch of these pairs, packed; a pair's common prompt is read once where both fit into a row."""
        assert self.shards.mask is not None
        documents, written = [], []
        for place in (2 * int(p) + side for p in pairs for side in (0, 1)):
            begin, end = int(self.shards.offsets[place]), int(self.shards.offsets[place + 1])
            documents.append(np.asarray(self.shards.tokens[begin:end], np.int64))
            written.append(self.shards.mask[begin:end] == 1)
        shared = np.zeros(len(documents), np.int64)  # tokens that stand with the pair's other side
        shared[1::2] = [
            common_prompt(documents[i : i + 2], written[i : i + 2], self.sequence_length)
            for i in range(0, len(documents), 2)
        ]
        sizes = np.array([len(document) for document in documents]) - shared
        first = np.flatnonzero(np.repeat(shared[1::2] == 0, 2) | (np.arange(len(documents)) % 2 == 0))
        row_of, rows = best_fit(np.add.reduceat(sizes, first), self.sequence_length)
        row_of = np.repeat(row_of, np.diff(first, append=len(documents)))  # of each sequence
        width = int(np.bincount(row_of, sizes, rows).max())
        inputs = np.zeros((rows, width), np.int64)
        targets = np.full((rows, width), IGNORE, np.int64)
        segments = np.full((rows, width), -1, np.int32)
        positions = np.zeros((rows, width), np.int64)
        owner = np.full((rows, width), -1, np.int64)
        last = np.zeros(len(documents), np.int64)
        filled, ranks = np.zeros(rows, np.int64), np.zeros(rows, np.int32)
        for i, (ids, row, skipped) in enumerate(
            zip(documents, row_of.tolist(), shared.tolist(), strict=True)
        ):
            begin, end = filled[row], filled[row] + len(ids) - skipped
            inputs[row, begin:end] = ids[skipped:]
            targets[row, begin : end - 1] = np.where(written[i], ids, IGNORE)[skipped + 1 :]
            ranks[row] += skipped == 0
            segments[row, begin:end] = ranks[row] - 1
            positions[row, begin:end] = np.arange(skipped, len(ids))
            owner[row, begin:end] = i
            last[i] = row * width + begin + last_token(ids[skipped:], self.pad)
            filled[row] = end
        owner = owner[targets != IGNORE]
        arrays = inputs, targets, segments, positions, last, owner
        return PairBatch(
            *map(torch.from_numpy, arrays),
            lengths=torch.from_numpy(np.bincount(owner, minlength=len(documents))),
            preferred=self.preferred[pairs],
            margin=self.margin[pairs],
            pairs=pairs,
            source=self,
            tokens=int((sizes + shared).sum()),
        )

    def check(self, model: Transformer) -> None:
        """Raise where this model cannot take these batches."""
        if self.shards.vocab_size > model.config.vocab_size:
            raise DataError(
                f"the pairs have token ids up to {self.shards.vocab_size - 1}, the model knows "
                f"{model.config.vocab_size}",
                where=self.shards.folder,
                fix="encode the pairs with this model's tokenizer",
            )
        if self.sequence_length > model.config.context:
            raise ConfigError(
                f"sequence_length {self.sequence_length} is longer than the model's context of "
                f"{model.config.context}",
                fix=f"set sequence_length to at most {model.config.context}",
            )

    def identity(self) -> dict[str, Any]:
        return {
            "data": self.shards.sha256,
            "judgements": hash_file(self._judgements),
            "sequence_length": self.sequence_length,
            "batch_tokens": self.batch_tokens,
            "seed": self.seed,
        }


def common_prompt(ids: Sequence[np.ndarray], written: Sequence[np.ndarray], room: int) -> int:
    """Tokens at the beginning of both sequences that need to be read only once, 0 where that does not fit.

    Up to the token before the first that either reply differs in or counts: that one has two targets.
    """
    shortest = min(map(len, ids))
    differs = ids[0][:shortest] != ids[1][:shortest]
    counts = written[0][:shortest] | written[1][:shortest]
    stop = np.flatnonzero(differs | counts)
    shared = max(0, int(stop[0] if len(stop) else shortest) - 1)
    return shared if sum(map(len, ids)) - shared <= room else 0


def last_token(ids: Sequence[int] | np.ndarray, pad: int | None) -> int:
    """The place of the last token that is not padding, where transformers reads a text's number."""
    return next((i for i in range(len(ids) - 1, -1, -1) if ids[i] != pad), len(ids) - 1)
