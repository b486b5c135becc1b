"""Lines that run along the top or the foot of pages: titles, page numbers, filing notes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from glasshouse.files.page_layout import Line

_EDGE_LINES = 3  # from the top and from the foot of a page
_NUMBER = re.compile(
    r"^\W*(?:page\s+|p\.\s*|seite\s+)?(?:[a-z]{1,3}-)?(?:\d{1,4}|[ivxlc]{1,6})(?:\s*(?:/|of|von)\s*\d{1,4})?\W*$",
    re.I,
)
_DIGITS = re.compile(r"\d+")
_MIN_PAGES = 2
_MIN_SHARE = 0.4  # of the pages, or of a stretch of pages: chapters have titles of their own
_GRID = 6.0  # points: lines of different pages at one height


def running_lines(pages: Sequence[Sequence[Line]]) -> list[set[int]]:
    """For each page the places in its list of lines that run along its top or foot.

    These are a lone page number at the very edge, and a line that stands at the same height of many pages
    with the same words, numbers aside.
    """
    edges = [_edge(lines) for lines in pages]
    counts = Counter(
        key
        for lines, places in zip(pages, edges, strict=True)
        for key in {_key(lines[place]) for place in places}
    )
    needed = max(_MIN_PAGES, min(len(pages) * _MIN_SHARE, 5))
    found: list[set[int]] = []
    for lines, places in zip(pages, edges, strict=True):
        running = {place for place in places if counts[_key(lines[place])] >= needed}
        # A number counts where it is the outermost line, not counting lines that run themselves.
        for order in (places, places[::-1]):
            for place in order:
                if place in running:
                    continue
                if len(pages) > 1 and _NUMBER.match(lines[place].text) and _alone(lines, place):
                    running.add(place)
                break
        found.append(running)
    return found


def _edge(lines: Sequence[Line]) -> list[int]:
    """The outermost lines of a page, from the top to the foot."""
    order = sorted(range(len(lines)), key=lambda place: -lines[place].box[1])
    return order if len(order) <= 2 * _EDGE_LINES else order[:_EDGE_LINES] + order[-_EDGE_LINES:]


def _key(line: Line) -> tuple[str, int]:
    return _DIGITS.sub("#", line.text.lower()), round(line.box[1] / _GRID)


def _alone(lines: Sequence[Line], place: int) -> bool:
    """Whether no other line stands beside it, as in a column of figures."""
    _, bottom, _, top = lines[place].box
    return not any(
        other != place and line.box[1] < top and line.box[3] > bottom for other, line in enumerate(lines)
    )
