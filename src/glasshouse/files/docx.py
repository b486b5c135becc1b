"""Word files (.docx): paragraphs, lists, tables, notes and comments in the order of the text.

A Word file has no pages of its own: a place is "paragraph 12" or "table 2", counted without empty ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.chart import A, C, chart_text
from glasshouse.files.document import Document, Flag, Kind
from glasshouse.files.docx_numbers import Numbers, shown_number
from glasshouse.files.docx_styles import Look, Styles, W, is_on, number, shading, value
from glasshouse.files.omml import M, math_text
from glasshouse.files.opc import Package
from glasshouse.files.visibility import WHITE, hex_color, seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml import etree  # type: ignore[attr-defined]

R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_VML = "{urn:schemas-microsoft-com:vml}"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"

_LEFT_OUT = {W + tag for tag in ("del", "moveFrom", "pPr", "rPr", "sdtPr", "sdtEndPr", "rt", "rubyPr")}
"""Deletions that are tracked, and properties; of a ruby the reading."""

_SIGNS = {
    W + "tab": "\t",
    W + "ptab": "\t",
    W + "br": "\n",
    W + "cr": "\n",
    W + "noBreakHyphen": "-",
}

_MAX_SPAN = 32
"""Columns that a merged cell is shown to cover."""

_WINGDINGS = {
    0x6F: "☐",
    0x71: "☐",
    0x78: "☒",
    0xA7: "▪",
    0xA8: "☐",
    0xE0: "→",
    0xFB: "✗",
    0xFC: "✓",
    0xFE: "☑",
}
_SYMBOL = {
    **dict(zip(b"abcdefghijklmnopqrstuvwxyz", "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True)),
    **dict(zip(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", strict=True)),
    0xA3: "≤",
    0xB0: "°",
    0xB1: "±",
    0xB3: "≥",
    0xB4: "×",
    0xB7: "•",
    0xB9: "≠",
    0xBB: "≈",
    0xD6: "√",
}
"""Fonts with signs of their own at the places of letters."""


def read_docx(data: bytes, name: str) -> Document:
    """The text of a Word file. Headings and numbered paragraphs have the number that Word shows.

    Tracked insertions are in, deletions are not. Comments, foot- and endnotes stand after the text, page
    headers before it and footers last. Hidden words are in a flag and not in the text. Raises DataError for a
    broken, encrypted or hostile file.
    """
    return _Reader(Package(data, name)).read()


@dataclass(frozen=True)
class _Found:
    text: str
    kind: Kind = "paragraph"
    level: int | None = None
    place: str | None = None


class _Reader:
    def __init__(self, package: Package) -> None:
        self._package = package
        self._part, self._root = package.main("document")
        self._styles = Styles(self._related("styles"))
        self._numbers = Numbers(self._related("numbering"), self._styles)
        self._settings = self._related("settings")
        self._fields: list[bool] = []  # of each field that is open: whether its result has begun
        self._notes: list[tuple[str, str]] = []  # kind and id, as they are pointed at
        self._marks: Counter[str] = Counter()  # how many notes of a kind
        self._hidden: list[str] = []
        self._foreign = 0  # parts of other formats
        self._sections: list[etree._Element] = []
        self._pictures = False

    def read(self) -> Document:
        root = self._root
        body = root.find(W + "body")
        if body is None:
            raise DataError("a Word file without a text", where=self._package.name, fix="copy it again")
        self._pictures = next(root.iter(A + "blip"), None) is not None
        found = list(self._blocks(body, self._paper(root)))
        builder = Builder()
        for text in self._edges("header"):
            builder.add(text, "header", place="header")
        paragraphs = tables = 0
        for block in found:
            if block.kind == "table":
                tables += bool(block.text)
                place = f"table {tables}"
            else:
                paragraphs += block.place is None and bool(block.text)
                place = block.place or f"paragraph {paragraphs}"
            builder.add(block.text, block.kind, level=block.level, place=place)
        for text, place in self._all_notes():
            builder.add(text, "note", place=place)
        for text in self._edges("footer"):
            builder.add(text, "header", place="footer")
        for place, text in enumerate(self._comments(), 1):
            builder.add(text, "comment", place=f"comment {place}")
        return builder.document(
            self._package.name, "docx", metadata=self._package.metadata(), flags=tuple(self._flags())
        )

    def _flags(self) -> Iterator[Flag]:
        if self._hidden:
            what = "Words that cannot be seen (hidden, as white as the paper, or tiny) were left out."
            yield Flag("hidden_text", what, text="\n".join(self._hidden))
        if self._foreign:
            yield Flag("broken", f"{self._foreign} embedded parts of another format were not read.")

    def _related(self, kind: str) -> etree._Element | None:
        parts = self._package.related(self._part, kind)
        return self._package.xml(parts[0]) if parts else None

    def _paper(self, root: etree._Element) -> str | None:
        """The colour of the page."""
        if is_on(self._settings, "displayBackgroundShape") and root.find(W + "background") is not None:
            return hex_color(value(root, "background", "color"))
        return WHITE

    # Blocks

    def _blocks(self, container: etree._Element, behind: str | None) -> Iterator[_Found]:
        """What stands in a body, a cell, a note or a text box; `behind` is the colour there."""
        carried = ""  # of paragraphs whose end was deleted: they run on into the next
        for child in container:
            tag = child.tag
            if tag == W + "p":
                block, boxes = self._paragraph(child, behind)
                text = carried + block.text
                if is_on(child.find(f"{W}pPr/{W}rPr"), "del"):
                    carried = text
                else:
                    carried = ""
                    yield replace(block, text=text.strip())
                for box in boxes:
                    yield from box
                if (section := child.find(f"{W}pPr/{W}sectPr")) is not None:
                    self._sections.append(section)
            elif tag == W + "tbl":
                yield from self._table(child, behind)
            elif tag == W + "sectPr":
                self._sections.append(child)
            elif tag == W + "altChunk":
                self._foreign += 1
            elif tag == _MC + "AlternateContent":
                yield from self._blocks(_chosen(child), behind)
            elif tag in (M + "oMathPara", M + "oMath"):
                yield _Found(math_text(child))
            elif tag not in _LEFT_OUT and tag != W + "tcPr":
                yield from self._blocks(child, behind)
        if carried:
            yield _Found(carried)

    def _paragraph(self, paragraph: etree._Element, behind: str | None) -> tuple[_Found, list[list[_Found]]]:
        """A paragraph, and the text boxes and charts that hang on it."""
        properties = paragraph.find(W + "pPr")
        name = value(properties, "pStyle")
        style = self._styles.paragraph(name)
        before = self._number(properties, name)
        look = style.look
        if (shade := shading(properties)) is not None:
            look = replace(look, background=shade)
        line = _Line(behind)
        self._inline(paragraph, look, line)
        self._fields = [begun for begun in self._fields if begun]  # no instruction goes beyond its paragraph
        if hidden := "".join(line.hidden).strip():
            self._hidden.append(hidden)
        text = "".join(line.text).lstrip()
        outline = number(value(properties, "outlineLvl"))
        outline = style.outline if outline is None else outline
        number_shown = before[0] + " " if before and before[0] and text.strip() else ""
        if outline is not None and 0 <= outline < 9:
            return _Found(number_shown + text, "heading", outline + 1), line.boxes
        if before is not None:
            return _Found(number_shown + text, "list_item", before[1] + 1), line.boxes
        kind: Kind = "caption" if self._styles.name(name) == "caption" else "paragraph"
        return _Found(text, kind), line.boxes

    def _number(self, properties: etree._Element | None, name: str | None) -> tuple[str, int] | None:
        style = self._styles.paragraph(name)
        own = None if properties is None else properties.find(W + "numPr")
        numbering, depth, owner = style.numbering, style.depth, style.owner
        if own is not None:
            numbering = value(own, "numId") or numbering
            written = number(value(own, "ilvl"))
            depth = written if written is not None else (depth or 0)
            owner = None
        elif depth == 0 and style.outline is not None:
            depth = None  # Word leaves the level of a heading's style to the list that names it
        if numbering in (None, "0"):
            return None
        return self._numbers.next(numbering or "", depth, owner)

    def _table(self, table: etree._Element, behind: str | None) -> Iterator[_Found]:
        properties = table.find(W + "tblPr")
        own = shading(properties)
        if own is None and self._styles.shades(value(properties, "tblStyle")):
            behind = None  # which cells the style colours depends on their place
        behind = own or behind
        rows: list[list[str]] = []
        after: list[_Found] = []
        cells = [(row, cell) for row in _children(table, "tr") for cell in _children(row, "tc")]
        if len(cells) == 1:  # a frame around a text
            yield from self._blocks(cells[0][1], shading(cells[0][1].find(W + "tcPr")) or behind)
            return
        for row in _children(table, "tr"):
            about = row.find(W + "trPr")
            if about is not None and about.find(W + "del") is not None:
                continue
            texts = [""] * min(number(value(about, "gridBefore")) or 0, _MAX_SPAN)
            for cell in _children(row, "tc"):
                tc = cell.find(W + "tcPr")
                wide = min(max(number(value(tc, "gridSpan")) or 1, 1), _MAX_SPAN)
                found = list(self._blocks(cell, shading(tc) or behind))
                if _goes_on(tc):
                    found = []  # Word shows what stands in the first of the merged cells
                after += [block for block in found if block.kind == "table"]
                words = (" ".join(block.text.split()) for block in found if block.kind != "table")
                texts += [" ".join(word for word in words if word), *[""] * (wide - 1)]
            if is_on(about, "hidden"):
                self._hidden += [" | ".join(text for text in texts if text)]
            elif any(texts):
                rows.append(texts)
        yield _Found("\n".join(" | ".join(row).rstrip(" |") for row in rows), "table")
        yield from after

    # Words

    def _inline(self, element: etree._Element, look: Look, line: _Line) -> None:
        for child in element:
            tag = child.tag
            if tag == W + "r":
                properties = child.find(W + "rPr")
                style = value(properties, "rStyle")
                self._run(child, self._styles.run(look, style).with_run(properties), line)
            elif tag in (M + "oMath", M + "oMathPara"):
                line.text.append(math_text(child))
            elif tag == _MC + "AlternateContent":
                self._inline(_chosen(child), look, line)
            elif tag not in _LEFT_OUT:
                self._inline(child, look, line)

    def _run(self, run: etree._Element, look: Look, line: _Line) -> None:
        behind = look.background or line.behind
        shown = not look.hidden and seen(look.color, behind, look.points)
        words = line.text if shown else line.hidden
        for child in run:
            tag = child.tag
            if tag == W + "fldChar":
                self._field(child, words)
            elif not all(self._fields):
                continue  # the instruction of a field
            elif tag == W + "t":
                words.append(child.text or "")
            elif tag in _SIGNS:
                words.append(_SIGNS[tag])
            elif tag == W + "sym":
                words.append(_symbol(child))
            elif tag in (W + "footnoteReference", W + "endnoteReference"):
                words.append(self._note(child, str(tag).removeprefix(W).removesuffix("Reference")))
            elif tag == _MC + "AlternateContent":
                self._run(_chosen(child), look, line)
            elif tag in (W + "drawing", W + "pict", W + "object"):
                boxes = list(self._drawn(child, behind))
                if shown:
                    line.boxes += boxes
                else:
                    line.hidden += [block.text for box in boxes for block in box]
            elif tag == W + "ruby":
                self._inline(child, look, line)

    def _field(self, char: etree._Element, words: list[str]) -> None:
        kind = char.get(W + "fldCharType")
        if kind == "begin":
            box = char.find(f"{W}ffData/{W}checkBox")
            if box is not None and all(self._fields):
                checked = is_on(box, "checked")
                words.append("☒" if (is_on(box, "default") if checked is None else checked) else "☐")
            self._fields.append(False)
        elif kind == "separate" and self._fields:
            self._fields[-1] = True
        elif kind == "end" and self._fields:
            self._fields.pop()

    def _drawn(self, drawing: etree._Element, behind: str | None) -> Iterator[list[_Found]]:
        """Text boxes, charts and diagrams."""
        for element in _outermost(drawing):
            if element.tag == W + "txbxContent":
                found = list(self._blocks(element, self._fill(element, behind)))
                yield [replace(block, place=block.place or "text box") for block in found]
            elif element.tag == C + "chart":
                part = self._package.target(self._part, element.get(R + "id"))
                if part is not None:
                    yield [_Found(chart_text(self._package.xml(part)), "table")]
            elif element.tag == _DIAGRAM + "relIds":
                part = self._package.target(self._part, element.get(R + "dm"))
                if part is not None:
                    lines = self._package.xml(part).iter(A + "p")
                    text = "\n".join("".join(t.text or "" for t in line.iter(A + "t")) for line in lines)
                    yield [_Found(text, place="diagram")]
            else:
                yield [_Found(element.get("string", ""), place="text box")]

    def _fill(self, box: etree._Element, behind: str | None) -> str | None:
        """The colour of a text box; None where it cannot be told, as above a picture."""
        for shape in box.iterancestors():
            if shape.tag == W + "drawing":
                break
            if str(shape.tag).startswith(_VML):
                if shape.get("filled") in ("f", "false"):
                    break
                color = (shape.get("fillcolor") or "white").split(" ")[0]
                return WHITE if color == "white" else hex_color(color)
            for properties in shape:
                if not str(properties.tag).endswith("}spPr"):
                    continue
                fill = properties.find(A + "solidFill")
                if fill is not None:
                    scheme = fill.find(A + "schemeClr")
                    if scheme is not None and len(scheme) == 0 and scheme.get("val") == "bg1":
                        return WHITE
                    color = fill.find(A + "srgbClr")
                    return None if color is None else hex_color(color.get("val"))
                if properties.find(A + "noFill") is None:
                    return None
        return None if self._pictures else behind

    # What stands beside the text

    def _note(self, reference: etree._Element, kind: str) -> str:
        if reference.get(W + "customMarkFollows") in ("1", "true", "on"):
            return ""
        self._notes.append((kind, reference.get(W + "id") or ""))
        self._marks[kind] += 1
        return f"[{self._mark(kind, self._marks[kind])}]"

    def _mark(self, kind: str, count: int) -> str:
        form = None if self._settings is None else value(self._settings.find(f"{W}{kind}Pr"), "numFmt")
        return shown_number(count, form or ("decimal" if kind == "footnote" else "lowerRoman"))

    def _all_notes(self) -> Iterator[tuple[str, str]]:
        """Foot- and endnotes in the order of their marks; those without a mark of Word's last."""
        pointed = list(self._notes)
        for kind in ("footnote", "endnote"):
            for part in self._package.related(self._part, kind + "s"):
                notes = {
                    note.get(W + "id"): note
                    for note in self._package.xml(part).findall(W + kind)
                    if note.get(W + "type", "normal") == "normal"
                }
                main, self._part = self._part, part
                for count, id in enumerate((id for found, id in pointed if found == kind), 1):
                    mark = self._mark(kind, count)
                    if (note := notes.pop(id, None)) is not None:
                        yield f"[{mark}] {self._flat(note)}", f"{kind} {mark}"
                for note in notes.values():
                    yield self._flat(note), kind
                self._part = main

    def _edges(self, kind: str) -> list[str]:
        """Headers or footers that some page shows, each text once."""
        texts: dict[str, None] = {}
        read: set[str] = set()
        for section in self._sections:
            for reference in section.findall(f"{W}{kind}Reference"):
                which = reference.get(W + "type")
                if which == "first" and not is_on(section, "titlePg"):
                    continue
                if which == "even" and not is_on(self._settings, "evenAndOddHeaders"):
                    continue
                part = self._package.target(self._part, reference.get(R + "id"))
                if part is None or part in read:
                    continue
                read.add(part)
                main, self._part = self._part, part
                texts[self._flat(self._package.xml(part))] = None
                self._part = main
        return list(texts)

    def _comments(self) -> Iterator[str]:
        for part in self._package.related(self._part, "comments"):
            main, self._part = self._part, part
            for comment in self._package.xml(part).findall(W + "comment"):
                author, text = (comment.get(W + "author") or "").strip(), self._flat(comment)
                yield f"{author}: {text}" if author and text else text
            self._part = main

    def _flat(self, container: etree._Element) -> str:
        texts = [block.text for block in self._blocks(container, WHITE)]
        return "\n".join(text for text in texts if text)


class _Line:
    """What is gathered of a paragraph."""

    def __init__(self, behind: str | None) -> None:
        self.behind = behind
        self.text: list[str] = []
        self.hidden: list[str] = []
        self.boxes: list[list[_Found]] = []


def _chosen(alternatives: etree._Element) -> etree._Element:
    """The newest of several forms of the same content; Word shows one."""
    choice = alternatives.find(_MC + "Choice")
    fallback = alternatives.find(_MC + "Fallback")
    return next((found for found in (choice, fallback) if found is not None), alternatives)


def _children(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    """Rows of a table or cells of a row, also within content controls and tracked insertions."""
    for child in parent:
        if child.tag == W + tag:
            yield child
        elif child.tag in (W + "sdt", W + "sdtContent", W + "customXml", W + "ins", W + "moveTo"):
            yield from _children(child, tag)


def _goes_on(properties: etree._Element | None) -> bool:
    """Whether a cell is merged with the one above it or before it."""
    return any(
        properties is not None
        and properties.find(W + merge) is not None
        and value(properties, merge) in (None, "continue")
        for merge in ("vMerge", "hMerge")
    )


def _outermost(drawing: etree._Element) -> Iterator[etree._Element]:
    """Text boxes, charts, diagrams and lettering of a drawing, not those within a text box."""
    wanted = (W + "txbxContent", C + "chart", _DIAGRAM + "relIds", _VML + "textpath")
    for child in drawing:
        if child.tag in wanted:
            yield child
        elif child.tag == _MC + "AlternateContent":
            yield from _outermost(_chosen(child))
        else:
            yield from _outermost(child)


def _symbol(element: etree._Element) -> str:
    try:
        code = int(element.get(W + "char") or "", 16)
    except ValueError:
        return ""
    if not 0xF000 <= code <= 0xF0FF:
        return chr(code) if 0x20 <= code < 0xD800 else ""
    font = element.get(W + "font") or ""
    table = _WINGDINGS if font.startswith("Wingdings") else _SYMBOL if font == "Symbol" else {}
    return table.get(code - 0xF000, "")
