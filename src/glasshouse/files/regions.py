"""The cells of a sheet as blocks of text: one for each region that empty rows or columns set apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Cells = Mapping[tuple[int, int], str]
"""By row and column, both from 1; only cells that hold something."""

COLUMN_GAP = 2
"""Empty columns that set two regions apart. One alone often stands between the labels and the numbers of a
table, which a reader needs together."""

_MAX_CUTS = 16
_MAX_SPARSE = 20  # places of a region for each cell, above which empty places are not written


@dataclass(frozen=True)
class Region:
    top: int
    left: int
    bottom: int
    right: int
    text: str  # a row a line, cells joined by " | "

    @property
    def place(self) -> str:
        """As spreadsheets write it: "B2:D9", or "B2" for one cell."""
        begin, end = coordinate(self.top, self.left), coordinate(self.bottom, self.right)
        return begin if begin == end else f"{begin}:{end}"


def regions(cells: Cells) -> Iterator[Region]:
    """From top to bottom, those side by side from left to right."""
    for part in _cut(sorted(cells), by_row=True, cuts=0, settled=False):
        yield _region(part, cells)


def coordinate(row: int, column: int) -> str:
    """
    >>> coordinate(3, 28)
    'AB3'
    """
    letters = ""
    while column > 0:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return f"{letters}{row}"


def sheet_place(sheet: str, place: str) -> str:
    """A place on a sheet as formulas name it: `Sheet1!A1:C9`, `'My sheet'!A1`."""
    plain = sheet.replace("_", "").isalnum() and not sheet[:1].isdigit()
    quoted = sheet if plain else "'" + sheet.replace("'", "''") + "'"
    return f"{quoted}!{place}"


def _cut(
    places: list[tuple[int, int]], *, by_row: bool, cuts: int, settled: bool
) -> Iterator[list[tuple[int, int]]]:
    """Cut at empty rows and empty columns in turn until there are none. `settled`: the other way had none."""
    axis, gap = (0, 1) if by_row else (1, COLUMN_GAP)
    lines = sorted({place[axis] for place in places})
    begins = [after for before, after in itertools.pairwise(lines) if after - before > gap]
    if not begins or cuts >= _MAX_CUTS:
        if settled or not places or cuts >= _MAX_CUTS:
            if places:
                yield places
            return
        yield from _cut(places, by_row=not by_row, cuts=cuts + 1, settled=True)
        return
    parts: list[list[tuple[int, int]]] = [[] for _ in range(len(begins) + 1)]
    part_of: dict[int, int] = {}
    part = 0
    for line in lines:
        if part < len(begins) and line == begins[part]:
            part += 1
        part_of[line] = part
    for place in places:
        parts[part_of[place[axis]]].append(place)
    for found in parts:
        yield from _cut(found, by_row=not by_row, cuts=cuts + 1, settled=False)


def _region(places: list[tuple[int, int]], cells: Cells) -> Region:
    top, bottom = min(row for row, _ in places), max(row for row, _ in places)
    left, right = min(column for _, column in places), max(column for _, column in places)
    sparse = (bottom - top + 1) * (right - left + 1) > _MAX_SPARSE * (len(places) + 10)
    rows: dict[int, dict[int, str]] = {}
    for row, column in sorted(places):
        rows.setdefault(row, {})[column] = " ".join(cells[row, column].split())
    lines = (
        row.values() if sparse else [row.get(column, "") for column in range(left, max(row) + 1)]
        for row in rows.values()
    )
    return Region(top, left, bottom, right, "\n".join(" | ".join(line) for line in lines))
