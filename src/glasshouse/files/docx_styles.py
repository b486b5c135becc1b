"""What the styles of a Word file say of a paragraph or a run: level, numbering, whether it is seen."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from glasshouse.files.visibility import hex_color

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"

_HIGHLIGHTS = {
    "black": "000000",
    "blue": "0000FF",
    "cyan": "00FFFF",
    "green": "00FF00",
    "magenta": "FF00FF",
    "red": "FF0000",
    "yellow": "FFFF00",
    "white": "FFFFFF",
    "darkBlue": "000080",
    "darkCyan": "008080",
    "darkGreen": "008000",
    "darkMagenta": "800080",
    "darkRed": "800000",
    "darkYellow": "808000",
    "darkGray": "808080",
    "lightGray": "C0C0C0",
}
_MAX_CHAIN = 20
"""Styles based on each other; a ring ends there too."""


def value(element: etree._Element | None, tag: str, attribute: str = "val") -> str | None:
    """An attribute of a child; None where one of them is missing."""
    child = None if element is None else element.find(W + tag)
    return None if child is None else child.get(W + attribute)


def number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,9}", text) else None


def is_on(element: etree._Element | None, tag: str) -> bool | None:
    """A property that is on or off; None where nothing is said."""
    child = None if element is None else element.find(W + tag)
    return None if child is None else child.get(W + "val") not in ("0", "false", "off", "none")


@dataclass(frozen=True)
class Look:
    """How a run looks, as far as it matters for being seen."""

    hidden: bool = False
    color: str | None = None
    points: float | None = None
    background: str | None = None

    def with_run(self, properties: etree._Element | None) -> Look:
        """What a w:rPr changes."""
        if properties is None:
            return self
        look = self
        if (hidden := is_on(properties, "vanish")) is not None:
            look = replace(look, hidden=hidden)
        if (color := properties.find(W + "color")) is not None:
            look = replace(look, color=_theme_color(color, "val", "themeColor"))
        if (size := number(value(properties, "sz"))) is not None:
            look = replace(look, points=size / 2)
        if (shade := shading(properties)) is not None:
            look = replace(look, background=shade)
        if (highlight := value(properties, "highlight")) in _HIGHLIGHTS:
            look = replace(look, background=_HIGHLIGHTS[highlight or ""])
        return look


def shading(properties: etree._Element | None) -> str | None:
    """The colour behind what a w:rPr, w:pPr or w:tcPr is of; None where it has none of its own."""
    shade = None if properties is None else properties.find(W + "shd")
    if shade is None:
        return None
    if shade.get(W + "val") == "solid":
        return _theme_color(shade, "color", "themeColor") or "000000"
    return _theme_color(shade, "fill", "themeFill")


def _theme_color(element: etree._Element, attribute: str, theme: str) -> str | None:
    written = hex_color(element.get(W + attribute))
    if written is None and element.get(W + theme) in ("background1", "light1"):
        return "FFFFFF"
    return written


@dataclass(frozen=True)
class ParagraphStyle:
    outline: int | None = None  # from 0; 9 is body text
    numbering: str | None = None  # w:numId
    depth: int | None = None  # w:ilvl
    owner: str | None = None  # the style that names the numbering
    look: Look = Look()


class Styles:
    """The styles of a file; `root` is None where it has no part for them."""

    def __init__(self, root: etree._Element | None) -> None:
        elements = [] if root is None else root.findall(W + "style")
        self._styles = {style.get(W + "styleId") or "": style for style in elements}
        self._default = next(
            (
                style.get(W + "styleId")
                for style in elements
                if style.get(W + "type") == "paragraph" and style.get(W + "default") in ("1", "true", "on")
            ),
            None,
        )
        defaults = None if root is None else root.find(f"{W}docDefaults/{W}rPrDefault/{W}rPr")
        self._look = Look().with_run(defaults)
        self.paragraph = cache(self._paragraph)
        self.shades = cache(self._shades)

    def _paragraph(self, style: str | None) -> ParagraphStyle:
        """Of a paragraph's style; None is the default style."""
        found = ParagraphStyle(look=self._look)
        for name, element in reversed(self._chain(style or self._default)):
            properties = element.find(W + "pPr")
            outline = number(value(properties, "outlineLvl"))
            if outline is None:
                outline = _named_level(element)
            if outline is not None:
                found = replace(found, outline=outline)
            numbers = None if properties is None else properties.find(W + "numPr")
            if numbers is not None:
                found = replace(
                    found,
                    numbering=value(numbers, "numId") or found.numbering,
                    depth=number(value(numbers, "ilvl")),
                    owner=name,
                )
            look = found.look.with_run(element.find(W + "rPr"))
            if (shade := shading(properties)) is not None:
                look = replace(look, background=shade)
            found = replace(found, look=look)
        return found

    def name(self, style: str | None) -> str:
        """Of a paragraph style, in small letters; Word's own are in English."""
        found = self._styles.get(style or self._default or "")
        return (value(found, "name") or "").lower()

    def run(self, look: Look, style: str | None) -> Look:
        """A look that a character style changes."""
        for _, element in reversed(self._chain(style)) if style else ():
            look = look.with_run(element.find(W + "rPr"))
        return look

    def _shades(self, style: str | None) -> bool:
        """Whether a table style puts a colour behind some of its cells."""
        return any(
            shade.get(W + "fill") not in (None, "auto", "FFFFFF", "ffffff")
            for _, element in self._chain(style)
            for shade in element.iter(W + "shd")
        )

    def numbering_of(self, style: str | None) -> str | None:
        """The w:numId of a numbering style."""
        for _, element in self._chain(style):
            if found := value(element.find(f"{W}pPr/{W}numPr"), "numId"):
                return found
        return None

    def _chain(self, style: str | None) -> list[tuple[str, etree._Element]]:
        """A style and what it is based on."""
        chain: list[tuple[str, etree._Element]] = []
        while style is not None and style in self._styles and len(chain) < _MAX_CHAIN:
            chain.append((style, self._styles[style]))
            style = value(self._styles[style], "basedOn")
        return chain


def _named_level(style: etree._Element) -> int | None:
    """Word writes the names of its own styles in English, whatever language it speaks."""
    name = (value(style, "name") or "").lower()
    if name == "title":
        return 0
    found = re.fullmatch(r"heading ([1-9])", name)
    return int(found[1]) - 1 if found else None
