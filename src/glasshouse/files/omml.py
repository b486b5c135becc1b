"""Equations of Office files (OMML) as one line of text: (a+b)/(2), x^(2), √(x), ∑_(i=1)^(n)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"

_PROPERTIES = "Pr"  # elements such as fPr hold no text


def math_text(element: etree._Element) -> str:
    """The text of an m:oMath, or of any element within one."""
    tag = str(element.tag).removeprefix(M)
    if tag == "t":
        return element.text or ""
    if tag.endswith(_PROPERTIES):
        return ""
    if tag == "f":
        return f"{_group(element, 'num')}/{_group(element, 'den')}"
    if tag in ("sSup", "sSub", "sSubSup", "sPre"):
        return f"{_part(element, 'e')}{_scripts(element)}"
    if tag == "nary":
        sign = _value(element, "naryPr", "chr", "∫")
        return f"{sign}{_scripts(element)} {_part(element, 'e')}"
    if tag == "rad":
        return f"{_part(element, 'deg')}√{_group(element, 'e')}"
    if tag == "d":
        begin, between = _value(element, "dPr", "begChr", "("), _value(element, "dPr", "sepChr", "|")
        end = _value(element, "dPr", "endChr", ")")
        return begin + between.join(math_text(part) for part in element.findall(M + "e")) + end
    if tag == "func":
        return f"{_part(element, 'fName')} {_part(element, 'e')}"
    if tag == "limLow":
        return f"{_part(element, 'e')}_{_group(element, 'lim')}"
    if tag == "limUpp":
        return f"{_part(element, 'e')}^{_group(element, 'lim')}"
    if tag in ("m", "eqArr"):
        rows = element.findall(M + ("mr" if tag == "m" else "e"))
        return "; ".join(math_text(row) for row in rows)
    if tag == "mr":
        return ", ".join(math_text(cell) for cell in element.findall(M + "e"))
    return "".join(math_text(part) for part in element)


def _part(element: etree._Element, tag: str) -> str:
    part = element.find(M + tag)
    return "" if part is None else math_text(part)


def _group(element: etree._Element, tag: str) -> str:
    text = _part(element, tag)
    return text if len(text) == 1 else f"({text})"


def _scripts(element: etree._Element) -> str:
    return "".join(
        sign + _group(element, tag) for tag, sign in (("sub", "_"), ("sup", "^")) if _part(element, tag)
    )


def _value(element: etree._Element, properties: str, tag: str, default: str) -> str:
    """A sign that stands in an element's properties; an empty one is meant to be none."""
    found = element.find(f"{M}{properties}/{M}{tag}")
    return default if found is None else found.get(M + "val", "")
