"""Paragraphs, lists and tables of OpenDocument files, wherever they stand: a page, a cell, a slide."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glasshouse.files.document import Kind
from glasshouse.files.odf_styles import (
    CHART,
    DRAW,
    LEVELS,
    OFFICE,
    STYLE,
    TABLE,
    TEXT,
    Counter,
    Look,
    Styles,
)
from glasshouse.files.visibility import WHITE, hex_color, seen

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

DC = "{http://purl.org/dc/elements/1.1/}"
ANNOTATIONS = (OFFICE + "annotation", "{http://openoffice.org/2009/office}annotation")
_XLINK = "{http://www.w3.org/1999/xlink}"
_MATH = "{http://www.w3.org/1998/Math/MathML}"

_PLAIN = Look()

MAX_REPEATED = 10_000
"""Places that repeated rows and cells stand for, in all tables of a text."""

_MAX_EMPTY = 32  # empty cells in a row that are shown by their separators

_LEFT_OUT = {
    TEXT + tag for tag in ("tracked-changes", "sequence-decls", "number", "ruby-text", "bookmark-start")
} | {OFFICE + "forms", TABLE + "named-expressions"}

_SHAPES = {
    DRAW + tag
    for tag in (
        "frame",
        "custom-shape",
        "rect",
        "ellipse",
        "circle",
        "line",
        "polygon",
        "connector",
        "path",
        "caption",
    )
}


@dataclass(frozen=True)
class Found:
    text: str
    kind: Kind = "paragraph"
    level: int | None = None
    place: str | None = None


@dataclass
class _List:
    counter: Counter | None
    level: int
    start: str | None = None  # where the item that is open begins to count anew
    shown: bool = False  # whether the item that is open has shown its number


class Texts:
    """Reads the content of one file; `part` gives the root of an embedded object, None for none."""

    def __init__(self, styles: Styles, part: Callable[[str], etree._Element | None]) -> None:
        self._styles, self._part = styles, part
        self._outline = Counter(styles.outline)
        self._counters: dict[str, Counter] = {}  # by the id of a list, or its style
        self.hidden: list[str] = []
        self.notes: list[tuple[str, str]] = []  # text and place
        self.comments: list[str] = []
        self.repeats = MAX_REPEATED  # left for the tables of these texts
        self.pictures = False  # whether white words may stand on one

    def blocks(
        self,
        container: Iterable[etree._Element],
        behind: str | None = WHITE,
        within: _List | None = None,
        look: Look = _PLAIN,
    ) -> Iterator[Found]:
        """`behind`: the colour there, None where it is not known; `look`: of words without a style."""
        for child in container:
            tag = child.tag
            if tag in (TEXT + "p", TEXT + "h"):
                yield from self._paragraph(child, behind, within, look)
            elif tag == TEXT + "list":
                yield from self._list(child, behind, within)
            elif tag == TABLE + "table":
                yield from self._table(child, behind)
            elif tag == TEXT + "section" and child.get(TEXT + "display") == "none":
                self.hidden += [block.text for block in self.blocks(child, behind) if block.text]
            elif tag in ANNOTATIONS:
                self._comment(child)
            elif tag in _SHAPES:
                yield from self.shape(child, behind)
            elif tag not in _LEFT_OUT:
                yield from self.blocks(child, behind, within)

    def flat(self, container: etree._Element, behind: str | None = WHITE) -> str:
        return "\n".join(block.text for block in self.blocks(container, behind) if block.text)

    def shape(self, shape: etree._Element, behind: str | None) -> Iterator[Found]:
        """The words of a frame or a drawn shape."""
        fill = self.fill(shape, behind)
        for child in shape:
            if child.tag == DRAW + "object":
                yield from self._object(child)
                return  # what follows is a picture of it
            if child.tag == TABLE + "table":
                yield from self._table(child, fill)
            elif child.tag == DRAW + "image":
                self.pictures = True
            elif child.tag == DRAW + "text-box":
                yield from self.blocks(child, fill)
        direct = [child for child in shape if child.tag in (TEXT + "p", TEXT + "list")]
        if direct and shape.tag != DRAW + "frame":
            yield from self.blocks(shape, fill)

    def fill(self, shape: etree._Element, behind: str | None) -> str | None:
        for family, name in (("graphic", DRAW + "style-name"), ("presentation", "presentation")):
            style = shape.get(name) or shape.get(DRAW + "style-name")
            kind = self._styles.property(family, style, "graphic", DRAW + "fill")
            if kind == "solid":
                return hex_color(self._styles.property(family, style, "graphic", DRAW + "fill-color"))
            if kind not in (None, "none"):
                return None
        return None if self.pictures else behind

    # Paragraphs and lists

    def _paragraph(
        self, element: etree._Element, behind: str | None, within: _List | None, look: Look
    ) -> Iterator[Found]:
        style = element.get(TEXT + "style-name")
        look = self._styles.look("paragraph", style, look)
        line = _Line(behind)
        self._inline(element, look, line)
        if hidden := "".join(line.hidden).strip():
            self.hidden.append(hidden)
        text = "".join(line.text).strip()
        if element.tag == TEXT + "h":
            level = _count(element.get(TEXT + "outline-level"), 1)
            counted = element.get(TEXT + "is-list-header") != "true" and text and level <= LEVELS
            number = self._outline.next(level, element.get(TEXT + "start-value")) if counted else ""
            if within is not None and not number:
                number = self._number(within, text)
            yield Found(f"{number} {text}".strip() if text else "", "heading", level)
        elif within is not None:
            number = self._number(within, text)
            yield Found(f"{number} {text}" if number else text, "list_item", within.level)
        else:
            chain = self._styles.chain("paragraph", style)
            names = {
                (name or "").lower() for name in (style, *(found.get(STYLE + "name") for found in chain))
            }
            if "title" in names:
                yield Found(text, "heading", 1)
            else:
                yield Found(text, "caption" if "caption" in names else "paragraph")
        yield from line.boxes

    def _number(self, within: _List, text: str) -> str:
        """Of the first paragraph of an item with something in it."""
        if within.shown or not text or within.counter is None:
            return ""
        within.shown = True
        return within.counter.next(within.level, within.start)

    def _list(self, element: etree._Element, behind: str | None, within: _List | None) -> Iterator[Found]:
        level = min(1 if within is None else within.level + 1, LEVELS)
        name = element.get(TEXT + "style-name")
        if name is None and within is not None:
            counter = within.counter
        else:
            counter = Counter(self._styles.lists.get(name or ""))
            before = element.get(TEXT + "continue-list") or (
                f"style {name}" if element.get(TEXT + "continue-numbering") == "true" else ""
            )
            counter = self._counters.get(before, counter)
        for key in (element.get("{http://www.w3.org/XML/1998/namespace}id"), f"style {name}"):
            if key and counter is not None:
                self._counters[key] = counter
        for item in element:
            if item.tag == TEXT + "list-header":
                yield from self.blocks(item, behind, _List(None, level))
            elif item.tag == TEXT + "list-item":
                yield from self.blocks(item, behind, _List(counter, level, item.get(TEXT + "start-value")))

    # Tables

    def _table(self, table: etree._Element, behind: str | None) -> Iterator[Found]:
        cells = [cell for row in table_rows(table) for cell in row if cell.tag == TABLE + "table-cell"]
        if len(cells) == 1 and cells[0].get(TABLE + "number-columns-repeated", "1") == "1":
            look = self._styles.look("table-cell", cells[0].get(TABLE + "style-name"), Look())
            yield from self.blocks(cells[0], look.background or behind)  # a frame around a text
            return
        rows: list[list[str]] = []
        after: list[Found] = []
        for row in table_rows(table):
            texts: list[str] = []
            for cell in row:
                if cell.tag not in (TABLE + "table-cell", TABLE + "covered-table-cell"):
                    continue
                times = _count(cell.get(TABLE + "number-columns-repeated"), 1)
                if cell.tag == TABLE + "covered-table-cell":
                    texts += [""] * min(times, _MAX_EMPTY)
                    continue
                look = self._styles.look("table-cell", cell.get(TABLE + "style-name"), Look())
                found = list(self.blocks(cell, look.background or behind))
                after += [block for block in found if block.kind == "table"]
                words = (" ".join(block.text.split()) for block in found if block.kind != "table")
                text = " ".join(word for word in words if word)
                texts += [text] * (self._times(times) if text else min(times, _MAX_EMPTY))
            if any(texts):
                rows += [texts] * self._times(_count(row.get(TABLE + "number-rows-repeated"), 1), len(texts))
        yield Found("\n".join(" | ".join(row).rstrip(" |") for row in rows), "table")
        yield from after

    def _times(self, wanted: int, places: int = 1) -> int:
        """How often something that fills so many places is repeated: as often as it says, within bounds."""
        times = max(min(wanted, self.repeats // places + 1), 1)
        self.repeats -= (times - 1) * places
        return times

    # Words

    def _inline(self, element: etree._Element, look: Look, line: _Line) -> None:
        visible = not look.hidden and seen(look.color, look.background or line.behind, look.points)
        words = line.text if visible else line.hidden

        def add(text: str | None) -> None:
            if text:
                words.append(re.sub(r"[ \t\r\n]+", " ", text))

        add(element.text)
        for child in element:
            tag = child.tag
            if tag == TEXT + "s":
                words.append(" " * min(_count(child.get(TEXT + "c"), 1), 100))
            elif tag == TEXT + "tab":
                words.append("\t")
            elif tag == TEXT + "line-break":
                words.append("\n")
            elif tag == TEXT + "span":
                self._inline(child, self._styles.look("text", child.get(TEXT + "style-name"), look), line)
            elif tag == TEXT + "note":
                add(self._note(child, line.behind))
            elif tag in ANNOTATIONS:
                self._comment(child)
            elif tag in (TEXT + "hidden-text", TEXT + "hidden-paragraph"):
                if child.get(TEXT + "is-hidden") == "true":
                    line.hidden.append(child.get(TEXT + "string-value") or "".join(child.itertext()))
                else:
                    add("".join(child.itertext()))
            elif tag in _SHAPES:
                boxes = [replace(block, place="text box") for block in self.shape(child, line.behind)]
                inline = [block.text for block in boxes if block.kind == "code"]
                words += inline
                line.boxes += [block for block in boxes if block.kind != "code"]
            elif tag == DRAW + "g":
                line.boxes += [replace(block, place="text box") for block in self.blocks(child, line.behind)]
            elif tag not in _LEFT_OUT and isinstance(tag, str):
                self._inline(child, look, line)
            add(child.tail)

    def _note(self, note: etree._Element, behind: str | None) -> str:
        citation, body = note.find(TEXT + "note-citation"), note.find(TEXT + "note-body")
        mark = "" if citation is None else "".join(citation.itertext()).strip()
        if body is not None:
            text = self.flat(body, behind)
            kind = note.get(TEXT + "note-class", "footnote")
            self.notes.append((f"[{mark}] {text}", f"{kind} {mark}"))
        return f"[{mark}]"

    def _comment(self, annotation: etree._Element) -> None:
        author = annotation.findtext(DC + "creator", "").strip()
        words = Texts(self._styles, self._part)
        text = "\n".join(
            block.text
            for child in annotation
            if child.tag in (TEXT + "p", TEXT + "list")
            for block in words.blocks([child])
        ).strip()
        if text:
            self.comments.append(f"{author}: {text}" if author else text)

    def _object(self, element: etree._Element) -> Iterator[Found]:
        """An equation or a chart that is a part of its own."""
        root = next((child for child in element if str(child.tag).startswith(_MATH)), None)
        root = self._part(element.get(_XLINK + "href", "")) if root is None else root
        if root is None:
            return
        if root.tag == _MATH + "math":
            pieces = (
                text for child in root.iter() if child.tag != _MATH + "annotation" for text in [child.text]
            )
            yield Found(" ".join(text.strip() for text in pieces if text and text.strip()), "code")
        elif (chart := next(root.iter(CHART + "chart"), None)) is not None:
            titles = [
                " ".join("".join(child.itertext()).split())
                for child in chart.iter(CHART + "title", CHART + "subtitle")
            ]
            tables = [
                block.text for found in chart.iter(TABLE + "table") for block in self._table(found, None)
            ]
            yield Found("\n".join(text for text in (*titles, *tables) if text), "table")


class _Line:
    def __init__(self, behind: str | None) -> None:
        self.behind = behind
        self.text: list[str] = []
        self.hidden: list[str] = []
        self.boxes: list[Found] = []


def table_rows(table: etree._Element) -> Iterator[etree._Element]:
    """Of a table, also within groups of rows."""
    for child in table:
        if child.tag == TABLE + "table-row":
            yield child
        elif child.tag in (TABLE + "table-header-rows", TABLE + "table-rows", TABLE + "table-row-group"):
            yield from table_rows(child)


def _count(text: str | None, default: int) -> int:
    return max(int(text), 1) if text is not None and re.fullmatch(r"\d{1,9}", text) else default
