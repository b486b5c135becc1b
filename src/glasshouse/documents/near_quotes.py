"""Where a quote stands that a text has not word for word: the place with the least edit distance.

A text that is short beside its quote is searched whole and exactly. In a long one, four characters in a row
that quote and text share vote for where the quote would begin, the rare ones with more weight, and around the
places with most votes the search is exact. The index of a text's fours is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from rapidfuzz.distance import Levenshtein

from glasshouse.documents.difference import SIGNS
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
"""Characters of a long quote's beginning and end by which its two ends are found: that is fast."""

SURE = 0.9
"""Similarity from which ends found so are right; otherwise the whole quote is searched for."""


class NearIndex:
    """Of one text. Capitals and typographic signs count only between places that are else equally near.

    `may_cut(place)`: whether a quote may begin or end there, and not in the middle of a word.
    """

    def __init__(self, text: str, may_cut: Callable[[int], bool]) -> None:
        self._plain, self._text, self._may_cut = text, folded(text), may_cut
        text = self._text
        self._codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        buckets = _buckets(self._codes)
        self._order = np.argsort(buckets, kind="stable").astype(np.int32)
        self._sorted = buckets[self._order]

    def find(self, quote: str, least: float) -> tuple[int, int, float] | None:
        """(start, end, similarity) of the nearest place, the first of several, or None below `least`.

        Similarity: 1 - Levenshtein distance / length of the longer one.
        """
        asked, quote = quote, folded(quote)
        found: set[tuple[float, float, int, int]] = set()
        best = least
        for begin, stop, distance in self._windows(quote):
            if 1 - distance / (len(quote) + distance) < best:
                continue
            start, end, similarity = self._nearest(quote, begin, stop)
            if similarity >= best:
                exactly = Levenshtein.normalized_similarity(asked, self._plain[start:end])
                found.add((similarity, exactly, -start, end))
                best = similarity
        if not found:
            return None
        similarity, _, start, end = max(found)
        return -start, end, similarity

    def _windows(self, quote: str) -> Iterator[tuple[int, int, int]]:
        """Stretches of the text to look at, with the least distance that the quote can have there."""
        length, size = len(quote), len(self._text)
        if length <= SHORT:
            for end in _ends_of_short(quote, self._codes):
                yield max(0, end - 2 * length), min(size, end + length), 0
            return
        if size <= 4 * length:
            yield 0, size, 0
            return
        room = length // 4 + GRAM
        for place, distance in self._votes(quote, room):
            yield max(0, place - room), min(size, place + room + length + room), distance

    def _votes(self, quote: str, width: int) -> list[tuple[int, int]]:
        """Where the quote would begin, right to `width` characters, those with most votes first; and the least
        distance there: one edit spoils four fours at most, and the others that the text knows would be there.
        """
        codes = np.frombuffer(quote.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        grams, places = np.unique(_buckets(codes), return_index=True)  # each votes once, however often it stands
        starts = np.searchsorted(self._sorted, grams)
        counts = np.searchsorted(self._sorted, grams, side="right") - starts
        known = np.flatnonzero(counts)
        rare = known[np.argsort(counts[known], kind="stable")[:SEEDS]]
        if not rare.size:
            return []
        found = [self._order[starts[gram] : starts[gram] + counts[gram]] for gram in rare.tolist()]
        begins = np.concatenate([at - place for at, place in zip(found, places[rare].tolist(), strict=True)])
        weights = np.repeat(counts[rare] ** -0.5, counts[rare])
        bins = (begins + len(quote)) // width  # the shift: none is negative
        votes, hits = np.bincount(bins, weights), np.bincount(bins)
        votes = votes + np.append(votes[1:], 0)  # a bin and the next: a place may lie across their border
        hits = hits + np.append(hits[1:], 0)
        chosen: list[int] = []
        for number in np.argsort(-votes, kind="stable")[: 4 * PLACES].tolist():
            if 3 * votes[number] < votes.max() or len(chosen) == PLACES:
                break
            if all(abs(number - other) > 1 for other in chosen):
                chosen.append(number)
        return [
            ((number + 1) * width - len(quote), max(0, -((int(hits[number]) - rare.size) // GRAM)))
            for number in chosen
        ]

    def _nearest(self, quote: str, begin: int, stop: int) -> tuple[int, int, float]:
        """The part of text[begin:stop] that is nearest to the quote, with its similarity."""
        window = self._text[begin:stop]
        if len(quote) > 2 * END:
            room = max(len(window) - len(quote), END)
            start, _, _ = nearest(quote[:END], window[: END + room])
            after = max(start, len(window) - END - room)
            _, end, _ = nearest(quote[-END:], window[after:])
            found = self._fitted(quote, begin + start, begin + after + end)
            if found[2] >= SURE:
                return found
        start, end, _ = nearest(quote, window)
        return self._fitted(quote, begin + start, begin + end)

    def _fitted(self, quote: str, start: int, end: int) -> tuple[int, int, float]:
        """With both ends moved to where a word begins or ends, whichever is nearest to the quote."""

        def similarity(start: int, end: int) -> float:
            if start >= end:
                return 0.0
            return Levenshtein.normalized_similarity(quote, self._text[start:end])

        before = None
        while before != (start, end):
            before = start, end
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


def folded(plain: str) -> str:
    """Without capitals and typographic signs, character for character."""
    return plain.translate(SIGNS).lower()


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
