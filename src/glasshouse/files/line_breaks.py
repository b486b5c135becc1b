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
    text = ""
    for line in lines:
        text = line if not text else join(text, line, known)
    return text


def join(text: str, line: str, known: Known) -> str:
    """A text and the line after it.

    A hyphen at the end goes where small letters follow it. It stays where the word is written with one
    elsewhere in the document ("long-term"), before a capital and between figures.
    """
    broken, goes_on = _LAST.search(text), _FIRST.match(line)
    if broken and goes_on:
        head, tail = broken[1], goes_on[0]
        if keeps_hyphen(head, tail, known):
            return text[: broken.start(2)] + "-" + line
        return text[: broken.start(2)] + line
    if text.endswith("\u00ad"):
        text = text[:-1]
    return text + line if text.endswith(_NO_SPACE_AFTER) else f"{text} {line}"


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
