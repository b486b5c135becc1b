"""Lines in reading order as paragraphs, headings, list items, tables and code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import quantiles

from glasshouse.files.document import Kind
from glasshouse.files.line_breaks import Known, join, join_lines
from glasshouse.files.page_layout import Cell, Line
from glasshouse.files.pdf_words import Box

_BULLET = re.compile(r"[•‣◦▪■□●○∙·–—*-]\s")
_NUMBERED = re.compile(r"(?:\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]|\d{1,3}(?:\.\d{1,3})+\.?)\s")
_MARKER = re.compile(rf"(?:{_BULLET.pattern[:-2]}|{_NUMBERED.pattern[:-2]})$")
_BROKEN = re.compile(r"\w[-\u00ad\u2010]$")
_TERMINAL = re.compile(r"[.:;!?。！？][\"'”’)\]]*$")
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]]*$")
_CAPTION = re.compile(r"(?:table|figure|fig\.|listing|chart)\s*[\dIVX]+\s*[.:]", re.I)
_TITLED = re.compile(
    r"(?:article|section|chapter|part|exhibit|schedule|appendix|annex)\s+(?:\d|[ivxIVX]+\b|[A-Z]\b)", re.I
)
_LARGER = 1.12  # than the body: a heading
_MAX_HEADING = 200  # characters


@dataclass
class Paragraph:
    kind: Kind
    text: str
    box: Box
    size: float
    bold: bool
    region: int
    level: int | None = None


@dataclass(frozen=True)
class Body:
    """How most of a document is written."""

    size: float
    bold: bool
    fixed_pitch: bool

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Body:
        sizes: Counter[float] = Counter()
        bold = fixed = total = 0
        for line in lines:
            length = len(line.text)
            sizes[line.size] += length
            total += length
            bold += length * line.bold
            fixed += length * line.fixed_pitch
        size = sizes.most_common(1)[0][0] if sizes else 0.0
        return cls(size, 2 * bold > total, 2 * fixed > total)


def paragraphs_of(lines: Sequence[Line], body: Body, known: Known) -> list[Paragraph]:
    """The paragraphs of one page; its lines without those that run along its edges."""
    found: list[Paragraph] = []
    for region in _split(lines, lambda a, b: a.region != b.region):
        start = len(found)
        for stretch in _tables(region):
            if isinstance(stretch, _Table):
                found.append(stretch.paragraph(body))
                continue
            for group in _groups(stretch, body):
                found.append(_paragraph(group, body, known))
        if 0 < start < len(found) and goes_on(found[start - 1], found[start]):
            # The text goes on at the top of the next column.
            before, after = found[start - 1], found.pop(start)
            before.text = join(before.text, after.text, known)
            before.box = _union((before.box, after.box))
    return found


def goes_on(before: Paragraph, after: Paragraph) -> bool:
    """Whether the sentence at the end of one paragraph goes on in the next, on another page or column."""
    return (
        before.kind in ("paragraph", "list_item")
        and after.kind == "paragraph"
        and abs(before.size - after.size) < 0.1 * max(before.size, after.size)
        and not _SENTENCE_END.search(before.text)
        and (after.text[:1].islower() or before.text.endswith((",", "-", "\u00ad")))
    )


def set_levels(paragraphs: Iterable[Paragraph]) -> None:
    """Levels of a document's headings by their size, 1 the largest; those in bold alone come last."""
    headings = [paragraph for paragraph in paragraphs if paragraph.kind == "heading"]
    ranks = sorted({(-round(heading.size), not heading.bold) for heading in headings})
    for heading in headings:
        heading.level = min(ranks.index((-round(heading.size), not heading.bold)) + 1, 6)


# Paragraphs


def _groups(lines: Sequence[Line], body: Body) -> Iterator[list[Line]]:
    """The lines of each paragraph."""
    if not lines:
        return
    right = sorted(line.right for line in lines)[int(0.95 * (len(lines) - 1))]
    left = sorted(line.left for line in lines)[int(0.05 * (len(lines) - 1))]
    gaps = [a.baseline - b.baseline for a, b in pairwise(lines) if a.baseline > b.baseline]
    pitch = quantiles(gaps, n=10)[2] if len(gaps) > 1 else 1.2 * lines[0].size
    group = [lines[0]]
    for line in lines[1:]:
        if _breaks(group, line, left, right, pitch, body):
            yield group
            group = [line]
        else:
            group.append(line)
    yield group


def _breaks(group: list[Line], line: Line, left: float, right: float, pitch: float, body: Body) -> bool:
    """Whether a line begins a paragraph."""
    before = group[-1]
    em = max(before.size, line.size)
    gap = before.baseline - line.baseline
    if abs(before.size - line.size) > 0.12 * em or gap < -0.5 * em:
        return True
    if gap > max(1.3 * pitch, pitch + 0.25 * em) or gap > 3 * em:
        return True
    code = not body.fixed_pitch and before.fixed_pitch
    if code or (line.fixed_pitch and not body.fixed_pitch):
        return not (code and line.fixed_pitch)
    if _BROKEN.search(before.text):
        return False
    short = right - before.right > line.first_word + 1.3 * em  # the next word would have had room
    text = line.text
    if _BULLET.match(text):
        return True
    ended = bool(_TERMINAL.search(before.text))
    if _NUMBERED.match(text) and (short or ended):
        return True
    if before.bold != line.bold and (short or _is_heading(group, body)):
        return True
    if _is_heading(group, body):
        return False
    marked = bool(_marked(group[0].text))
    indent = line.left - before.left
    if indent > 0.8 * em and before.left - left < 0.8 * em and ended and not (marked and len(group) == 1):
        return True
    if indent < -0.8 * em and len(group) > 1 and ended:
        return True
    return short and (ended or not text[:1].islower()) and not _narrow(group, em)


def _narrow(group: list[Line], em: float) -> bool:
    """Whether the lines so far keep to a right edge of their own, as those of a set-off passage."""
    return (
        len(group) > 2
        and abs(group[-1].right - group[-2].right) < em
        and abs(group[-2].right - group[-3].right) < em
        and not _TERMINAL.search(group[-1].text)
    )


def _marked(text: str) -> bool:
    return bool(_BULLET.match(text) or _NUMBERED.match(text))


def _is_heading(group: Sequence[Line], body: Body) -> bool:
    """Whether lines are written as a heading: larger than the body, bold where that is not, in capitals."""
    if len(group) > 6:
        return False
    text = " ".join(line.text for line in group)
    if len(text) > _MAX_HEADING or text.endswith((",", ";")) or not any(letter.isalpha() for letter in text):
        return False
    larger = group[0].size > _LARGER * body.size
    bold = all(line.bold for line in group) and not body.bold and group[0].size > 0.9 * body.size
    titled = len(group) == 1 and len(text) <= 100 and (_TITLED.match(text) is not None or text.isupper())
    return larger or bold or titled


def _paragraph(group: list[Line], body: Body, known: Known) -> Paragraph:
    first = group[0]
    kind: Kind = "paragraph"
    if not body.fixed_pitch and all(line.fixed_pitch for line in group):
        kind, text = "code", _indented(group)
    else:
        text = join_lines((line.text for line in group), known)
        if _CAPTION.match(text):
            kind = "caption"
        elif _is_heading(group, body):
            kind = "heading"
        elif _marked(text):
            kind = "list_item"
    box = _union(line.box for line in group)
    level = 1 if kind == "list_item" else None
    return Paragraph(kind, text, box, first.size, all(line.bold for line in group), first.region, level)


def _indented(group: list[Line]) -> str:
    """Lines of code with their indentation."""
    left = min(line.left for line in group)
    width = 0.6 * group[0].size  # of a letter of most fixed-pitch fonts
    return "\n".join(" " * round((line.left - left) / width) + line.text for line in group)


def _union(boxes: Iterable[Box]) -> Box:
    boxes = list(boxes)
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def _split(lines: Sequence[Line], parts) -> Iterator[list[Line]]:
    group: list[Line] = []
    for line in lines:
        if group and parts(group[-1], line):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


# Tables


@dataclass
class _Table:
    lines: list[Line]

    def paragraph(self, body: Body) -> Paragraph:
        rows = [" | ".join(cell.text for cell in _numbered(line.cells)) for line in self.lines]
        first = self.lines[0]
        box = _union(line.box for line in self.lines)
        return Paragraph("table", "\n".join(rows), box, first.size, False, first.region)


def _cells(line: Line) -> tuple[Cell, ...]:
    """The cells of a line that may be a row of a table."""
    return _numbered(line.wide_cells())


def _numbered(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Cells with the number of a list item together with what it numbers."""
    first, *others = cells
    if others and _MARKER.match(first.text):
        return (Cell(f"{first.text} {others[0].text}", first.left, others[0].right), *others[1:])
    return cells


def _tables(lines: Sequence[Line]) -> Iterator[list[Line] | _Table]:
    """Stretches of ordinary lines, and tables between them: lines whose cells stand below each other."""
    plain: list[Line] = []
    rows: list[Line] = []

    def finish() -> Iterator[list[Line] | _Table]:
        nonlocal plain, rows
        width = max((len(_cells(row)) for row in rows), default=0)
        if sum(len(_cells(row)) > 1 for row in rows) >= (2 if width > 2 else 3):
            tail: list[Line] = []
            while len(_cells(rows[-1])) == 1:
                tail.insert(0, rows.pop())
            if plain:
                yield plain
            yield _Table(rows)
            plain = tail
        else:
            plain += rows
        rows = []

    for line in lines:
        if rows and not _below(rows, line):
            yield from finish()
        if rows or len(_cells(line)) > 1:
            rows.append(line)
        else:
            plain.append(line)
    yield from finish()
    if plain:
        yield plain


def _below(rows: list[Line], line: Line) -> bool:
    """Whether a line goes on with a table: its cells stand below others, or it is a short line within."""
    before, cells = rows[-1], _cells(line)
    if before.baseline - line.baseline > 4 * max(before.size, line.size) or before.turn != line.turn:
        return False
    if len(cells) == 1:
        left, right = min(row.left for row in rows[-9:]), max(row.right for row in rows[-9:])
        return len(_cells(before)) > 1 and cells[0].right - cells[0].left < 0.4 * (right - left)
    recent = [cell for row in rows[-3:] for cell in _cells(row)]
    return sum(any(_overlap(cell, other) for other in recent) for cell in cells) >= 2


def _overlap(a: Cell, b: Cell) -> bool:
    return a.left < b.right and b.left < a.right
