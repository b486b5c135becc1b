"""What a longer window is worth: bits per byte of long texts, by the position of the token read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glasshouse.evaluation.intervals import Estimate, ratio

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel


def ranges(old: int, new: int) -> list[tuple[int, int]]:
    """The old window, then doublings up to the new one, half-open.

    >>> ranges(64, 200)
    [(0, 64), (64, 128), (128, 200)]
    """
    found = [(0, old)]
    while found[-1][1] < new:
        end = found[-1][1]
        found.append((end, min(2 * end, new)))
    return found


def bits_per_byte_by_position(
    model: LanguageModel,
    pieces: Sequence[Sequence[int]],
    parts: Sequence[tuple[int, int]],
    window: int | None = None,
) -> list[Estimate | None]:
    """For each part (first, end) of the positions in a piece: bits over bytes; None where no piece reaches.

    `pieces` are token ids; the first of each, at position 0, is only read.
    A model whose window is shorter than a piece moves on by half windows, so that every later token is
    read after at least half of one: the same tokens are scored for every model. `window`: read no more
    than so many tokens at once, although the model could.
    """
    window = min(window or model.context, model.context)
    bits: list[list[float]] = [[] for _ in parts]
    sizes: list[list[int]] = [[] for _ in parts]
    for piece in pieces:
        losses = _losses(model, piece, window)  # (targets,) bits
        lengths = _bytes(model, piece[1:])
        for part, (first, end) in enumerate(parts):
            here = slice(max(first - 1, 0), end - 1)  # the first loss is that of position 1
            if len(losses[here]):
                bits[part].append(float(losses[here].sum()))
                sizes[part].append(int(lengths[here].sum()))
    return [ratio(b, s) if sum(s) else None for b, s in zip(bits, sizes, strict=True)]


def _losses(model: LanguageModel, piece: Sequence[int], window: int) -> np.ndarray:
    """Bits of piece[1:], one text at a time: dynamic RoPE's angles depend on what stands beside it."""
    half = max(1, window // 2)
    found = []
    done = 1
    while done < len(piece):
        start = 0 if done == 1 else done - half
        end = min(start + window, len(piece))
        (logprobs,) = model.score_batch([piece[start:done]], [piece[done:end]])
        found.append(-logprobs.double().numpy() / math.log(2))
        done = end
    return np.concatenate(found)


def _bytes(model: LanguageModel, ids: Sequence[int]) -> np.ndarray:
    """UTF-8 bytes that each token stands for; a special token stands for none."""
    special = set(model.tokenizer.special.values())
    return np.array([0 if i in special else len(model.tokenizer.token_bytes(i)) for i in ids])
