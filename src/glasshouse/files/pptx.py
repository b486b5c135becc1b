"""PowerPoint files (.pptx): slide by slide, with titles, lists, tables, charts, speaker notes and comments.

Slides are pages. A shape's text stands where the slide's own order of shapes has it, the title first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glasshouse.files.builder import Builder
from glasshouse.files.chart import A, C, chart_text
from glasshouse.files.document import Document, Flag, Kind
from glasshouse.files.docx_numbers import shown_number
from glasshouse.files.omml import M, math_text
from glasshouse.files.opc import Package
from glasshouse.files.pptx_colors import Colors, P, fill_of, transparent
from glasshouse.files.visibility import LEAST_POINTS, seen

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"

_TITLES = ("title", "ctrTitle")
_EDGES = ("dt", "ftr", "sldNum", "hdr")

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in English Metric Units (914,400 an inch)."""


_EVERYWHERE: Box = (-math.inf, -math.inf, math.inf, math.inf)
_MAX_COVERS = 1000  # pictures and filled shapes of a slide; with more, anything may stand on one


def read_pptx(data: bytes, name: str) -> Document:
    """The text of a PowerPoint file; page n is slide n.

    Hidden slides and shapes, shapes beside the slide, and words that are as their background, transparent or
    tiny are in a flag and not in the text. Raises DataError for a broken, encrypted or hostile file.
    """
    return _Reader(Package(data, name)).read()


@dataclass(frozen=True)
class _Found:
    text: str
    kind: Kind = "paragraph"
    level: int | None = None
    what: str | None = None  # "notes", "table 2", ...


@dataclass
class _Sheet:
    """A slide, and what it inherits from; a layout or a master too."""

    part: str
    above: tuple[etree._Element, ...]  # the layout and the master of a slide
    colors: Colors
    paper: str | None
    covered: list[Box] = field(default_factory=list)  # by pictures and filled shapes so far
    hidden: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # of a layout


@dataclass
class _Twins:
    """The shapes of a layout or a master that placeholders of a slide take their looks from."""

    by_index: dict[str | None, etree._Element] = field(default_factory=dict)
    by_kind: dict[str, etree._Element] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """How the coordinates within a group lie on the slide."""

    dx: float = 0.0
    dy: float = 0.0
    sx: float = 1.0
    sy: float = 1.0

    def box(self, transform: etree._Element | None) -> Box | None:
        size = None if transform is None else transform.find(A + "ext")
        begin = None if transform is None else transform.find(A + "off")
        if begin is None or size is None:
            return None
        left, top = self.dx + self.sx * _emu(begin, "x"), self.dy + self.sy * _emu(begin, "y")
        return left, top, left + self.sx * _emu(size, "cx"), top + self.sy * _emu(size, "cy")

    def within(self, transform: etree._Element | None) -> _Place:
        box = self.box(transform)
        begin = None if transform is None else transform.find(A + "chOff")
        size = None if transform is None else transform.find(A + "chExt")
        if box is None or begin is None or size is None:
            return self
        sx = (box[2] - box[0]) / (_emu(size, "cx") or 1)
        sy = (box[3] - box[1]) / (_emu(size, "cy") or 1)
        return _Place(box[0] - sx * _emu(begin, "x"), box[1] - sy * _emu(begin, "y"), sx, sy)


class _Reader:
    def __init__(self, package: Package) -> None:
        self._package = package
        self._main, root = package.main("presentation")
        self._inherited: dict[str, tuple[tuple[etree._Element, ...], Colors]] = {}
        self._layers: dict[tuple[str | None, ...], _Sheet] = {}
        self._twins: dict[int, _Twins] = {}  # by the id of a layout's or master's root, which is kept
        self._slides = [
            part
            for slide in root.iterfind(f"{P}sldIdLst/{P}sldId")
            if (part := package.target(self._main, slide.get(_R + "id"))) is not None
        ]
        size = root.find(P + "sldSz")
        self._size = (_emu(size, "cx"), _emu(size, "cy")) if size is not None else (9144000.0, 6858000.0)
        self._authors = dict(self._all_authors())

    def read(self) -> Document:
        builder = Builder()
        hidden: dict[int, list[str]] = {}
        repeated: set[str] = set()  # texts of layouts and masters, which stand on many slides
        for page, part in enumerate(self._slides, 1):
            found, left_out = self._slide(part, repeated)
            if left_out:
                hidden[page] = left_out
            for block in found:
                place = f"slide {page}" + (f", {block.what}" if block.what else "")
                builder.add(block.text, block.kind, page=page, level=block.level, place=place)
        flags = ()
        if hidden:
            what = (
                "Words that cannot be seen (hidden slides or shapes, beside the slide, tiny) were left out."
            )
            text = "\n".join(line for lines in hidden.values() for line in lines)
            flags = (Flag("hidden_text", what, tuple(hidden), text),)
        metadata = self._package.metadata()
        name = self._package.name
        return builder.document(name, "pptx", pages=len(self._slides), metadata=metadata, flags=flags)

    def _slide(self, part: str, repeated: set[str]) -> tuple[list[_Found], list[str]]:
        """What is shown, and what is hidden."""
        root = self._package.xml(part)
        above, colors = self._inherit(part)
        paper = colors.behind([root, *above])
        sheet = _Sheet(part, above, colors, paper)
        found: list[_Found] = []
        if root.get("showMasterSp") not in ("0", "false"):
            layer = self._layer(part, above, colors, paper)
            sheet.covered += layer.covered
            sheet.hidden += [text for text in layer.hidden if text not in repeated]
            repeated.update(layer.hidden)
            for text in layer.texts:
                if text not in repeated:
                    repeated.add(text)
                    found.append(_Found(text, "header", what="layout"))
        own = list(self._shapes(sheet, root.find(f"{P}cSld/{P}spTree"), _Place()))
        found += sorted(own, key=lambda block: block.kind != "heading")
        found += self._notes(part)
        if root.get("show") in ("0", "false"):
            return [], [*(block.text for block in found if block.text), *sheet.hidden]
        found += self._comments(part)
        return found, sheet.hidden

    def _layer(
        self, part: str, above: tuple[etree._Element, ...], colors: Colors, paper: str | None
    ) -> _Sheet:
        """What slides with the layout of this one show beneath their own shapes."""
        key = (*self._package.related(part, "slideLayout")[:1], paper)
        if key not in self._layers:
            layer = _Sheet(part, above, colors, paper)
            for root in reversed(above):
                tree = root.find(f"{P}cSld/{P}spTree")
                layer.texts += [found.text for found in self._shapes(layer, tree, _Place(), own=False)]
            self._layers[key] = layer
        return self._layers[key]

    def _inherit(self, part: str) -> tuple[tuple[etree._Element, ...], Colors]:
        """The layout and the master of a slide, and their colours."""
        layouts = self._package.related(part, "slideLayout")
        key = layouts[0] if layouts else ""
        if key not in self._inherited:
            masters = self._package.related(key, "slideMaster") if key else []
            themes = self._package.related(masters[0], "theme") if masters else []
            above = tuple(self._package.xml(found) for found in (*layouts[:1], *masters[:1]))
            theme = self._package.xml(themes[0]) if themes else None
            colors = Colors(theme, above[1] if len(above) > 1 else None)
            self._inherited[key] = (above, colors)
        return self._inherited[key]

    # Shapes

    def _shapes(
        self,
        sheet: _Sheet,
        tree: etree._Element | None,
        place: _Place,
        *,
        own: bool = True,
        gone: bool = False,
    ) -> Iterator[_Found]:
        """`own`: of the slide itself, not of what it inherits; `gone`: within a hidden group."""
        for shape in () if tree is None else tree:
            tag = shape.tag
            if tag == _MC + "AlternateContent":
                choice = shape.find(_MC + "Choice")
                choice = shape.find(_MC + "Fallback") if choice is None else choice
                yield from self._shapes(sheet, choice, place, own=own, gone=gone)
                continue
            if tag not in (P + "sp", P + "grpSp", P + "graphicFrame", P + "pic", P + "cxnSp"):
                continue
            about = next(shape.iter(P + "cNvPr"), None)
            hidden = gone or (about is not None and about.get("hidden") in ("1", "true"))
            if tag == P + "grpSp":
                inside = place.within(shape.find(f"{P}grpSpPr/{A}xfrm"))
                yield from self._shapes(sheet, shape, inside, own=own, gone=hidden)
                continue
            placeholder = shape.find(f"{P}nvSpPr/{P}nvPr/{P}ph") if tag == P + "sp" else None
            if not own and (placeholder is not None or tag == P + "graphicFrame"):
                continue  # a place to be filled: its words are a prompt that no one sees
            transform = (
                shape.find(P + "xfrm") if tag == P + "graphicFrame" else shape.find(f"{P}spPr/{A}xfrm")
            )
            if transform is None and placeholder is not None:
                transform = self._inherited_transform(sheet, placeholder)
            box = place.box(transform)
            found, unseen = self._shape(sheet, shape, placeholder, box)
            sheet.hidden += unseen
            if hidden or self._outside(box):
                sheet.hidden += [block.text for block in found if block.text]
            else:
                yield from found
            filled = fill_of(shape.find(P + "spPr"))
            styled = shape.find(f"{P}style/{A}fillRef")
            covers = filled is not None and filled.tag != A + "noFill"
            covers |= filled is None and styled is not None and styled.get("idx") != "0"
            if box is not None and (tag == P + "pic" or covers):
                full = len(sheet.covered) >= _MAX_COVERS
                sheet.covered[_MAX_COVERS:] = [_EVERYWHERE if full else box]

    def _outside(self, box: Box | None) -> bool:
        width, height = self._size
        return box is not None and (box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height)

    def _shape(
        self, sheet: _Sheet, shape: etree._Element, placeholder: etree._Element | None, box: Box | None
    ) -> tuple[list[_Found], list[str]]:
        if shape.tag == P + "graphicFrame":
            return self._graphic(sheet, shape)
        body = shape.find(P + "txBody")
        if body is None:
            return [], []
        fill = fill_of(shape.find(P + "spPr"))
        styled = shape.find(f"{P}style/{A}fillRef")
        if fill is not None and fill.tag != A + "noFill":
            behind = sheet.colors.of(fill)
        elif fill is None and styled is not None and styled.get("idx") != "0":
            behind = None
        else:
            behind = None if any(_overlap(box, other) for other in sheet.covered) else sheet.paper
        kind = "" if placeholder is None else placeholder.get("type", "obj")
        lines, unseen = self._lines(sheet, body, behind, self._list_styles(sheet, body, placeholder))
        if kind in _TITLES:
            text = " ".join(line.text for line in lines if line.text)
            return [_Found(text, "heading", 1)], unseen
        if kind in _EDGES:
            return [_Found(line.text, "header", what="footer") for line in lines], unseen
        return lines, unseen

    def _graphic(self, sheet: _Sheet, frame: etree._Element) -> tuple[list[_Found], list[str]]:
        """A table, a chart or a diagram."""
        for element in frame.iter(A + "tbl", C + "chart", _DIAGRAM + "relIds"):
            if element.tag == A + "tbl":
                return self._table(sheet, element)
            id = element.get(_R + ("id" if element.tag == C + "chart" else "dm"))
            part = self._package.target(sheet.part, id)
            if part is None:
                break
            root = self._package.xml(part)
            if element.tag == C + "chart":
                return [_Found(chart_text(root), "table", what="chart")], []
            lines = ("".join(text.text or "" for text in line.iter(A + "t")) for line in root.iter(A + "p"))
            return [_Found("\n".join(line for line in lines if line.strip()), what="diagram")], []
        return [], []

    def _table(self, sheet: _Sheet, table: etree._Element) -> tuple[list[_Found], list[str]]:
        rows: list[str] = []
        unseen: list[str] = []
        for row in table.findall(A + "tr"):
            cells: list[str] = []
            for cell in row.findall(A + "tc"):
                if any(cell.get(merged) in ("1", "true") for merged in ("hMerge", "vMerge")):
                    cells.append("")  # what stands there is not shown
                    continue
                body = cell.find(A + "txBody")
                if body is None:
                    cells.append("")
                    continue
                behind = sheet.colors.of(fill_of(cell.find(A + "tcPr")))
                lines, hidden = self._lines(sheet, body, behind, [])
                cells.append(" ".join(" ".join(line.text.split()) for line in lines if line.text))
                unseen += hidden
            if any(cells):
                rows.append(" | ".join(cells).rstrip(" |"))
        return [_Found("\n".join(rows), "table")], unseen

    # Words

    def _lines(
        self, sheet: _Sheet, body: etree._Element, behind: str | None, styles: list[etree._Element]
    ) -> tuple[list[_Found], list[str]]:
        """The paragraphs of a text body, and what of them cannot be seen."""
        found: list[_Found] = []
        unseen: list[str] = []
        counts: dict[
            int, tuple[str, int]
        ] = {}  # of numbered paragraphs: their form and last number, by level
        for paragraph in body.findall(A + "p"):
            own = paragraph.find(A + "pPr")
            depth = _small(own, "lvl", 0)
            chain = [style for level in styles if (style := level.find(f"{A}lvl{depth + 1}pPr")) is not None]
            chain = [own, *chain] if own is not None else chain
            shown, hidden = self._words(sheet, paragraph, behind, chain)
            if hidden.strip():
                unseen.append(hidden.strip())
            text = shown.strip()
            bullet = next((bullet for style in chain if (bullet := _bullet(style)) is not None), None)
            if not text:
                continue
            for deeper in [level for level in counts if level > depth]:
                del counts[deeper]
            if bullet is None or bullet.tag == A + "buNone":
                counts.pop(depth, None)
                found.append(_Found(text))
            elif bullet.tag == A + "buAutoNum":
                form, begin = bullet.get("type", "arabicPeriod"), _small(bullet, "startAt", 1)
                before = counts.get(depth)
                number = before[1] + 1 if before and before[0] == form else begin
                counts[depth] = (form, number)
                found.append(_Found(f"{_numbered(number, form)} {text}", "list_item", depth + 1))
            else:
                counts.pop(depth, None)
                found.append(_Found(text, "list_item", depth + 1))
        return found, unseen

    def _words(
        self, sheet: _Sheet, paragraph: etree._Element, behind: str | None, chain: list[etree._Element]
    ) -> tuple[str, str]:
        """The words of a paragraph that can be seen, and the others."""
        shown: list[str] = []
        hidden: list[str] = []
        defaults = [found for style in chain if (found := style.find(A + "defRPr")) is not None]
        for child in paragraph:
            if child.tag in (A + "r", A + "fld"):
                own = child.find(A + "rPr")
                looks = [own, *defaults] if own is not None else defaults
                fill = next((fill for look in looks if (fill := fill_of(look)) is not None), None)
                size = next((look.get("sz") for look in looks if look.get("sz")), None)
                points = int(size) / 100 if size and size.isdecimal() else LEAST_POINTS
                visible = not transparent(fill) and seen(sheet.colors.of(fill), behind, points)
                (shown if visible else hidden).append(child.findtext(A + "t") or "")
            elif child.tag == A + "br":
                shown.append("\n")
            else:
                shown += [math_text(math) for math in child.iter(M + "oMath")]
        return "".join(shown), "".join(hidden)

    # What a placeholder inherits

    def _list_styles(
        self, sheet: _Sheet, body: etree._Element, placeholder: etree._Element | None
    ) -> list[etree._Element]:
        """Where looks of paragraphs are named, the nearest first."""
        styles = [body.find(A + "lstStyle")]
        if placeholder is not None:
            for layer in sheet.above:
                twin = self._twin(layer, placeholder)
                styles.append(None if twin is None else twin.find(f"{P}txBody/{A}lstStyle"))
            kind = placeholder.get("type", "obj")
            name = "titleStyle" if kind in _TITLES else "otherStyle" if kind in _EDGES else "bodyStyle"
            styles += [layer.find(f"{P}txStyles/{P}{name}") for layer in sheet.above]
        return [style for style in styles if style is not None]

    def _inherited_transform(self, sheet: _Sheet, placeholder: etree._Element) -> etree._Element | None:
        for layer in sheet.above:
            twin = self._twin(layer, placeholder)
            transform = None if twin is None else twin.find(f"{P}spPr/{A}xfrm")
            if transform is not None:
                return transform
        return None

    def _twin(self, layer: etree._Element, placeholder: etree._Element) -> etree._Element | None:
        twins = self._twins.get(id(layer))
        if twins is None:
            twins = self._twins[id(layer)] = _Twins()
            for shape in layer.iter(P + "sp"):
                other = shape.find(f"{P}nvSpPr/{P}nvPr/{P}ph")
                if other is not None:
                    twins.by_kind.setdefault(other.get("type", "obj"), shape)
                    if layer.tag == P + "sldLayout":
                        twins.by_index.setdefault(other.get("idx"), shape)
        kind, index = placeholder.get("type", "obj"), placeholder.get("idx")
        if index is not None and index in twins.by_index:
            return twins.by_index[index]
        general = "title" if kind in _TITLES else "body" if kind in ("obj", "subTitle") else kind
        return twins.by_kind.get(kind, twins.by_kind.get(general))

    # What stands beside the slide

    def _notes(self, part: str) -> Iterator[_Found]:
        for notes in self._package.related(part, "notesSlide"):
            for shape in self._package.xml(notes).iter(P + "sp"):
                placeholder = shape.find(f"{P}nvSpPr/{P}nvPr/{P}ph")
                if placeholder is not None and placeholder.get("type") in (
                    "sldImg",
                    "sldNum",
                    "hdr",
                    "ftr",
                    "dt",
                ):
                    continue
                lines = ("".join(t.text or "" for t in line.iter(A + "t")) for line in shape.iter(A + "p"))
                text = "\n".join(line for line in lines if line.strip())
                yield _Found(text, "note", what="notes")

    def _comments(self, part: str) -> Iterator[_Found]:
        """Both of PowerPoint's forms: p:cm, and threads of p188:cm with replies."""
        for comments in self._package.related(part, "comments"):
            for element in self._package.xml(comments).iter():
                name = str(element.tag).rpartition("}")[2]
                if name not in ("cm", "reply"):
                    continue
                text = element.findtext(P + "text") or "\n".join(
                    "".join(t.text or "" for t in line.iter(A + "t"))
                    for child in element
                    if str(child.tag).endswith("}txBody")
                    for line in child.iter(A + "p")
                )
                author = self._authors.get(element.get("authorId", ""))
                yield _Found(f"{author}: {text}" if author and text else text, "comment", what="comment")

    def _all_authors(self) -> Iterator[tuple[str, str]]:
        for kind in ("commentAuthors", "authors"):
            for part in self._package.related(self._main, kind):
                for author in self._package.xml(part):
                    yield author.get("id", ""), author.get("name", "")


def _bullet(style: etree._Element) -> etree._Element | None:
    return next((child for child in style if str(child.tag) in _BULLETS), None)


_BULLETS = tuple(A + bullet for bullet in ("buNone", "buChar", "buAutoNum", "buBlip"))


def _numbered(number: int, form: str) -> str:
    """A number as DrawingML names its forms: "alphaLcParenR" is "a)"."""
    for begin, other in (
        ("alphaLc", "lowerLetter"),
        ("alphaUc", "upperLetter"),
        ("romanLc", "lowerRoman"),
        ("romanUc", "upperRoman"),
    ):
        if form.startswith(begin):
            shown = shown_number(number, other)
            break
    else:
        shown = str(number)
    if form.endswith("ParenBoth"):
        return f"({shown})"
    return shown + (")" if form.endswith("ParenR") else "." if form.endswith("Period") else "")


def _overlap(one: Box | None, other: Box) -> bool:
    if one is None:
        return True
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _emu(element: etree._Element, attribute: str) -> float:
    text = element.get(attribute, "")
    return float(text) if re.fullmatch(r"-?\d{1,15}", text) else 0.0


def _small(element: etree._Element | None, attribute: str, default: int) -> int:
    text = "" if element is None else element.get(attribute, "")
    return int(text) if re.fullmatch(r"\d{1,5}", text) else default
