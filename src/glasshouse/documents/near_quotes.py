"""Where a quote stands that a text has not word for word: the place with the least edit distance.

A text that is short beside its quote is searched whole and exactly. In a long one, four characters in a row
that quote and text share vote for where the quote would begin (rare ones alone: the others say little), and
around the places with most votes the search is exact. The index of a text's fours is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from rapidfuzz.distance import Levenshtein

from glasshouse.documents.edit_search import nearest

GRAM = 4
"""Characters that vote together."""

SHORT = 32
"""Characters of a quote up to which the whole text is searched: too few fours survive a change or two."""

SEEDS = 256
"""The rarest fours of a quote that vote."""

PLACES = 6
"""Places that are looked at, those with most votes."""

END = 256
"""Characters of a long quote's beginning and end by which its two ends are found."""


class NearIndex:
    """Of one text, in which case and typographic signs are folded away, character for character.

    `may_cut(place)`: whether a quote may begin or end there, and not in the middle of a word.
    """

    def __init__(self, text: str, may_cut: Callable[[int], bool]) -> None:
        self._text, self._may_cut = text, may_cut
        self._codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        buckets = _buckets(self._codes)
        self._order = np.argsort(buckets, kind="stable").astype(np.int32)
        self._starts = np.zeros(65537, dtype=np.int64)
        np.cumsum(np.bincount(buckets, minlength=65536), out=self._starts[1:])

    def find(self, quote: str, least: float) -> tuple[int, int, float] | None:
        """(start, end, similarity) of the nearest place, the first of several, or None below `least`.

        Similarity: 1 - Levenshtein distance / length of the longer one.
        """
        best: tuple[float, int, int] | None = None
        for begin, stop in self._windows(quote):
            start, end = self._ends(quote, begin, stop)
            if start >= end:
                continue
            start, end, similarity = self._fitted(quote, start, end)
            if similarity >= least and (best is None or (similarity, -start) > (best[0], -best[1])):
                best = similarity, start, end
        return None if best is None else (best[1], best[2], best[0])

    def _windows(self, quote: str) -> Iterator[tuple[int, int]]:
        """Stretches of the text to look at."""
        length, size = len(quote), len(self._text)
        if size <= 4 * length:
            yield 0, size
            return
        if length <= SHORT:
            for end in _ends_of_short(quote, self._codes):
                yield max(0, end - 2 * length), min(size, end + length)
            return
        room = length // 4 + GRAM
        for place in self._votes(quote, room):
            yield max(0, place - room), min(size, place + room + length + room)

    def _votes(self, quote: str, width: int) -> list[int]:
        """Where the quote would begin, those with most votes first; each right to `width` characters."""
        grams = _buckets(np.frombuffer(quote.encode("utf-32-le", "surrogatepass"), dtype="<u4"))
        counts = self._starts[grams.astype(np.int64) + 1] - self._starts[grams]
        known = np.flatnonzero(counts)
        rare = known[np.argsort(counts[known], kind="stable")[:SEEDS]]
        if not rare.size:
            return []
        begins = [
            self._order[self._starts[grams[place]] : self._starts[int(grams[place]) + 1]] - place
            for place in rare.tolist()
        ]
        bins = (np.concatenate(begins) + len(quote)) // width  # the shift keeps them from being negative
        votes = np.bincount(bins)
        votes = votes + np.append(votes[1:], 0)  # a bin and the next: a place may lie across their border
        most = int(votes.max())
        if most < 2:
            return []
        chosen: list[int] = []
        for found in np.argsort(-votes, kind="stable")[: 4 * PLACES].tolist():
            if 2 * votes[found] < most or len(chosen) == PLACES:
                break
            if all(abs(found - other) > 1 for other in chosen):
                chosen.append(found)
        return [(found + 1) * width - len(quote) for found in chosen]

    def _ends(self, quote: str, begin: int, stop: int) -> tuple[int, int]:
        """Of the part of text[begin:stop] that is nearest to the quote."""
        window = self._text[begin:stop]
        if len(quote) <= 2 * END:
            start, end, _ = nearest(quote, window)
            return begin + start, begin + end
        room = len(window) - len(quote)
        start, _, _ = nearest(quote[:END], window[: END + max(room, END)])
        after = max(start, len(window) - END - max(room, END))
        _, end, _ = nearest(quote[-END:], window[after:])
        return begin + start, begin + after + end

    def _fitted(self, quote: str, start: int, end: int) -> tuple[int, int, float]:
        """With both ends moved to where a word begins or ends, whichever is nearest to the quote."""

        def similarity(start: int, end: int) -> float:
            if start >= end:
                return 0.0
            return Levenshtein.normalized_similarity(quote, self._text[start:end])

        for _ in range(2):
            starts = [place for place in self._cuts_near(start) if self._text[place : place + 1] != " "]
            start = max(starts or [start], key=lambda place: (similarity(place, end), -place))
            ends = [place for place in self._cuts_near(end) if self._text[max(0, place - 1) : place] != " "]
            end = max(ends or [end], key=lambda place: (similarity(start, place), place))
        return start, end, similarity(start, end)

    def _cuts_near(self, place: int) -> list[int]:
        """Up to three places before and three after at which a quote may begin or end, and the place itself."""
        size = len(self._text)
        found = [place] if self._may_cut(place) else []
        for step in (-1, 1):
            other, left = place + step, 3
            while left and 0 <= other <= size and abs(other - place) <= 64:
                if self._may_cut(other):
                    found.append(other)
                    left -= 1
                other += step
        return found or [place]


def _buckets(codes: np.ndarray) -> np.ndarray:
    """A number below 65,536 for each four of characters; others may share it."""
    if codes.size < GRAM:
        return np.empty(0, dtype=np.uint16)
    mixed = np.zeros(codes.size - GRAM + 1, dtype=np.uint32)
    for place in range(GRAM):
        mixed = mixed * np.uint32(2654435761) + codes[place : place + mixed.size]
    return (mixed >> np.uint32(16)).astype(np.uint16)


def _ends_of_short(quote: str, codes: np.ndarray) -> list[int]:
    """Where the parts of a long text nearest to a short quote end: Sellers' table, row by row over all of it.

    Sellers, "The theory and computation of evolutionary distances", 1980.
    """
    size = codes.size
    steps = np.arange(size + 1, dtype=np.int32)
    row = np.zeros(size + 1, dtype=np.int32)
    for number, char in enumerate(quote, 1):
        best = np.empty(size + 1, dtype=np.int32)
        best[0] = number
        np.minimum(row[:-1] + (codes != ord(char)), row[1:] + 1, out=best[1:])
        row = np.minimum.accumulate(best - steps) + steps  # or one character of the text left out
    ends = np.flatnonzero(row == row.min())
    # Ends side by side belong to one place; the first few places are enough.
    fresh = np.flatnonzero(np.diff(ends, prepend=-len(quote)) >= len(quote))
    return ends[fresh][:PLACES].tolist()
