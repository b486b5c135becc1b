"""The colours of a slide, as far as they are needed to tell whether words can be seen on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glasshouse.files.chart import A
from glasshouse.files.visibility import hex_color

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"

_MAPPED = {"bg1": "lt1", "tx1": "dk1", "bg2": "lt2", "tx2": "dk2"}
_FILLS = tuple(A + fill for fill in ("solidFill", "noFill", "gradFill", "blipFill", "pattFill", "grpFill"))


class Colors:
    """Of slides with one master; `theme` is the root of its theme, `master` that of the master."""

    def __init__(self, theme: etree._Element | None, master: etree._Element | None) -> None:
        self._named: dict[str, str | None] = {}
        scheme = None if theme is None else theme.find(f"{A}themeElements/{A}clrScheme")
        for color in () if scheme is None else scheme:
            for written in color:
                value = written.get("lastClr") or written.get("val")
                self._named[str(color.tag).removeprefix(A)] = hex_color(value)
        mapping = None if master is None else master.find(P + "clrMap")
        self._map = dict(_MAPPED) if mapping is None else {str(k): str(v) for k, v in mapping.attrib.items()}

    def of(self, fill: etree._Element | None) -> str | None:
        """RRGGBB of an a:solidFill; None where it cannot be told simply."""
        if fill is None or fill.tag != A + "solidFill" or len(fill) != 1 or len(fill[0]):
            return None
        color = fill[0]
        if color.tag == A + "srgbClr":
            return hex_color(color.get("val"))
        if color.tag == A + "sysClr":
            return hex_color(color.get("lastClr"))
        if color.tag == A + "schemeClr":
            name = color.get("val", "")
            return self._named.get(self._map.get(name) or name)
        return None

    def behind(self, parts: list[etree._Element]) -> str | None:
        """The colour of the paper: the first of slide, layout and master that says one."""
        for part in parts:
            paper = part.find(f"{P}cSld/{P}bg")
            if paper is None:
                continue
            properties = paper.find(P + "bgPr")
            if properties is not None:
                return self.of(fill_of(properties))
            plain = paper.find(P + "bgRef")  # 1001 is the theme's plain fill in the colour that stands within
            if plain is None or plain.get("idx") != "1001" or len(plain) != 1 or len(plain[0]):
                return None
            name = plain[0].get("val", "")
            return self._named.get(self._map.get(name) or name)
        return self._named.get(self._map.get("bg1") or "lt1")


def fill_of(properties: etree._Element | None) -> etree._Element | None:
    """The fill that properties of a shape, a cell or a run name themselves."""
    for child in () if properties is None else properties:
        if child.tag in _FILLS:
            return child
    return None


def transparent(fill: etree._Element | None) -> bool:
    """Whether words filled so leave nothing to see."""
    if fill is None:
        return False
    if fill.tag == A + "noFill":
        return True
    clear = {alpha.get("val") for alpha in fill.iter(A + "alpha")} & {"0", "0%"}
    return fill.tag == A + "solidFill" and bool(clear)
