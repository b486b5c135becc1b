"""The part of a document that a correction is about: enough to learn from, and no more than is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable

SMALL = 4000
"""Characters up to which a document is kept whole."""

AROUND = 800
"""Characters before and after the quotes that are kept of a larger one: an assumption."""

_SPACE = re.compile(r"\s")


def passage(text: str, places: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Where the part begins and ends: all of a small text, else AROUND characters about the first of
    `places` and what else lies within, cut at white space. Without a place it is the beginning."""
    if len(text) <= SMALL:
        return 0, len(text)
    start, end = next(iter(places), (0, 0))
    return _before(text, start - AROUND), _after(text, max(end + AROUND, 2 * AROUND if start == 0 else 0))


def _before(text: str, at: int) -> int:
    """The beginning of a word, at or after `at`."""
    if at <= 0:
        return 0
    space = _SPACE.search(text, at - 1, at + 200)
    return space.end() if space else at


def _after(text: str, at: int) -> int:
    """The end of a word, at or before `at`."""
    if at >= len(text):
        return len(text)
    for place in range(at, max(at - 200, 0), -1):
        if text[place].isspace():
            return place
    return at
