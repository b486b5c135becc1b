"""Whether a quote stands in a text, and where.

    >>> find_quote("Either party may end\\nit with 60 days' notice.", "end it with 60 days'").verbatim
    True
    >>> find_quote("Either party may end it with 60 days' notice.", "end it with 30 days' notice").difference
    "'30 days' for '60 days'"

Verbatim is a quote whose characters stand in the text one after the other, with white space where it has
white space and none where it has none, whatever white space that is; `plain_form` tells which characters do
not count. Everything else, were it only a capital letter or a curly quotation mark, is at most near, and its
difference is named. Nor is it verbatim what cuts a number ("60" of "160" or of "60.5") or a negation ("able"
of "unable", "can" of "cannot"), since it would say something else: it is near, and its place holds the whole
of what it cuts. Other words may be cut.

Near is also what is like a place in the text, to a similarity of at least `LEAST`. A quote with an ellipsis
("…", "...", "[...]") is near where its parts stand in their order, from the first to the last; what the
ellipsis leaves out is told as its difference.
"""

from __future__ import annotations

import bisect
import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from glasshouse.documents.quotes.cuts import cuts_compound, cuts_number, cuts_word, misleads
from glasshouse.documents.quotes.difference import difference, folded, left_out
from glasshouse.documents.quotes.plain_form import PlainForm

if TYPE_CHECKING:
    from glasshouse.documents.quotes.near import NearIndex

LEAST = 0.7
"""Of the similarity of a near quote, or of a part of one with an ellipsis. Below, it is missing."""

LONGEST_GAP = 2000
"""Characters that one ellipsis may leave out."""

_ELLIPSIS = re.compile(r" ?(?:[\[(<] ?(?:\. ?\. ?\.|…) ?[\])>]|\.{3,}|\. \. \.(?: \.)*|…) ?")


@dataclass(frozen=True)
class Quote:
    """Where a quote stands: `text` is the source's [start:end], in characters."""

    start: int
    end: int
    verbatim: bool  # equal up to white space
    text: str
    similarity: float  # 0 to 1; 1 for verbatim ones, and for near ones that differ in capitals and signs only
    difference: str | None = None  # of a near one, in one line
    times: int = 1  # how often `text` stands in the source, up to white space; this is the first place


def find_quote(text: str, quote: str) -> Quote | None:
    """Where `quote` stands in `text`, or None. For many quotes of one text use `Source`."""
    return Source(text).find(quote)


class _Place(NamedTuple):
    """Characters of the plain form, half open."""

    start: int
    end: int
    similarity: float = 1.0
    difference: str = ""


class Source:
    """A text in which quotes are looked up: its index is made once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._form = PlainForm(text)

    def find(self, quote: str) -> Quote | None:
        """Where it stands: verbatim, else nearest. None for what is nowhere, and for white space.

        A quote without a letter and a digit is found verbatim or not at all.
        """
        asked = PlainForm(quote).text.strip(" ")
        if not asked:
            return None
        places = self._verbatim(asked)
        if places:
            return self._quote(places[0], times=len(places))
        if not any(map(str.isalnum, asked)):
            return None
        place = self._misleading(asked) or self._elided(asked) or self._near(asked)
        if place is None:
            return None
        times = len(self._verbatim(self._form.text[place.start : place.end]))
        return self._quote(place, times=max(times, 1))

    def _quote(self, place: _Place, times: int) -> Quote:
        start, end = self._form.span(place.start, place.end)
        verbatim = not place.difference
        return Quote(
            start, end, verbatim, self.text[start:end], place.similarity, place.difference or None, times
        )

    def _verbatim(self, asked: str) -> list[_Place]:
        """Every place, not overlapping; those that cut a word only where there are no others."""
        text, form = self._form.text, self._form
        found: list[_Place] = []
        start = text.find(asked)
        while start >= 0:
            end = start + len(asked)
            if form.whole(start) and form.whole(end) and not misleads(text, start, end):
                found.append(_Place(start, end))
                start = text.find(asked, end)
            else:
                start = text.find(asked, start + 1)
        whole = [at for at in found if not cuts_word(text, at.start) and not cuts_word(text, at.end)]
        return whole or found

    def _misleading(self, asked: str) -> _Place | None:
        """Of words that stand in the text and say something else there: with the whole of what they cut."""
        text = self._form.text
        start = text.find(asked)
        if start < 0:
            return None
        end = start + len(asked)
        while not self._may_cut(start):
            start -= 1
        while not self._may_cut(end):
            end += 1
        return self._place(asked, start, end)

    def _near(self, asked: str) -> _Place | None:
        found = self._index.find(asked, LEAST)
        if found is None:
            return None
        return self._place(asked, *found)

    def _place(self, asked: str, start: int, end: int) -> _Place:
        """A near one."""
        from rapidfuzz.distance import Levenshtein

        stands = self._form.text[start:end]
        similarity = Levenshtein.normalized_similarity(folded(asked), folded(stands))
        return _Place(start, end, similarity, difference(asked, stands) or "written otherwise")

    def _elided(self, asked: str) -> _Place | None:
        """Of a quote with an ellipsis: from its first part to its last, over as little text as possible."""
        parts = [part for part in _ELLIPSIS.split(asked) if any(map(str.isalnum, part))]
        if len(parts) < 2:
            return None
        places: list[list[_Place]] = []
        for part in parts:
            near = None
            found = self._verbatim(part)
            if not found and (near := self._near(part)) is None:
                return None
            places.append(found or [near] if near else found)
        chains = [chain for first in places[0] if (chain := _chain(first, places[1:]))]
        if not chains:
            return None
        chain = min(chains, key=lambda chain: chain[-1].end - chain[0].start)
        gaps = [self._form.text[one.end : other.start] for one, other in itertools.pairwise(chain)]
        said = [at.difference for at in chain if at.difference]
        length = sum(map(len, parts))
        similarity = sum(at.similarity * len(part) for at, part in zip(chain, parts, strict=True)) / length
        return _Place(chain[0].start, chain[-1].end, similarity, "; ".join([*said, left_out(gaps)]))

    def _may_cut(self, place: int) -> bool:
        """Whether a near quote's place may begin or end there: it is of whole words and numbers."""
        text = self._form.text
        cut = cuts_word(text, place) or cuts_number(text, place) or cuts_compound(text, place)
        return not cut and self._form.whole(place)

    @cached_property
    def _index(self) -> NearIndex:
        from glasshouse.documents.quotes.near import NearIndex

        return NearIndex(self._form.text, self._may_cut)


def _chain(first: _Place, later: list[list[_Place]]) -> list[_Place] | None:
    """The next place of each part after the one before, none further off than an ellipsis may reach."""
    chain = [first]
    for places in later:
        end = chain[-1].end
        number = bisect.bisect_left(places, end, key=lambda place: place.start)
        if number == len(places) or places[number].start - end > LONGEST_GAP:
            return None
        chain.append(places[number])
    return chain
