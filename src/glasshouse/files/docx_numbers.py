"""The numbers that Word shows before headings and list items: it writes only which list a paragraph is in."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from glasshouse.files.docx_styles import Styles, W, is_on, number, value

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

_LEVELS = 9
_MAX_LINKS = 5
_ROMAN = tuple(
    zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ["m", "cm", "d", "cd", "c", "xc", "l", "xl", "x", "ix", "v", "iv", "i"],
        strict=True,
    )
)


class Numbers:
    """Counts through a document; `root` is the numbering part, None where there is none."""

    def __init__(self, root: etree._Element | None, styles: Styles) -> None:
        self._styles = styles
        none: list[etree._Element] = []
        self._lists = {
            found.get(W + "abstractNumId"): found
            for found in (none if root is None else root.findall(W + "abstractNum"))
        }
        self._nums = {
            found.get(W + "numId"): found for found in (none if root is None else root.findall(W + "num"))
        }
        self._counts: dict[str, list[int | None]] = {}  # by abstractNumId: several w:num count on together
        self._started: set[tuple[str, int]] = set()
        self._list = cache(self._find_list)

    def next(self, numbering: str, depth: int | None, style: str | None) -> tuple[str, int] | None:
        """What stands before the next paragraph of a list ("" for a bullet), and its level from 0.

        `numbering`: w:numId; `depth`: w:ilvl, or None where only a style says that it is numbered. None where
        the paragraph is in no list.
        """
        found = self._list(numbering)
        if found is None:
            return None
        name, levels, overrides = found
        if depth is None:
            depth = next((at for at, level in levels.items() if style and value(level, "pStyle") == style), 0)
        if depth not in levels:
            return ("", max(depth, 0)) if 0 <= depth < _LEVELS else None
        counts = self._counts.setdefault(name, [None] * _LEVELS)
        restart = overrides.get(depth)
        if restart is not None and (numbering, depth) not in self._started:
            counts[depth] = restart
        elif (before := counts[depth]) is None:
            counts[depth] = _start(levels[depth])
        else:
            counts[depth] = before + 1
        self._started.add((numbering, depth))
        for deeper in range(depth + 1, _LEVELS):
            after = number(value(levels.get(deeper), "lvlRestart"))
            if after is None or (after > 0 and depth < after):
                counts[deeper] = None
        return self._shown(levels, counts, depth), depth

    def _shown(self, levels: dict[int, etree._Element], counts: list[int | None], depth: int) -> str:
        level = levels[depth]
        if value(level, "numFmt") in ("bullet", "none") and "%" not in (value(level, "lvlText") or ""):
            return ""
        plain = is_on(level, "isLgl")

        def counted(sign: re.Match[str]) -> str:
            at = int(sign[1]) - 1
            if at not in levels:
                return ""
            count = counts[at]
            if count is None:  # a level that was skipped counts as begun
                count = counts[at] = _start(levels[at])
            form = value(levels[at], "numFmt") or "decimal"
            return shown_number(count, "decimal" if plain else form)

        return re.sub(r"%([1-9])", counted, value(level, "lvlText") or "").strip()

    def _find_list(self, numbering: str) -> tuple[str, dict[int, etree._Element], dict[int, int]] | None:
        """The name of the list that counts, its levels, and where a w:num lets levels begin anew."""
        num = self._nums.get(numbering)
        name = value(num, "abstractNumId")
        found = self._lists.get(name)
        for _ in range(_MAX_LINKS):
            if found is None or (link := value(found, "numStyleLink")) is None:
                break
            name = value(self._nums.get(self._styles.numbering_of(link)), "abstractNumId")
            found = self._lists.get(name)
        if found is None or name is None or num is None:
            return None
        levels = {number(level.get(W + "ilvl")) or 0: level for level in found.findall(W + "lvl")}
        restarts: dict[int, int] = {}
        for override in num.findall(W + "lvlOverride"):
            depth = number(override.get(W + "ilvl")) or 0
            own = override.find(W + "lvl")
            if own is not None:
                levels[depth] = own
            start = number(value(override, "startOverride"))
            if start is not None:
                restarts[depth] = start
        return name, {depth: level for depth, level in levels.items() if 0 <= depth < _LEVELS}, restarts


def _start(level: etree._Element) -> int:
    found = number(value(level, "start"))
    return 0 if found is None else found


def shown_number(count: int, form: str) -> str:
    """A number in one of Word's forms; forms of other scripts are shown in digits.

    >>> shown_number(4, "lowerRoman"), shown_number(28, "upperLetter"), shown_number(3, "ordinal")
    ('iv', 'BB', '3rd')
    """
    if form == "none":
        return ""
    if form == "decimalZero":
        return f"{count:02d}"
    if form == "ordinal":
        last = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
        return f"{count}{last}"
    if form in ("lowerLetter", "upperLetter") and 0 < count <= 780:
        letters = chr(ord("a") + (count - 1) % 26) * ((count - 1) // 26 + 1)
        return letters if form == "lowerLetter" else letters.upper()
    if form in ("lowerRoman", "upperRoman") and 0 < count < 4000:
        roman, rest = "", count
        for worth, sign in _ROMAN:
            roman += sign * (rest // worth)
            rest %= worth
        return roman if form == "lowerRoman" else roman.upper()
    return str(count)
