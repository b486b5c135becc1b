"""Where a quote stands that a text has not word for word: the place with the least edit distance.

Four characters in a row that quote and text share vote for where the quote would begin, the rare ones with
more weight; around the places with most votes the search is exact. The index of a text's fours is made once.
For a short quote, and in a text that is short beside its quote, the search is exact from end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from glasshouse.documents.quotes.difference import folded
from glasshouse.documents.quotes.edit_search import nearest

GRAM = 4
"""Characters that vote together."""

SHORT = 32
"""Characters of a quote up to which the whole text is searched: too few fours survive a change or two."""

SEEDS = 256
"""The rarest fours of a quote that vote."""

PLACES = 6
"""Places that are looked at, those with most votes."""

EXACT = 10_000
"""Characters of a quote up to which the search is exact, whose time grows with their square."""

SURE = 0.9
"""Similarity from which the ends that the votes give are right; below, the search is exact."""


class _Place(NamedTuple):
    """Where to look: text[begin:stop]."""

    begin: int
    stop: int
    distance: int = 0  # the least that the quote can have there
    ends: Callable[[], tuple[int, int]] | None = None  # where the votes have the quote
    whole: bool = False  # all of the text, for when the votes found nothing


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

    def find(self, quote: str, least: float) -> tuple[int, int] | None:
        """(start, end) of the nearest place, the first of several, or None below `least`.

        Similarity: 1 - Levenshtein distance / length of the longer one.
        """
        if len(self._text) < least * len(quote):
            return None
        asked, quote = quote, folded(quote)
        found: set[tuple[float, float, int, int]] = set()
        best = least
        for place in self._places(quote):
            if 1 - place.distance / (len(quote) + place.distance) < best:
                continue
            if place.whole and best >= SURE:
                continue
            start, end, similarity = self._nearest(quote, place)
            if similarity >= best:
                exactly = Levenshtein.normalized_similarity(asked, self._plain[start:end])
                found.add((similarity, exactly, -start, end))
                best = similarity
        if not found:
            return None
        _, _, start, end = max(found)
        return -start, end

    def _places(self, quote: str) -> Iterator[_Place]:
        length, size = len(quote), len(self._text)
        if length <= SHORT:
            for end in _ends_of_short(quote, self._codes):
                yield _Place(max(0, end - 2 * length), min(size, end + length))
            return
        yield from self._voted(quote)
        if size <= 4 * length and length <= EXACT:
            yield _Place(0, size, whole=True)

    def _voted(self, quote: str) -> Iterator[_Place]:
        """Those with most votes first."""
        size, width = len(self._text), len(quote) // 4 + GRAM
        codes = np.frombuffer(quote.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        grams, places = np.unique(_buckets(codes), return_index=True)  # those that repeat vote once
        starts = np.searchsorted(self._sorted, grams)
        counts = np.searchsorted(self._sorted, grams, side="right") - starts
        known = np.flatnonzero(counts)
        rare = known[np.argsort(counts[known], kind="stable")[:SEEDS]]
        if not rare.size:
            return
        starts, counts, places = starts[rare], counts[rare], places[rare]
        # The places of all of them in the text, one four after the other.
        rows = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
        voters = np.repeat(places, counts)
        begins = self._order[rows] - voters
        weights = np.repeat(counts**-0.5, counts)
        bins = (begins + len(quote)) // width  # the shift: none is negative
        votes, hits = np.bincount(bins, weights), np.bincount(bins)
        votes[:-1] += votes[1:]  # a bin and the next: a place may lie across their border
        hits[:-1] += hits[1:]
        least = votes.max() / 3
        chosen: list[int] = []
        for number in np.argsort(-votes, kind="stable")[: 4 * PLACES].tolist():
            if votes[number] < least or len(chosen) == PLACES:
                break
            if any(abs(number - other) <= 1 for other in chosen):
                continue
            chosen.append(number)
            begin = number * width - len(quote)
            stop = begin + 3 * width + len(quote)
            # One edit spoils four fours at most; the others that the text knows would be there.
            distance = max(0, -((int(hits[number]) - rare.size) // GRAM))
            ends = partial(_ends, len(quote), begins, voters, bins - number)
            yield _Place(max(0, begin), min(size, stop), distance, ends)

    def _nearest(self, quote: str, place: _Place) -> tuple[int, int, float]:
        """The part of the text nearest to the quote, with its similarity."""
        if place.ends is not None:
            start, end = place.ends()
            if start < end:
                found = self._fitted(quote, max(0, start), min(len(self._text), end))
                if found[2] >= SURE or len(quote) > EXACT:
                    return found
        start, end, _ = nearest(quote, self._text[place.begin : place.stop])
        return self._fitted(quote, place.begin + start, place.begin + end)

    def _fitted(self, quote: str, start: int, end: int) -> tuple[int, int, float]:
        """With both ends moved to where a word begins or ends, whichever is nearest to the quote."""

        @cache  # the last turn asks what the one before did
        def similarity(start: int, end: int) -> float:
            if start >= end:
                return 0.0
            return Levenshtein.normalized_similarity(quote, self._text[start:end])

        cuts_near = cache(self._cuts_near)
        before = None
        while before != (start, end):
            before = start, end
            starts = [place for place in cuts_near(start) if self._text[place : place + 1] != " "]
            start = max(starts or [start], key=lambda place: (similarity(place, end), -place))
            ends = [place for place in cuts_near(end) if self._text[max(0, place - 1) : place] != " "]
            end = max(ends or [end], key=lambda place: (similarity(start, place), place))
        return start, end, similarity(start, end)

    def _cuts_near(self, place: int) -> list[int]:
        """Where a quote may begin or end: the place itself, and up to three before it and three after."""
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


def _ends(length: int, begins: np.ndarray, voters: np.ndarray, bins: np.ndarray) -> tuple[int, int]:
    """Where a quote of `length` begins as its first fours in the bins 0 and 1 say, and where it ends as their
    last do; a four that says what few others say is not heard."""
    here = (bins == 0) | (bins == 1)
    begins, voters = begins[here], voters[here]
    offsets = begins - begins.min()
    counts = np.bincount(offsets)
    heard = counts[offsets] * 8 >= counts.max()
    begins, voters = begins[heard], voters[heard]
    return int(begins[np.argmin(voters)]), int(begins[np.argmax(voters)]) + length


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
