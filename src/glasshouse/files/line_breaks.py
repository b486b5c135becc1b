"""Lines of a paragraph as one text: words that a hyphen broke at the end of a line are whole again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_LAST = re.compile(r"(\w+)([-\u00ad\u2010])$")
_FIRST = re.compile(r"\w+")
_NO_SPACE_AFTER = ("—", "/")  # signs after which a line may end inside a word or between two without a space
_KEEP_THEIRS = frozenset(
    ["cross", "full", "half", "high", "long", "low", "mid", "non", "self", "short", "third", "well"]
)
"""First halves of compounds; few other words are broken after them."""

Known = Callable[[str], bool]
"""Whether a word, in lower case, stands somewhere in the document within a line."""


def join_lines(lines: Iterable[str], known: Known) -> str:
    """The lines with a space between two, or nothing where a word goes on."""
    parts: list[str] = []
    for line in lines:
        if parts:
            parts[-1], between = _bond(parts[-1], line, known)
            parts.append(between)
        parts.append(line)
    return "".join(parts)


def join(text: str, line: str, known: Known) -> str:
    """A text and the line after it.

    A hyphen at the end goes where small letters follow it. It stays where the word is written with one
    elsewhere in the document ("long-term"), before a capital and between figures.
    """
    return join_lines((text, line), known)


def _bond(before: str, line: str, known: Known) -> tuple[str, str]:
    """The line before without a hyphen that has to go, and what stands between the two."""
    broken, goes_on = last_half(before), _FIRST.match(line)
    if broken and goes_on:
        return (before if keeps_hyphen(broken, goes_on[0], known) else before[:-1]), ""
    if before.endswith("\u00ad"):
        before = before[:-1]
    return before, "" if before.endswith(_NO_SPACE_AFTER) else " "


def last_half(text: str) -> str | None:
    """The letters before a hyphen at the end of a text, of long ones the last hundred."""
    found = _LAST.search(text[-100:])  # only there: a search of all of a long text takes long
    return found[1] if found else None


def keeps_hyphen(head: str, tail: str, known: Known) -> bool:
    """Whether "head-" and "tail" of two lines are one word with a hyphen in it."""
    if not (head[-1].isalpha() and tail[0].islower()):
        return True
    whole, both = (head + tail).lower(), f"{head}-{tail}".lower()
    if known(whole) != known(both):
        return known(both)
    if known(whole):
        return False
    # Neither is written in a line: two words that each stand alone elsewhere are more likely a compound.
    return head.lower() in _KEEP_THEIRS or (
        len(head) > 2 and len(tail) > 3 and known(head.lower()) and known(tail.lower())
    )
