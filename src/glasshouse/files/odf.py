"""OpenDocument files: texts (.odt), sheets (.ods) and slides (.odp), by lxml over the checked archive."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from glasshouse.core.errors import DataError
from glasshouse.files.archive import open_archive, read_member
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document, Flag
from glasshouse.files.odf_styles import DRAW, FO, OFFICE, PRESENTATION, STYLE, SVG, TABLE, Look, Styles
from glasshouse.files.odf_styles import points as in_points
from glasshouse.files.odf_text import ANNOTATIONS, DC, Found, Texts, table_rows
from glasshouse.files.regions import coordinate, regions, sheet_place
from glasshouse.files.visibility import WHITE
from glasshouse.files.xml import parse_xml

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

MAX_CELLS = 500_000
"""Cells with something in them, of all sheets of a file. More are not read, and a flag says so."""

_META = "{urn:oasis:names:tc:opendocument:xmlns:meta:1.0}"
_METADATA = {
    DC + "title": "title",
    _META + "initial-creator": "author",
    DC + "creator": "author",
    _META + "creation-date": "date",
    DC + "date": "modified",
    DC + "subject": "subject",
    DC + "language": "language",
}
_FORMATS = {"text": "odt", "spreadsheet": "ods", "presentation": "odp", "drawing": "odg"}
_MAX_ROW, _MAX_COLUMN = 1_048_576, 16_384


def read_odf(data: bytes, name: str) -> Document:
    """The text of an OpenDocument file; `format` is "odt", "ods", "odp" or "odg".

    A sheet or a slide is a page; a text has none. Tracked deletions are not in; notes and comments follow the
    text. Hidden words, sheets, rows and slides are in a flag and not in the text. Raises DataError for a
    broken, encrypted or hostile file.
    """
    return _Reader(data, name).read()


class _Reader:
    def __init__(self, data: bytes, name: str) -> None:
        self._archive, self._name = open_archive(data, name), name
        self._members = set(self._archive.namelist())
        manifest = self._bytes("META-INF/manifest.xml")
        if manifest is not None and b"encryption-data" in manifest:
            raise DataError("the file is encrypted", where=name, fix="save it without a password")
        if "content.xml" not in self._members:
            fix = "check what kind of file it is"
            raise DataError("a ZIP archive, but no OpenDocument file", where=name, fix=fix)
        self._root = self._xml("content.xml")
        styles = self._xml("styles.xml") if "styles.xml" in self._members else None
        self._styles = Styles([root for root in (self._root, styles) if root is not None])
        self._texts = self._new_texts()
        self._builder = Builder()
        self._hidden: dict[int, list[str]] = {}  # by page, 0 where there are none
        self._left = MAX_CELLS

    def read(self) -> Document:
        for body in self._root.iterfind(f"{OFFICE}body/*"):
            kind = str(body.tag).removeprefix(OFFICE)
            if kind not in _FORMATS:
                continue
            pages = None
            if kind == "text":
                self._text(body)
            elif kind == "spreadsheet":
                pages = self._sheets(body)
            else:
                pages = self._slides(body)
            return self._builder.document(
                self._name,
                _FORMATS[kind],
                pages=pages,
                metadata=self._metadata(),
                flags=tuple(self._flags()),
            )
        raise DataError("an OpenDocument file without a text", where=self._name, fix="copy it again")

    def _flags(self) -> Iterator[Flag]:
        hidden = {page: lines for page, lines in self._hidden.items() if any(lines)}
        if hidden:
            what = "Words that cannot be seen (hidden, as white as the paper, or tiny) were left out."
            text = "\n".join(line for lines in hidden.values() for line in lines if line)
            yield Flag("hidden_text", what, tuple(page for page in hidden if page), text)
        if self._left < 0:
            yield Flag("cut", f"Only the first {MAX_CELLS:,} cells were read.")

    def _new_texts(self) -> Texts:
        return Texts(self._styles, self._embedded)

    # Texts

    def _text(self, body: etree._Element) -> None:
        add, texts = self._builder.add, self._texts
        found = list(texts.blocks(body))
        for header in self._edges("header"):
            add(header, "header", place="header")
        paragraphs = tables = 0
        for block in found:
            if block.kind == "table":
                tables += bool(block.text)
                place = f"table {tables}"
            else:
                paragraphs += block.place is None and bool(block.text)
                place = block.place or f"paragraph {paragraphs}"
            kind = "paragraph" if block.kind == "code" else block.kind
            add(block.text, kind, level=block.level, place=place)
        for text, place in texts.notes:
            add(text, "note", place=place)
        for footer in self._edges("footer"):
            add(footer, "header", place="footer")
        for number, text in enumerate(texts.comments, 1):
            add(text, "comment", place=f"comment {number}")
        self._hidden[0] = texts.hidden

    def _edges(self, kind: str) -> list[str]:
        """Headers or footers, each text once."""
        found: dict[str, None] = {}
        for master in self._styles.masters.values():
            for name in (kind, f"{kind}-first", f"{kind}-left"):
                edge = master.find(STYLE + name)
                if edge is not None and edge.get(STYLE + "display") != "false":
                    found[self._texts.flat(edge)] = None
        return list(found)

    # Sheets

    def _sheets(self, body: etree._Element) -> int:
        pages = 0
        for pages, table in enumerate(body.findall(TABLE + "table"), 1):
            name = table.get(TABLE + "name", f"Sheet{pages}")
            cells, comments, hidden = self._cells(table)
            texts = self._new_texts()
            shapes = table.find(TABLE + "shapes")
            beside = [] if shapes is None else list(texts.blocks(shapes))
            blocks = [(region.text, region.place) for region in regions(cells)]
            if self._styles.is_hidden("table", table.get(TABLE + "style-name")):
                hidden += [text for text, _ in blocks] + [block.text for block in beside]
                blocks, beside, comments = [], [], []
            self._hidden[pages] = hidden + texts.hidden
            if blocks or beside:
                self._builder.add(name, "heading", page=pages, level=1, place=name)
            for text, place in blocks:
                self._builder.add(text, "table", page=pages, place=sheet_place(name, place))
            for block in beside:
                kind = "paragraph" if block.kind == "code" else block.kind
                self._builder.add(block.text, kind, page=pages, place=f"{name}, drawing")
            for text, place in comments:
                self._builder.add(text, "comment", page=pages, place=sheet_place(name, place))
        return pages

    def _cells(
        self, table: etree._Element
    ) -> tuple[dict[tuple[int, int], str], list[tuple[str, str]], list[str]]:
        """Texts by row and column, comments with their places, and what is hidden."""
        cells: dict[tuple[int, int], str] = {}
        comments: list[tuple[str, str]] = []
        hidden: list[str] = []
        columns = self._hidden_columns(table)
        row = 1
        for element in table_rows(table):
            times = _repeated(element, "rows")
            unseen = element.get(TABLE + "visibility", "visible") != "visible"
            column = 1
            found: list[tuple[int, int, str]] = []  # columns, half open, and what stands in each of them
            for cell in element:
                if cell.tag not in (TABLE + "table-cell", TABLE + "covered-table-cell"):
                    continue
                wide = _repeated(cell, "columns")
                if cell.tag == TABLE + "table-cell" and len(cell):
                    text, said = self._cell(cell, hidden)
                    place = coordinate(row, column)
                    if text and (unseen or column in columns):
                        hidden.append(text)
                    elif text:
                        found.append((column, column + wide, text))
                    comments += [(comment, place) for comment in said]
                column += wide
            for at in range(row, min(row + times, _MAX_ROW + 1)) if found else ():
                for begin, end, text in found:
                    for place in range(begin, min(end, _MAX_COLUMN + 1)):
                        self._left -= 1
                        if self._left < 0:
                            return cells, comments, hidden
                        cells[at, place] = text
            row += times
        return cells, comments, hidden

    def _cell(self, cell: etree._Element, hidden: list[str]) -> tuple[str, list[str]]:
        """The text of a cell, and its comments."""
        texts = self._new_texts()
        look = self._styles.look("table-cell", cell.get(TABLE + "style-name"), Look())
        lines: list[str] = []
        for child in cell:
            for block in texts.blocks([child], look.background or WHITE, look=look):
                lines.append(block.text)
        hidden += texts.hidden
        return " ".join(line for line in lines if line), texts.comments

    def _hidden_columns(self, table: etree._Element) -> set[int]:
        found: set[int] = set()
        column = 1
        for element in table.iter(TABLE + "table-column"):
            times = _repeated(element, "columns")
            if element.get(TABLE + "visibility", "visible") != "visible":
                found.update(range(column, min(column + times, _MAX_COLUMN + 1)))
            column = min(column + times, _MAX_COLUMN + 1)
        return found

    # Slides

    def _slides(self, body: etree._Element) -> int:
        pages = 0
        repeated: set[str] = set()
        for pages, slide in enumerate(body.findall(DRAW + "page"), 1):
            texts = self._new_texts()
            style = slide.get(DRAW + "style-name")
            master = self._styles.masters.get(slide.get(DRAW + "master-page-name", ""))
            names = [style, None if master is None else master.get(DRAW + "style-name")]
            paper = self._styles.paper(("drawing-page", name) for name in names if name)
            size = self._size(master)
            unseen: list[str] = []
            found: list[Found] = []
            for shape, block in self._on_slide(texts, master, paper) if master is not None else ():
                if shape.get(PRESENTATION + "class") is None and block.text not in repeated:
                    repeated.add(block.text)
                    found.append(Found(block.text, "header"))
            for shape, block in self._on_slide(texts, slide, paper):
                if size is not None and _outside(shape, size):
                    unseen.append(block.text)
                elif shape.get(PRESENTATION + "class") == "title":
                    found.insert(0, Found(" ".join(block.text.split()), "heading", 1))
                else:
                    found.append(block)
            notes = slide.find(PRESENTATION + "notes")
            for shape in () if notes is None else notes.iter(DRAW + "frame"):
                if shape.get(PRESENTATION + "class", "notes") == "notes":
                    found += [Found(block.text, "note") for block in texts.shape(shape, None)]
            if self._styles.is_hidden("drawing-page", style):
                unseen += [block.text for block in found]
                found, texts.comments = [], []
            self._hidden[pages] = [text for text in (*unseen, *texts.hidden) if text]
            for block in (*found, *(Found(text, "comment") for text in texts.comments)):
                place = f"slide {pages}" + (f", {block.kind}" if block.kind in ("note", "comment") else "")
                kind = "paragraph" if block.kind == "code" else block.kind
                self._builder.add(block.text, kind, page=pages, level=block.level, place=place)
        return pages

    def _on_slide(
        self, texts: Texts, page: etree._Element, paper: str | None
    ) -> Iterator[tuple[etree._Element, Found]]:
        """Each text with the shape, not in a group, that it stands in."""
        for shape in page:
            if not str(shape.tag).startswith(DRAW) and shape.tag not in ANNOTATIONS:
                continue
            texts.pictures |= next(shape.iter(DRAW + "image"), None) is not None
            for block in texts.blocks([shape], paper):
                yield shape, block
            if texts.fill(shape, paper) != paper:
                texts.pictures = True  # what follows may stand on it

    def _size(self, master: etree._Element | None) -> tuple[float, float] | None:
        """Of a slide, in points."""
        layout = (
            None if master is None else self._styles.layouts.get(master.get(STYLE + "page-layout-name", ""))
        )
        properties = None if layout is None else layout.find(STYLE + "page-layout-properties")
        if properties is None:
            return None
        width, height = (
            in_points(properties.get(FO + "page-width")),
            in_points(properties.get(FO + "page-height")),
        )
        return None if width is None or height is None else (width, height)

    # Parts

    def _bytes(self, member: str) -> bytes | None:
        return read_member(self._archive, member, self._name) if member in self._members else None

    def _xml(self, member: str) -> etree._Element:
        return parse_xml(read_member(self._archive, member, self._name), f"{self._name}: {member}")

    def _embedded(self, href: str) -> etree._Element | None:
        """The content of an object such as "./Object 1"."""
        member = posixpath.normpath(posixpath.join(href, "content.xml"))
        return self._xml(member) if member in self._members else None

    def _metadata(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if "meta.xml" in self._members:
            for element in self._xml("meta.xml").iter():
                key = _METADATA.get(str(element.tag))
                if key and element.text and element.text.strip():
                    found.setdefault(key, element.text.strip())
        return found


def _repeated(element: etree._Element, what: str) -> int:
    text = element.get(f"{TABLE}number-{what}-repeated", "1")
    return max(int(text), 1) if re.fullmatch(r"\d{1,9}", text) else 1


def _outside(shape: etree._Element, size: tuple[float, float]) -> bool:
    """Whether no part of a shape is on a slide of this size in points."""
    left, top = in_points(shape.get(SVG + "x")), in_points(shape.get(SVG + "y"))
    if left is None or top is None:
        return False
    width, height = in_points(shape.get(SVG + "width")) or 0.0, in_points(shape.get(SVG + "height")) or 0.0
    return left + width <= 0 or top + height <= 0 or left >= size[0] or top >= size[1]
