"""Which text of a page its readers do not see: by attributes, inline styles and the rules of <style>."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

Color = tuple[float, float, float]  # red, green, blue, 0 to 255

MAX_RULES = 5_000
"""Style rules kept of one page; only those that can hide text count."""

MAX_CHECKS = 2_000_000
"""Comparisons of an element with a rule in one page (some seconds); real pages need under 100,000."""

WIDTH = 1280.0  # pixels of the window that media queries are answered for, as on a usual screen

_PROPERTIES = frozenset(
    "display visibility font-size color background background-color background-image opacity position "  # noqa: SIM905
    "left right top bottom text-indent clip clip-path overflow overflow-x overflow-y width height "
    "max-width max-height transform white-space font -webkit-text-fill-color content-visibility".split()
)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_COMPOUND = re.compile(
    r"""(?P<tag>\*|[a-zA-Z][\w-]*)?(?P<rest>(?:\#[\w-]+|\.[\w-]+|\[\s*[\w-]+\s*(?:=\s*(?:"[^"\]]*"|'[^'\]]*'|[\w-]+)\s*)?\])*)\Z""",
    re.ASCII,
)
_PART = re.compile(
    r"""\#(?P<id>[\w-]+)|\.(?P<class>[\w-]+)|\[\s*(?P<name>[\w-]+)\s*(?:=\s*(?:"(?P<double>[^"\]]*)"|'(?P<single>[^'\]]*)'|(?P<bare>[\w-]+))\s*)?\]""",
    re.ASCII,
)
_LENGTH = re.compile(
    r"(-?(?:\d++(?:\.\d*+)?|\.\d++))\s*+(px|pt|em|rem|ex|ch|cm|mm|in|pc|vw|vh|%)?\Z", re.ASCII
)
_PIXELS = {"px": 1.0, "pt": 4 / 3, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "cm": 37.8, "mm": 3.78}
_PIXELS |= {"in": 96.0, "pc": 16.0, "vw": WIDTH / 100, "vh": 8.0, "%": WIDTH / 100, "": 1.0}

# The names of CSS that are near white or black, and the common ones.
_COLORS: dict[str, Color] = {
    name: (int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16))
    for name, code in (
        pair.split(":")
        for pair in (  # noqa: SIM905
            "white:ffffff snow:fffafa ivory:fffff0 ghostwhite:f8f8ff floralwhite:fffaf0 "
            "whitesmoke:f5f5f5 mintcream:f5fffa azure:f0ffff aliceblue:f0f8ff seashell:fff5ee "
            "lavenderblush:fff0f5 honeydew:f0fff0 lightyellow:ffffe0 lightcyan:e0ffff cornsilk:fff8dc "
            "oldlace:fdf5e6 linen:faf0e6 beige:f5f5dc gainsboro:dcdcdc lightgray:d3d3d3 "
            "lightgrey:d3d3d3 silver:c0c0c0 darkgray:a9a9a9 gray:808080 grey:808080 dimgray:696969 "
            "black:000000 red:ff0000 maroon:800000 yellow:ffff00 olive:808000 lime:00ff00 "
            "green:008000 aqua:00ffff cyan:00ffff teal:008080 blue:0000ff navy:000080 fuchsia:ff00ff "
            "magenta:ff00ff purple:800080 orange:ffa500 brown:a52a2a pink:ffc0cb gold:ffd700 "
            "darkblue:00008b darkgreen:006400 darkred:8b0000 lightblue:add8e6 lightgreen:90ee90 "
            "midnightblue:191970 indigo:4b0082 crimson:dc143c tomato:ff6347 darkslategray:2f4f4f "
            "steelblue:4682b4 royalblue:4169e1 "
        ).split()
    )
}
_CLEAR = (-1.0, -1.0, -1.0)  # fully transparent


@dataclass(frozen=True, slots=True)
class Look:
    """How the text directly inside an element looks, as far as seeing it goes."""

    gone: bool = False  # the element and everything in it is not shown
    invisible: bool = False  # visibility: hidden; an element inside may be visible again
    tiny: bool = False  # its letters have no size
    color: Color | None = (0.0, 0.0, 0.0)  # None: not known
    background: Color | None = (255.0, 255.0, 255.0)
    preformatted: bool = False  # white space is kept

    @property
    def hidden(self) -> bool:
        if self.gone or self.invisible or self.tiny:
            return True
        if self.color is None or self.background is None:
            return False
        return self.color is _CLEAR or _contrast(self.color, self.background) < 1.1


class Element(NamedTuple):
    """What selectors ask of an element."""

    tag: str
    attributes: Mapping[str, str]
    classes: frozenset[str]

    @classmethod
    def of(cls, tag: str, attributes: Mapping[str, str]) -> Element:
        return cls(tag, attributes, frozenset(attributes["class"].split() if "class" in attributes else ()))


@dataclass(frozen=True, slots=True)
class _Compound:
    """`tag#id.class[name=value]` of a selector."""

    tag: str | None
    ids: tuple[str, ...]
    classes: frozenset[str]
    attributes: tuple[tuple[str, str | None], ...]

    def matches(self, element: Element) -> bool:
        if self.tag is not None and self.tag != element.tag:
            return False
        if not self.classes <= element.classes:
            return False
        attributes = element.attributes
        return all(attributes.get("id") == name for name in self.ids) and all(
            name in attributes and (value is None or attributes[name] == value)
            for name, value in self.attributes
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    steps: tuple[tuple[str, _Compound], ...]  # from the element outwards: " " any ancestor, ">" the parent
    weight: tuple[int, int, int, int]  # ids, classes, tags, place in the page
    values: tuple[tuple[str, str, bool], ...]  # property, value, important


class Styles:
    """The rules of a page's <style> elements that can hide text."""

    def __init__(self, sheets: list[str]) -> None:
        self._by_key: dict[str, list[_Rule]] = defaultdict(list)
        self._rules = self._checks = 0
        for sheet in sheets:
            for selectors, body in _rules(_COMMENT.sub(" ", sheet)):
                self._add(selectors, body)

    @property
    def complete(self) -> bool:
        """Whether every rule was kept and tried; if not, hidden text may have been taken for visible."""
        return self._rules <= MAX_RULES and self._checks <= MAX_CHECKS

    def _add(self, selectors: str, body: str) -> None:
        values = tuple(_declarations(body))
        if not values:
            return
        for selector in selectors.split(","):
            steps = _steps(selector)
            if steps is None:
                continue
            self._rules += 1
            if self._rules > MAX_RULES:
                return
            parts = [part for _, part in steps]
            weight = (
                sum(len(part.ids) for part in parts),
                sum(len(part.classes) + len(part.attributes) for part in parts),
                sum(part.tag is not None for part in parts),
                self._rules,
            )
            last = parts[0]
            if last.ids:
                key = "#" + last.ids[0]
            elif last.classes:
                key = "." + min(last.classes)
            else:
                key = last.tag or "*"
            self._by_key[key].append(_Rule(tuple(steps), weight, values))

    def look(self, element: Element, outer: Look, above: list[Element]) -> Look:
        """How text inside an element looks; `above`: those around it, outermost first."""
        if outer.gone:
            return outer
        tag, attributes = element.tag, element.attributes
        values: dict[str, str] = {}
        if self._by_key:
            values = self._cascade(element, above)
        if "style" in attributes:
            important = values.pop("!important", "")
            for name, value, _ in _declarations(attributes["style"]):
                if f" {name} " not in important:
                    _set(values, name, value)
        values.pop("!important", None)
        if not values and tag not in _OWN_LOOK and _LEGACY.isdisjoint(attributes):
            return outer
        return _apply(tag, attributes, values, outer)

    def _cascade(self, element: Element, above: list[Element]) -> dict[str, str]:
        keys = [element.tag, "*", *("." + name for name in element.classes)]
        if "id" in element.attributes:
            keys.append("#" + element.attributes["id"])
        found: list[tuple[bool, tuple[int, int, int, int], str, str]] = []
        for key in keys:
            for rule in self._by_key.get(key, ()):
                if self._checks > MAX_CHECKS:
                    break
                self._checks += 1
                if self._matches(rule, element, above):
                    found += [(important, rule.weight, name, value) for name, value, important in rule.values]
        values: dict[str, str] = {}
        important = " "
        for is_important, _, name, value in sorted(found):
            _set(values, name, value)
            if is_important:
                important += f"{name} "
        if important != " ":
            values["!important"] = important
        return values

    def _matches(self, rule: _Rule, element: Element, above: list[Element]) -> bool:
        """Each step takes the nearest fitting ancestor, which is exact but for ">" after " "."""
        if not rule.steps[0][1].matches(element):
            return False
        at = len(above) - 1
        combinator = rule.steps[0][0]
        for following, part in rule.steps[1:]:
            while at >= 0 and self._checks <= MAX_CHECKS:
                self._checks += 1
                fits = part.matches(above[at])
                at -= 1
                if fits:
                    break
                if combinator == ">":
                    return False
            else:
                return False
            combinator = following
        return True


def _rules(sheet: str) -> Iterator[tuple[str, str]]:
    """Selectors and declarations of each rule that holds on a screen."""
    at = 0
    depth = skipped = 0  # skipped: depth of the block that does not hold
    head = ""
    for mark in re.finditer(r"[{}]", sheet):
        before, at = sheet[at : mark.start()], mark.end()
        if head:  # a rule is open; another rule inside it begins after its last declaration
            yield head, before
            head = ""
        if mark[0] == "}":
            depth = max(depth - 1, 0)
            if depth < skipped:
                skipped = 0
            continue
        depth += 1
        if skipped:
            continue
        opened = before.rpartition(";")[2].strip()
        if not opened.startswith("@"):
            head = opened
        elif not _holds(opened):
            skipped = depth


def _holds(head: str) -> bool:
    """Whether the rules inside `@media ...`, `@supports ...` or `@layer ...` count on a usual screen."""
    head = head.lower()
    if head.startswith(("@supports", "@layer", "@container", "@scope")):
        return True
    return head.startswith("@media") and any(_fits(query) for query in head[6:].split(","))


def _fits(query: str) -> bool:
    if re.search(r"\b(?:print|speech)\b", query) or "prefers-" in query:
        return "not" in query
    widths = re.findall(r"(min|max)-(?:device-)?width\s*:\s*([\d.]+)\s*(px|em|rem)?", query)
    for kind, number, unit in widths:
        try:
            pixels = float(number) * _PIXELS[unit]
        except ValueError:
            continue
        if (pixels > WIDTH) if kind == "min" else (pixels < WIDTH):
            return False
    return True


def _steps(selector: str) -> list[tuple[str, _Compound]] | None:
    """A selector from its last element outwards; None for what is not understood (`:hover`, `+`)."""
    words = selector.replace(">", " > ").split()
    if not words or len(words) > 20:
        return None
    steps: list[tuple[str, _Compound]] = []
    combinator = " "
    for word in reversed(words):
        if word == ">":
            if not steps or combinator == ">":
                return None
            steps[-1] = (">", steps[-1][1])
            combinator = ">"
            continue
        combinator = " "
        found = _COMPOUND.match("html" if word == ":root" else word)
        if found is None or len(word) > 500:
            return None
        ids, classes, attributes = [], [], []
        for part in _PART.finditer(found["rest"]):
            if part["id"]:
                ids.append(part["id"])
            elif part["class"]:
                classes.append(part["class"])
            else:
                value = next((part[g] for g in ("double", "single", "bare") if part[g] is not None), None)
                attributes.append((part["name"].lower(), value))
        tag = found["tag"].lower() if found["tag"] and found["tag"] != "*" else None
        steps.append((" ", _Compound(tag, tuple(ids), frozenset(classes), tuple(attributes))))
    return steps if combinator != ">" else None


def _declarations(body: str) -> Iterator[tuple[str, str, bool]]:
    for declaration in _COMMENT.sub(" ", body).split(";"):
        name, colon, value = declaration.partition(":")
        name = name.strip().lower()
        if colon and name in _PROPERTIES:
            if "url(" in value or "gradient" in value:
                value = "url()"  # a picture, perhaps a long one
            value = value[:1000].strip().lower()
            important = value.endswith("!important")
            yield name, value.removesuffix("!important").strip(), important


def _set(values: dict[str, str], name: str, value: str) -> None:
    values.pop(name, None)  # so that the later of `background` and `background-color` comes last
    values[name] = value


_LEGACY = frozenset({"hidden", "color", "bgcolor", "text", "background"})

# What browsers paint in colors of their own: (color, background), None for the one around it.
_OWN_COLORS: dict[str, tuple[Color, Color | None]] = {
    "a": ((0, 0, 238), None),  # where it is a link
    "mark": ((0, 0, 0), (255, 255, 0)),
    "button": ((0, 0, 0), (239, 239, 239)),
    "textarea": ((0, 0, 0), (255, 255, 255)),
}
_OWN_LOOK = frozenset({"pre", *_OWN_COLORS})


def _apply(tag: str, attributes: Mapping[str, str], values: dict[str, str], outer: Look) -> Look:
    if _not_shown(attributes, values):
        return replace(outer, gone=True)
    invisible = outer.invisible
    if (visibility := values.get("visibility")) is not None:
        if visibility in ("hidden", "collapse"):
            invisible = True
        elif visibility in ("visible", "initial"):
            invisible = False
    tiny = outer.tiny
    size = values.get("font-size")
    if size is None and "font" in values:
        size = next((w.split("/")[0] for w in values["font"].split() if _LENGTH.match(w.split("/")[0])), None)
    if size is not None:
        number = _LENGTH.match(size)
        if number is None:
            tiny = tiny and size in ("inherit", "smaller", "larger")
        elif number[2] in ("em", "%", "ex", "ch"):
            tiny = tiny or float(number[1]) < (6 if number[2] == "%" else 0.06)
        else:
            tiny = float(number[1]) * _PIXELS[number[2] or ""] < 1.0
    color, background = outer.color, outer.background
    if tag in _OWN_COLORS and (tag != "a" or "href" in attributes):
        color, painted = _OWN_COLORS[tag]
        background = painted or background
    if tag == "body" and "text" in attributes:
        color = _color(attributes["text"], color)
    if tag in ("font", "basefont") and "color" in attributes:
        color = _color(attributes["color"], color)
    if "bgcolor" in attributes:
        background = _color(attributes["bgcolor"], background)
    if "background" in attributes:
        background = None  # a picture
    for name, value in values.items():
        if name == "background-color":
            background = _painted(value, background)
        elif name == "background-image" and value != "none":
            background = None
        elif name == "background":
            if "url(" in value:
                background = None
            else:
                background = _painted(value, background)
        elif name in ("color", "-webkit-text-fill-color"):
            color = outer.color if value == "inherit" else _color(value, color)
    white_space = values.get("white-space", "")
    preformatted = outer.preformatted
    if white_space:
        preformatted = white_space.startswith(("pre", "break-spaces"))
    elif tag in ("pre", "textarea"):
        preformatted = True
    return Look(False, invisible, tiny, color, background, preformatted)


def _not_shown(attributes: Mapping[str, str], values: Mapping[str, str]) -> bool:
    """Whether an element is shown nowhere: not at all, transparent, without size, or off the screen."""
    display = values.get("display")
    if display == "none" or ("hidden" in attributes and display is None):
        return True
    if values.get("content-visibility") == "hidden":
        return True
    if (opacity := _number(values.get("opacity"))) is not None and opacity < 0.05:
        return True
    indent = _pixels(values.get("text-indent"))
    if indent is not None and indent <= -500:
        return True
    positioned = values.get("position") in ("absolute", "fixed", "relative", "sticky")
    if positioned:
        for side in ("left", "top", "right", "bottom"):
            away = _pixels(values.get(side))
            if away is not None and (away <= -500 or away >= 9_000):
                return True
        clip = values.get("clip", "").replace("px", "").replace(",", " ").strip()
        if re.fullmatch(r"rect\(\s*([01](?:\.0)?)\s+([01])\s+([01])\s+([01])\s*\)", clip):
            return True
    shape = values.get("clip-path", "")
    if re.match(r"inset\(\s*(?:[5-9]\d|100)(?:\.\d+)?%\s*\)|circle\(\s*0", shape):
        return True
    if re.search(r"scale[xy]?\(\s*0(?:\.0+)?\s*[,)]|translate[xy]?\(\s*-\d{4,}", values.get("transform", "")):
        return True
    clipped = any(
        values.get(name, "").split(" ")[0] in ("hidden", "clip")
        for name in ("overflow", "overflow-x", "overflow-y")
    )
    if clipped:
        for name in ("width", "height", "max-width", "max-height"):
            size = _pixels(values.get(name))
            if size is not None and 0 <= size <= 1:
                return True
    return False


def _number(text: str | None) -> float | None:
    found = _LENGTH.match(text) if text else None
    return None if found is None else float(found[1]) / (100 if found[2] == "%" else 1)


def _pixels(text: str | None) -> float | None:
    found = _LENGTH.match(text) if text else None
    return None if found is None else float(found[1]) * _PIXELS[found[2] or ""]


def _painted(text: str, otherwise: Color | None) -> Color | None:
    """The background that a value paints over another."""
    for word in re.findall(r"[a-z-]+\([^)]*\)|\S+", text):
        found = _parse_color(word)
        if found is _CLEAR or word in ("none", "inherit", "initial", "unset"):
            return otherwise
        if found is not None:
            return found
    return None  # a color that is not understood


def _color(text: str, otherwise: Color | None) -> Color | None:
    text = text.strip().lower()
    if text in ("inherit", "currentcolor", "unset", "revert"):
        return otherwise
    return _parse_color(text)


def _parse_color(text: str) -> Color | None:
    text = text.strip().lower()
    if text == "transparent":
        return _CLEAR
    if text in _COLORS:
        return _COLORS[text]
    code = text.removeprefix("#")
    if text.startswith("#") or len(code) == 6:
        if not re.fullmatch(r"[0-9a-f]{3,8}", code) or len(code) in (5, 7):
            return None
        if len(code) in (3, 4):
            code = "".join(letter * 2 for letter in code)
        if len(code) == 8 and int(code[6:], 16) < 13:
            return _CLEAR
        return int(code[:2], 16), int(code[2:4], 16), int(code[4:6], 16)
    found = re.fullmatch(r"(rgb|hsl)a?\(\s*([^)]*)\)", text)
    if found is None:
        return None
    parts = re.split(r"[\s,/]+", found[2].strip())
    numbers = [_LENGTH.match(part.removesuffix("deg")) for part in parts]
    if len(parts) not in (3, 4) or None in numbers:
        return None
    values = [float(number[1]) for number in numbers if number is not None]
    if len(values) == 4 and values[3] / (100 if parts[3].endswith("%") else 1) < 0.05:
        return _CLEAR
    if found[1] == "hsl":
        import colorsys

        red, green, blue = colorsys.hls_to_rgb(values[0] / 360 % 1, values[2] / 100, values[1] / 100)
        return red * 255, green * 255, blue * 255
    red, green, blue = (
        min(max(value * (2.55 if part.endswith("%") else 1), 0), 255)
        for value, part in zip(values[:3], parts[:3], strict=True)
    )
    return red, green, blue


@lru_cache(maxsize=1024)
def _contrast(one: Color, other: Color) -> float:
    """The contrast ratio of WCAG 2, from 1 (the same) to 21 (black on white)."""
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    # Two colors of one brightness (red on green) can be told apart all the same.
    if max(abs(a - b) for a, b in zip(one, other, strict=True)) > 40:
        return 21.0
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(color: Color) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
