"""Quotes of a document, looked up where a model read them, and how well one bears out its value."""

from __future__ import annotations

import math
import re
from typing import Any

from glasshouse.documents.quotes.check import check
from glasshouse.documents.quotes.search import Source
from glasshouse.documents.result import QuoteCheck
from glasshouse.documents.values.equality import as_number, normal
from glasshouse.files.document import Document

NEAR, NOT_HELD = 0.8, 0.5
"""What a near quote, and one that does not hold its value, count of a verbatim one that does: assumptions,
until labelled examples say more (calibrator.py)."""

_NUMBER = re.compile(r"\d[\d,. \u00a0]*\d|\d")

_SCALES = {
    "hundred": 1e2,
    "thousand": 1e3,
    "k": 1e3,
    "million": 1e6,
    "mn": 1e6,
    "m": 1e6,
    "billion": 1e9,
    "bn": 1e9,
    "b": 1e9,
    "trillion": 1e12,
    "%": 1e-2,
    "percent": 1e-2,
}
_SCALE = re.compile(r"\s*(%|[a-z]+)", re.IGNORECASE)


class Evidence:
    """The quotes of one document. Each is looked up once."""

    def __init__(self, document: Document) -> None:
        self._document, self._source = document, Source(document.text)
        self._known: dict[str, QuoteCheck] = {}

    def look_up(self, asked: str, start: int = 0, end: int | None = None) -> QuoteCheck:
        """Where the document has it. Of several places the first one within [start, end), the part that was
        read, if there is one."""
        if asked not in self._known:
            self._known[asked] = check(self._source, self._document, asked)
        found = self._known[asked]
        if found.start is None or found.times == 1 or found.start >= start:
            return found
        within = Source(self._document.text[start:end]).find(asked)
        if within is None or within.verbatim != (found.status == "verbatim"):
            return found
        first = start + within.start
        return found.model_copy(
            update={
                "start": first,
                "end": start + within.end,
                "page": self._document.page_at(first),
                "text": within.text,
            }
        )


def quote_match(value: Any, quote: QuoteCheck | None, fact: bool) -> float:
    """1: the quote stands in the document verbatim and, where the value is a fact, holds it; 0: it stands
    nowhere, or there is none."""
    if quote is None or quote.status == "missing":
        return 0.0
    match = 1.0 if quote.status == "verbatim" else NEAR * (quote.similarity or 0.0)
    return match if not fact or holds(quote.text or "", value) else match * NOT_HELD


def holds(text: str, value: Any) -> bool:
    """Whether the text says the value: its words in their order, or its number in any spelling. Of a yes or
    no nobody can tell by comparing, so that counts as held.

    >>> holds("Revenue rose 4.2% to $3.1 million.", 3100000), holds("Revenue rose.", 3100000)
    (True, False)
    """
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, str):
        number = as_number(value)
        if number is None:
            wanted, said = _words(value), _words(text)
            return any(said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1))
        value = number
    if not isinstance(value, int | float):
        return True
    return any(math.isclose(abs(value), number, rel_tol=1e-9) for number in _numbers(text))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", str(normal(f"{text} ")))


def _numbers(text: str) -> list[float]:
    """Every number in the text without its sign, as it stands and with the scale behind it."""
    found: list[float] = []
    for match in _NUMBER.finditer(text):
        number = as_number(re.sub(r"[ \u00a0]", "", match[0].rstrip(",. ")))
        if number is None:
            continue
        found.append(number)
        scale = _SCALE.match(text, match.end())
        if scale and scale[1].lower() in _SCALES:
            found.append(number * _SCALES[scale[1].lower()])
    return found
