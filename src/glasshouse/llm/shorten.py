"""A text without its middle, cut where a reader would pause, with a marker that says how much is missing."""

from __future__ import annotations

import re

PAUSES = (r"\n\s*\n", r"(?<=[.!?…])[\"')\]]*\s+|(?<=[。！？])|\n", r"\s+")
"""Between paragraphs, sentences or lines, words: the first kind that is near enough is taken."""

NEAR = 3
"""A pause is near where it costs at most one part in so many of what a side may keep: an assumption."""


def shorten(text: str, characters: int) -> tuple[str, int]:
    """At most so many characters of the text, half from either end, and a marker in place of the rest; and
    how many are missing."""
    if len(text) <= characters:
        return text, 0
    head = _until_pause(text, characters // 2)
    tail = _from_pause(text, len(text) - (characters - characters // 2))
    marker = f"[… {tail - head:,} characters left out …]"
    return f"{text[:head].rstrip()}\n\n{marker}\n\n{text[tail:].lstrip()}".strip(), tail - head


def _until_pause(text: str, end: int) -> int:
    """The last pause before `end`, near it."""
    begin = end - end // NEAR
    for pause in PAUSES:
        ends = [found.end() for found in re.finditer(pause, text[begin:end])]
        if ends:
            return begin + ends[-1]
    return end


def _from_pause(text: str, begin: int) -> int:
    """The first pause after `begin`, near it."""
    end = begin + (len(text) - begin) // NEAR
    for pause in PAUSES:
        found = re.search(pause, text[begin:end])
        if found:
            return begin + found.end()
    return begin
