"""Excel files (.xlsx): sheet by sheet, the values of cells as they are shown, comments, charts.

Sheets are pages. Cells are read piece by piece and only those with something in them: openpyxl's own readers
make a full grid of what a sheet claims to be, or leave out merged cells and comments, and have either the
formulas or the values. Its knowledge of formats, dates and formulas is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glasshouse.files.builder import Builder
from glasshouse.files.chart import A, C, chart_text
from glasshouse.files.document import Document, Flag
from glasshouse.files.number_format import hides_text, number_text
from glasshouse.files.opc import Package
from glasshouse.files.regions import regions, sheet_place
from glasshouse.files.visibility import WHITE, hex_color, seen
from glasshouse.files.xml_stream import Part, Record, stream_xml

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

MAX_CELLS = 500_000
"""Cells with something in them, of all sheets of a file. More are not read, and a flag says so."""

MAX_ROW, MAX_COLUMN = 1_048_576, 16_384
"""Of a sheet, as Excel has it."""

_S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_CELL = re.compile(r"\$?([A-Z]{1,3})\$?([1-9][0-9]{0,6})")
_MAX_RANGES = 50_000  # of a sheet: merged cells, tables, conditions
_MAX_LOOKS = 50_000_000  # at cells, to see which of them lie in such ranges

Range = tuple[int, int, int, int]
"""Top, left, bottom, right, from 1, all inclusive."""


def read_xlsx(data: bytes, name: str) -> Document:
    """The text of an Excel file; page n is sheet n. A table is a region of cells, its place "Sheet1!A1:C9".

    A cell has the value that was last computed, or its formula where there is none. Hidden sheets, rows,
    columns and cells are in a flag and not in the text. Raises DataError for a broken, encrypted or hostile
    file.
    """
    return _Reader(Package(data, name)).read()


@dataclass
class _Style:
    """Of a cell."""

    code: str = "General"
    color: str | None = None
    points: float | None = None
    background: str | None = WHITE  # None: not known


@dataclass
class _Sheet:
    cells: dict[tuple[int, int], tuple[str, int]] = field(
        default_factory=dict
    )  # text and number of the style
    merged: list[Range] = field(default_factory=list)
    painted: list[Range] = field(
        default_factory=list
    )  # by tables and conditions: their colours are not known
    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)


class _Reader:
    def __init__(self, package: Package) -> None:
        self._package = package
        self._main, root = package.main("workbook")
        properties = root.find(_S + "workbookPr")
        self._since_1904 = properties is not None and properties.get("date1904") in ("1", "true")
        self._sheets = [
            (sheet.get("name", ""), sheet.get("state", "visible"), part)
            for sheet in root.iterfind(f"{_S}sheets/{_S}sheet")
            if (part := package.target(self._main, sheet.get(_R + "id"))) is not None
        ]
        self._left, self._looks = MAX_CELLS, _MAX_LOOKS
        self._strings = list(self._shared_strings())
        self._styles = list(self._all_styles())
        self._people = {
            person.get("id"): person.get("displayName", "")
            for part in package.related(self._main, "person")
            for person in package.xml(part)
        }

    def read(self) -> Document:
        builder = Builder()
        hidden: dict[int, list[str]] = {}
        for page, (name, state, part) in enumerate(self._sheets, 1):
            chart = part in self._package.related(self._main, "chartsheet")
            sheet = _Sheet() if chart else self._cells(part)
            cells, unseen = self._shown(sheet)
            blocks = [(region.text, region.place) for region in regions(cells)]
            beside = list(self._drawn(part))
            if state != "visible":
                unseen += [text for text, _ in (*blocks, *beside)]
                blocks, beside = [], []
            if unseen:
                hidden[page] = unseen
            if blocks or beside:
                builder.add(name, "heading", page=page, level=1, place=name)
            for text, place in blocks:
                builder.add(text, "table", page=page, place=sheet_place(name, place))
            for text, kind in beside:
                what = "table" if kind == "chart" else "paragraph"
                builder.add(text, what, page=page, place=f"{name}, {kind}")
            for text, place in self._comments(part) if state == "visible" else ():
                builder.add(text, "comment", page=page, place=sheet_place(name, place))
        return builder.document(
            self._package.name,
            "xlsx",
            pages=len(self._sheets),
            metadata=self._package.metadata(),
            flags=tuple(self._flags(hidden)),
        )

    def _flags(self, hidden: dict[int, list[str]]) -> Iterator[Flag]:
        if hidden:
            what = "Cells that cannot be seen (hidden, or as white as the paper) were left out."
            text = "\n".join(line for lines in hidden.values() for line in lines)
            yield Flag("hidden_text", what, tuple(hidden), text)
        if self._left < 0:
            yield Flag("cut", f"Only the first {MAX_CELLS:,} cells were read.")

    # Cells

    def _cells(self, part: str) -> _Sheet:
        sheet = _Sheet()
        shared: dict[str, tuple[str, str]] = {}  # formulas that several cells share, and where each stands
        row = column = 0
        heads = ("row", "mergeCell", "conditionalFormatting", "col")
        for found in self._stream(part, whole=("c",), heads=heads, without="rPh"):
            if found.tag == "row":
                row, column = _count(found.get("r"), row + 1), 0
                if found.get("hidden") in ("1", "true"):
                    sheet.hidden_rows.add(row)
            elif found.tag == "c":
                row, column = _place(found.get("r")) or (row, column + 1)
                text = self._value(found, shared)
                if text and row <= MAX_ROW and column <= MAX_COLUMN:
                    self._left -= 1
                    if self._left < 0:
                        break
                    sheet.cells[row, column] = (text, _count(found.get("s"), 0))
            elif found.tag == "mergeCell" and len(sheet.merged) < _MAX_RANGES:
                sheet.merged += _ranges(found.get("ref"))
            elif found.tag == "conditionalFormatting" and len(sheet.painted) < _MAX_RANGES:
                sheet.painted += _ranges(found.get("sqref"))
            elif found.tag == "col" and found.get("hidden") in ("1", "true"):
                sheet.hidden_columns.append((_count(found.get("min"), 1), _count(found.get("max"), 1)))
        for table in self._package.related(part, "table"):
            sheet.painted += _ranges(self._package.xml(table).get("ref"))
        return sheet

    def _stream(
        self, part: str, *, whole: tuple[str, ...], heads: tuple[str, ...] = (), without: str = ""
    ) -> Iterator[Record]:
        with self._package.open(part) as file:
            where = f"{self._package.name}: {part}"
            yield from stream_xml(file, where, whole=whole, heads=heads, without=without)

    def _value(self, cell: Record, shared: dict[str, tuple[str, str]]) -> str:
        """A cell's text as it is shown; with a zero before it where its format shows nothing."""
        kind, at = cell.get("t", "n"), cell.get("r", "A1")
        formula = next((part for part in cell.parts if part.tag == "f"), None)
        value = next((part.text for part in cell.parts if part.tag == "v"), "").strip()
        if formula is not None and formula.attributes.get("t") == "shared" and formula.text:
            shared.setdefault(formula.attributes.get("si", ""), (formula.text, at))
        if kind == "inlineStr":
            return "".join(part.text for part in cell.parts if part.tag == "t")
        if not value:
            return "" if formula is None else _formula(formula, at, shared)
        if kind == "s":
            number = _count(value, -1)
            return self._strings[number] if 0 <= number < len(self._strings) else ""
        if kind == "b":
            return "TRUE" if value == "1" else "FALSE"
        number = _float(value) if kind == "n" else None
        if number is None or abs(number) >= 1e300:  # the text of a formula, or what is no number
            return value
        code = self._style(_count(cell.get("s"), 0)).code
        return number_text(number, code, since_1904=self._since_1904) or f"\0{value}"

    def _shown(self, sheet: _Sheet) -> tuple[dict[tuple[int, int], str], list[str]]:
        """The texts of the cells that can be seen, and those of the others."""
        cells = sheet.cells
        for area in sheet.merged:  # what stands under a merged cell is not shown
            for place in self._within(cells, area):
                if place != area[:2]:
                    del cells[place]
        columns = {
            column
            for begin, end in sheet.hidden_columns[:_MAX_RANGES]
            for column in range(begin, min(end, MAX_COLUMN) + 1)
        }
        painted = {place for area in sheet.painted for place in self._within(cells, area)}
        shown: dict[tuple[int, int], str] = {}
        unseen: list[str] = []
        for place, (text, number) in cells.items():
            style = self._style(number)
            empty = text.startswith("\0") or hides_text(style.code)  # the format shows nothing
            behind = None if place in painted else style.background
            if (
                empty
                or place[0] in sheet.hidden_rows
                or place[1] in columns
                or not seen(style.color, behind, style.points)
            ):
                unseen.append(text.lstrip("\0"))
            else:
                shown[place] = text
        return shown, unseen

    def _within(self, cells: dict[tuple[int, int], tuple[str, int]], area: Range) -> list[tuple[int, int]]:
        """Those of the cells that lie in an area, by looking at its places or at all cells."""
        top, left, bottom, right = area
        places = (bottom - top + 1) * (right - left + 1)
        self._looks -= min(places, len(cells))
        if self._looks < 0:
            return []
        if places <= len(cells):
            every = ((row, column) for row in range(top, bottom + 1) for column in range(left, right + 1))
            return [place for place in every if place in cells]
        return [place for place in cells if top <= place[0] <= bottom and left <= place[1] <= right]

    # Strings and styles

    def _shared_strings(self) -> Iterator[str]:
        for part in self._package.related(self._main, "sharedStrings"):
            for found in self._stream(part, whole=("si",), without="rPh"):
                yield "".join(piece.text for piece in found.parts if piece.tag == "t")

    def _all_styles(self) -> Iterator[_Style]:
        from openpyxl.styles.numbers import BUILTIN_FORMATS

        parts = self._package.related(self._main, "styles")
        root = self._package.xml(parts[0]) if parts else None
        if root is None:
            return
        codes = dict(BUILTIN_FORMATS)
        codes |= {
            _count(code.get("numFmtId"), -1): code.get("formatCode", "") for code in root.iter(_S + "numFmt")
        }
        fonts, fills = root.findall(f"{_S}fonts/{_S}font"), root.findall(f"{_S}fills/{_S}fill")
        for style in root.iterfind(f"{_S}cellXfs/{_S}xf"):
            font, fill = _count(style.get("fontId"), 0), _count(style.get("fillId"), 0)
            found = _Style(codes.get(_count(style.get("numFmtId"), 0), "General"))
            if font < len(fonts):
                found.color = _color(fonts[font].find(_S + "color"))
                size = fonts[font].find(_S + "sz")
                found.points = None if size is None else _float(size.get("val"))
            pattern = fills[fill].find(_S + "patternFill") if fill < len(fills) else None
            if fill < len(fills) and (pattern is None or pattern.get("patternType", "none") != "none"):
                solid = pattern is not None and pattern.get("patternType") == "solid"
                found.background = (
                    _color(pattern.find(_S + "fgColor")) if solid and pattern is not None else None
                )
            yield found

    def _style(self, number: int) -> _Style:
        return self._styles[number] if 0 <= number < len(self._styles) else _Style()

    # What stands beside the cells

    def _drawn(self, part: str) -> Iterator[tuple[str, str]]:
        """Text boxes and charts."""
        for drawing in self._package.related(part, "drawing"):
            for line in self._package.xml(drawing).iter(A + "p"):
                yield "".join(text.text or "" for text in line.iter(A + "t")), "text box"
            for chart in self._package.related(drawing, "chart"):
                root = self._package.xml(chart)
                if root.tag == C + "chartSpace":
                    yield chart_text(root), "chart"

    def _comments(self, part: str) -> Iterator[tuple[str, str]]:
        """Threads, and the older notes, which Excel also writes in place of each thread."""
        threads = [
            root
            for found in self._package.related(part, "threadedComment")
            for root in [self._package.xml(found)]
        ]
        for root in threads:
            for comment in root:
                text = "".join(
                    str(piece) for child in comment if _local(child) == "text" for piece in child.itertext()
                )
                yield _said(self._people.get(comment.get("personId")), text), comment.get("ref", "")
        for found in self._package.related(part, "comments"):
            root = self._package.xml(found)
            authors = [author.text or "" for author in root.iter(_S + "author")]
            for comment in root.iter(_S + "comment"):
                number = _count(comment.get("authorId"), -1)
                author = authors[number] if 0 <= number < len(authors) else ""
                text = comment.find(_S + "text")
                if text is None or (threads and author.startswith("tc=")):
                    continue
                yield _said(author, _rich(text)), comment.get("ref", "")


def _local(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _rich(element: etree._Element) -> str:
    return "".join(text.text or "" for text in element.iter(_S + "t"))


def _formula(formula: Part, cell: str, shared: dict[str, tuple[str, str]]) -> str:
    if formula.text:
        return f"={formula.text}"
    from openpyxl.formula.translate import Translator, TranslatorError

    text, origin = shared.get(formula.attributes.get("si", ""), ("", ""))
    if not text:
        return ""
    try:
        return str(Translator(f"={text}", origin).translate_formula(cell))
    except (TranslatorError, ValueError, TypeError, IndexError):
        return f"={text}"


def _said(author: str | None, text: str) -> str:
    text = text.strip()
    if author and text and not text.startswith(author + ":"):  # Excel begins a note with its author's name
        return f"{author}: {text}"
    return text


def _color(element: etree._Element | None) -> str | None:
    """RRGGBB; None for one that is automatic, or of the theme and not white."""
    if element is None:
        return None
    if (rgb := hex_color(element.get("rgb"))) is not None:
        return rgb
    white = element.get("theme") == "0" or element.get("indexed") in ("1", "9")
    return WHITE if white and _float(element.get("tint")) in (None, 0.0) else None


def _float(text: str | None) -> float | None:
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _count(text: str | None, default: int) -> int:
    return int(text) if text is not None and re.fullmatch(r"\s*\d{1,9}\s*", text) else default


def _place(reference: str | None) -> tuple[int, int] | None:
    """Row and column of "AB3"."""
    found = _CELL.fullmatch(reference or "")
    if found is None:
        return None
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(found[2]), column


def _ranges(references: str | None) -> list[Range]:
    """Of "A1:B2 C3"."""
    found: list[Range] = []
    for reference in (references or "").split()[:_MAX_RANGES]:
        begin, _, end = reference.partition(":")
        first, last = _place(begin), _place(end or begin)
        if first and last:
            found.append((first[0], first[1], last[0], last[1]))
    return found
