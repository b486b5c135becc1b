"""Replies read without padding: several in a row, and those to one prompt with the prompt read once.

A batch of replies is mostly padding where one is long. So their tokens are packed into rows as segments that
do not see each other, and `places` leads back: where the state of each of the batch's tokens stands. Replies
to one prompt, one after the other in the batch, are branches of one segment (model/documents.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from glasshouse.data import IGNORE
from glasshouse.data.packing import best_fit
from glasshouse.model import Transformer

WIDTH = 256
"""Tokens of a packed row, where the batch's rows are not longer and the model's context is not shorter."""


@dataclass(frozen=True)
class PackedRows:
    """All (rows, width) int64, but for places (replies, tokens) int64, which are 0 on padding."""

    inputs: Tensor
    positions: Tensor
    segments: Tensor  # -1 on padding
    places: Tensor  # in the flattened rows

    def states(self, model: Transformer) -> Tensor:
        """The last block's output for every token, (rows · width, hidden): `places` point into it."""
        return model.hidden(self.inputs, self.positions, self.segments).flatten(0, 1)


def pack_rows(inputs: Tensor, targets: Tensor, segments: Tensor, context: int) -> PackedRows:
    """Pack teacher-forcing rows, all (replies, tokens), each one reply after its prompt, padded on the right.

    A prompt ends before the first target.
    """
    ids, counted = inputs.cpu().numpy(), (targets != IGNORE).cpu().numpy()
    lengths = (segments >= 0).sum(-1).cpu().numpy()
    replies, tokens = ids.shape
    width = max(tokens, min(WIDTH, context))
    shared, first = _shared(ids, counted.argmax(-1), lengths, width)
    sizes = np.add.reduceat(lengths - shared, first)  # of each segment
    row_of, rows = best_fit(sizes, width)
    order = np.argsort(row_of, kind="stable")
    filled = np.bincount(row_of, sizes, rows).astype(np.int64)
    width = int(filled.max())
    before = np.zeros(len(sizes), np.int64)  # tokens of other segments in the same row
    before[order] = np.cumsum(sizes[order]) - sizes[order] - (np.cumsum(filled) - filled)[row_of[order]]
    segment = np.repeat(np.arange(len(first)), np.diff(first, append=replies))  # of each reply
    begin = (row_of * width + before)[segment]
    within = np.cumsum(lengths - shared) - (lengths - shared)
    own = begin + within - within[first][segment] - shared  # as if what is shared stood there, too
    column = np.arange(tokens)
    places = np.where(column < shared[:, None], begin[:, None], own[:, None]) + column
    real = column < lengths[:, None]
    fresh = real & (column >= shared[:, None])
    packed = np.zeros((3, rows * width), np.int64)
    packed[2] = -1
    packed[:, places[fresh]] = ids[fresh], np.nonzero(fresh)[1], segment[np.nonzero(fresh)[0]]
    read = torch.from_numpy(packed).to(inputs.device).view(3, rows, width)
    return PackedRows(
        read[0], read[1], read[2], torch.from_numpy(np.where(real, places, 0)).to(inputs.device)
    )


def _shared(
    ids: np.ndarray, prompts: np.ndarray, lengths: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens of each reply's prompt that stand with an earlier reply's, the replies that begin segments).

    The token before the first target is read for every reply: it predicts another target in each.
    """
    column = np.arange(ids.shape[1])
    alike = ((ids[1:] == ids[:-1]) | (column > prompts[1:, None])).all(-1) & (prompts[1:] == prompts[:-1])
    shared = np.zeros(len(ids), np.int64)
    size = int(lengths[0])
    for before, reply in pairwise(range(len(ids))):
        longer = size + int(lengths[reply] - prompts[reply])
        if alike[before] and prompts[reply] and longer <= width:
            shared[reply], size = prompts[reply], longer
        else:
            size = int(lengths[reply])
    return shared, np.flatnonzero(shared == 0)
