"""The words of an Office chart: its titles, and what it shows as a table of series."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"

MAX_POINTS = 10_000
"""Of all series of a chart together."""


def chart_text(root: etree._Element) -> str:
    """Lines: the title of the chart and of its axes; then a row of categories and one for each series."""
    titles = [_words(title) for title in root.iter(C + "title")]
    rows = [row for row in _rows(root) if any(row)]
    return "\n".join(line for line in [*titles, *(" | ".join(row) for row in rows)] if line)


def _rows(root: etree._Element) -> list[list[str]]:
    left = MAX_POINTS
    rows: list[list[str]] = []
    categories: dict[int, str] = {}
    for one in root.iter(C + "ser"):
        name = " ".join(value for _, value in sorted(_points(one.find(C + "tx")).items()))
        here = _points(one.find(C + "cat")) or _points(one.find(C + "xVal"))
        values = _points(one.find(C + "val")) or _points(one.find(C + "yVal"))
        left -= len(here) + len(values)
        if left < 0:
            break
        if here and here != categories:
            categories = here
            rows.append(["", *(text for _, text in sorted(here.items()))])
        places = sorted(set(categories) | set(values))
        rows.append([name, *(values.get(place, "") for place in places)])
    return rows


def _points(element: etree._Element | None) -> dict[int, str]:
    """The cached texts or numbers of a reference, by their place."""
    found: dict[int, str] = {}
    for point in () if element is None else element.iter(C + "pt"):
        place = point.get("idx", "")
        if place.isdecimal():
            found[int(place)] = (point.findtext(C + "v") or "").strip()
    if not found and element is not None and (text := element.findtext(C + "v")):
        found[0] = text.strip()
    return found


def _words(title: etree._Element) -> str:
    rich = ["".join(text.text or "" for text in line.iter(A + "t")) for line in title.iter(A + "p")]
    return " ".join(line.strip() for line in rich if line.strip()) or " ".join(
        value for _, value in sorted(_points(title.find(C + "tx")).items())
    )
