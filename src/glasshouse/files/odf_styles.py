"""What the styles of an OpenDocument file say: how words look, how lists are numbered, what is hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from glasshouse.files.docx_numbers import shown_number
from glasshouse.files.visibility import hex_color

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

_BASE = "{urn:oasis:names:tc:opendocument:xmlns:"
OFFICE, STYLE, TEXT, TABLE, DRAW, PRESENTATION, CHART = (
    f"{_BASE}{name}:1.0}}"
    for name in ("office", "style", "text", "table", "drawing", "presentation", "chart")
)
FO, SVG = f"{_BASE}xsl-fo-compatible:1.0}}", f"{_BASE}svg-compatible:1.0}}"

_FORMS = {"1": "decimal", "a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
_MAX_CHAIN = 20
LEVELS = 10


@dataclass(frozen=True)
class Look:
    hidden: bool = False
    color: str | None = None
    points: float | None = None
    background: str | None = None


class Styles:
    """Of the roots of content.xml and styles.xml, the nearer ones first."""

    def __init__(self, roots: list[etree._Element]) -> None:
        self._styles: dict[tuple[str, str], etree._Element] = {}
        self._defaults: dict[str, etree._Element] = {}
        self.look = cache(self._look)
        self.lists: dict[str, etree._Element] = {}
        self.outline: etree._Element | None = None
        self.masters: dict[str, etree._Element] = {}
        self.layouts: dict[str, etree._Element] = {}
        for root in roots:
            for element in root.iter():
                tag, name = element.tag, element.get(STYLE + "name", "")
                if tag == STYLE + "style":
                    self._styles.setdefault((element.get(STYLE + "family", ""), name), element)
                elif tag == STYLE + "default-style":
                    self._defaults.setdefault(element.get(STYLE + "family", ""), element)
                elif tag == TEXT + "list-style":
                    self.lists.setdefault(name, element)
                elif tag == TEXT + "outline-style":
                    self.outline = element
                elif tag == STYLE + "master-page":
                    self.masters.setdefault(name, element)
                elif tag == STYLE + "page-layout":
                    self.layouts.setdefault(name, element)

    def chain(self, family: str, name: str | None) -> list[etree._Element]:
        """A style and what it inherits from, the nearest first."""
        found: list[etree._Element] = []
        while name and (style := self._styles.get((family, name))) is not None and len(found) < _MAX_CHAIN:
            found.append(style)
            name = style.get(STYLE + "parent-style-name")
        default = self._defaults.get(family)
        return found if default is None else [*found, default]

    def property(self, family: str, name: str | None, group: str, attribute: str) -> str | None:
        """An attribute of the nearest `style:<group>-properties` that has it."""
        for style in self.chain(family, name):
            properties = style.find(f"{STYLE}{group}-properties")
            if properties is not None and (value := properties.get(attribute)) is not None:
                return value
        return None

    def _look(self, family: str, name: str | None, before: Look) -> Look:
        """`before` with what a style of a paragraph, a span or a cell changes."""
        look = before
        for style in reversed(self.chain(family, name)):
            for group in ("paragraph", "table-cell", "text"):
                properties = style.find(f"{STYLE}{group}-properties")
                if properties is not None:
                    look = _changed(look, properties)
        return look

    def is_hidden(self, family: str, name: str | None) -> bool:
        """Whether a table or a slide is not shown at all."""
        if family == "table":
            return self.property("table", name, "table", TABLE + "display") == "false"
        return self.property(family, name, "drawing-page", PRESENTATION + "visibility") == "hidden"

    def paper(self, names: Iterator[tuple[str, str | None]]) -> str | None:
        """The colour of a slide: that of the first of styles with a fill; None where it is a picture."""
        for family, name in names:
            fill = self.property(family, name, "drawing-page", DRAW + "fill")
            if fill == "solid":
                return hex_color(self.property(family, name, "drawing-page", DRAW + "fill-color"))
            if fill not in (None, "none"):
                return None
        return "FFFFFF"


def _changed(look: Look, properties: etree._Element) -> Look:
    if (display := properties.get(TEXT + "display")) is not None:
        look = replace(look, hidden=display == "none")
    if (color := properties.get(FO + "color")) is not None:
        look = replace(look, color=hex_color(color))
    if properties.get(STYLE + "use-window-font-color") == "true":
        look = replace(look, color=None)
    if (size := points(properties.get(FO + "font-size"))) is not None:
        look = replace(look, points=size)
    if (background := hex_color(properties.get(FO + "background-color"))) is not None:
        look = replace(look, background=background)
    return look


def points(length: str | None) -> float | None:
    """A length such as "2.5cm" in points; None for a share of something else."""
    found = re.fullmatch(r"(-?\d{1,9}(?:\.\d{1,9})?)(pt|cm|mm|in|px|pc)", length or "")
    if found is None:
        return None
    unit = {"pt": 1.0, "cm": 72 / 2.54, "mm": 7.2 / 2.54, "in": 72.0, "px": 0.75, "pc": 12.0}[found[2]]
    return float(found[1]) * unit


class Counter:
    """Counts through the items of one list, or through the headings of a text."""

    def __init__(self, style: etree._Element | None) -> None:
        self.style = style
        self._counts: list[int | None] = [None] * (LEVELS + 1)

    def next(self, level: int, start: str | None = None) -> str:
        """What stands before the next item of a level from 1: "2.1", or "" for a bullet."""
        definition = self._definition(level)
        before = self._counts[level]
        if start is not None and start.isdecimal():
            self._counts[level] = int(start[:9])
        elif before is None:
            self._counts[level] = _start(definition)
        else:
            self._counts[level] = before + 1
        for deeper in range(level + 1, LEVELS + 1):
            self._counts[deeper] = None
        if definition is None or not definition.get(STYLE + "num-format"):
            return ""
        shown = definition.get(TEXT + "display-levels", "1")
        first = max(level - int(shown) + 1, 1) if shown.isdecimal() else level
        numbers: list[str] = []
        for place in range(first, level + 1):
            at = self._definition(place)
            form = "" if at is None else at.get(STYLE + "num-format", "")
            count = self._counts[place]
            if count is None:  # a level that was skipped counts as begun
                count = self._counts[place] = _start(at)
            if form:
                numbers.append(shown_number(count, _FORMS.get(form, "decimal")))
        prefix, suffix = definition.get(STYLE + "num-prefix", ""), definition.get(STYLE + "num-suffix", "")
        return (prefix + ".".join(numbers) + suffix).strip()

    def _definition(self, level: int) -> etree._Element | None:
        for child in () if self.style is None else self.style:
            if child.get(TEXT + "level") == str(level):
                return child
        return None


def _start(definition: etree._Element | None) -> int:
    start = "1" if definition is None else definition.get(TEXT + "start-value", "1")
    return int(start[:9]) if start.isdecimal() else 1
