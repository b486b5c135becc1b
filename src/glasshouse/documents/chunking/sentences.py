"""Where the sentences of a text begin and end, by rules.

Made for English and for what documents do to it (numbered sections, lists, wrapped lines, page breaks inside
a sentence, "Acme Inc."), and sane for other languages: their stops (。！？؟।) end one, ¿ and ¡ open one.
"""

from __future__ import annotations

import re
from collections.abc import Set
from itertools import pairwise

from glasshouse.documents.chunking.abbreviations import (
    BEFORE_NAME,
    BEFORE_NUMBER,
    MONTHS,
    STARTERS,
    WITHIN_NAME,
)

_CLOSERS = "\"'”’»›)\\]}」』）】〉》"
_OPENERS = "\"'“‘„«‹(\\[{¿¡「『（【〈《*_"

_STOP = re.compile(
    r"(?:(?P<dots>\.(?:[ \u00a0]\.)+|\.{2,}|…+)|(?P<dot>\.)|[!?]+|(?P<wide>[。！？｡।؟۔]+))"
    rf"(?P<closers>[{_CLOSERS}]*)"
)
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n\s*+|\f\s*+")
_WORD_BEFORE = re.compile(r"[^\s(\[{“\"‘'«/—–,;]+\Z")
_NEXT_WORD = re.compile(r"[\w'’-]+")
MARKER = re.compile(
    r"(?:[-*•·–—▪◦‣●○§¶]|[(\[]?(?:\d{1,3}(?:\.\d{1,3})*|[A-Za-z]|[ivxIVX]{1,5}|[a-z]{2})[.)\]]"
    r"|\d{1,3}(?:\.\d{1,3})+\.?|(?:ARTICLE|Article|SECTION|Section)\s+[\dIVX]+)(?=\s)"
)
"""What a list item or a numbered section begins with: "-", "1.", "(a)", "iv)", "2.1.3", "Section 4"."""

SECTION = re.compile(
    r"(?:\d{1,3}\.(?:\d{1,3}(?:\.\d{1,3})*\.?)?(?=\s+[^\W\d_a-z\u201c\"(\[])"
    r"|\d{1,3}(?:\.\d{1,3})+\.?(?=\s)"
    r"|(?:ARTICLE|Article|SECTION|Section|SCHEDULE|Schedule|EXHIBIT|Exhibit|ANNEX|Annex)\s+(?:[\dA-Z]+)\b)"
)
"""What a numbered section begins with: "4. Term", "2.1.3", "Section 4"."""

BRACKETED = re.compile(r"[(\[](?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5}|[a-z]{2})[)\]](?=\s)")
_MARKER_ALONE = re.compile(
    rf"[{_OPENERS}]*(?:(?:ARTICLE|Article|SECTION|Section)\s+)?"
    r"(?:\d{1,3}(?:\.\d{1,3})*|[A-Za-z]|[ivxlIVXL]{1,6})\."
)
_NUMBERED = re.compile(r"[\d#(\[§]|[A-Z]{1,2}\b|[IVXLivxl]+\b")
_DOTTED = re.compile(r"(?:\w\.)+\w")
_FURNITURE = re.compile(
    r"\W*(?:page\s*)?(?:[A-Z]{1,2}-)?(?:\d{1,4}|[ivxlc]{1,6})(?:\s*(?:of|/)\s*\d{1,4})?\W*|Source:.{0,160}",
    re.I,
)
"""What stands at the edge of a page: its number, or the line of the archive that a contract comes from."""

_LEADS_ON = frozenset(
    re.findall(
        r"\w+", "a an and any are as at be by for from in is its not of or such that the their to which"
    )
)
"""A page that breaks after one of these breaks a sentence."""


def sentences(text: str, abbreviations: Set[str] = frozenset()) -> list[tuple[int, int]]:
    """Half open spans in order, without white space at their ends; together they hold all else.

    `abbreviations`: more words that end in a full stop within a sentence, as of a domain pack ("v.", "al.").
    """
    own = frozenset(word.split()[-1].rstrip(".").lower() for word in abbreviations if word.strip(" ."))
    spans: list[tuple[int, int]] = []
    for start, end in _passages(text):
        spans += _split(text, start, end, own)
    return spans


def _passages(text: str) -> list[tuple[int, int]]:
    """Parts between line breaks that end a sentence.

    A sentence that a page break runs through is one, with the page's number in it.
    """
    parts: list[tuple[int, int]] = []
    at = 0
    for match in _PARAGRAPH.finditer(text):
        parts.append((at, match.start()))
        at = match.end()
    parts.append((at, len(text)))
    parts = [span for span in (trimmed(text, *part) for part in parts) if span[0] < span[1]]
    passages: list[tuple[int, int]] = []
    place = 0
    while place < len(parts):
        after = place
        while passages and after < len(parts) - 1 and after - place < 3 and is_furniture(text, *parts[after]):
            after += 1
        on = bool(passages) and runs_on(text, *passages[-1], parts[after][0])
        place = after if on else place
        lines = _lines(text, *parts[place])
        if on:
            passages[-1] = (passages[-1][0], lines.pop(0)[1])
        passages += lines
        place += 1
    return passages


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def is_furniture(text: str, start: int, end: int) -> bool:
    """Whether a paragraph is only a page's number or its footer."""
    return end - start < 200 and _FURNITURE.fullmatch(text, start, end) is not None


def runs_on(text: str, begin: int, end: int, start: int) -> bool:
    """Whether a paragraph's sentence (`text[begin:end]` ends with it) goes on at `start`, in the next one."""
    last = text[end - 1]
    if last in ".!?:;…。！？" or (last in "\"”')]" and text[end - 2 : end - 1] in ".!?:;"):
        return False
    if MARKER.match(text, start):
        return False
    first = text[start]
    if first.islower():
        return True
    if last == ",":
        return first.isalpha() or first == "("
    word = re.search(r"[^\W\d_]+\Z", text[max(begin, end - 20) : end])
    if word is not None and word[0] in _LEADS_ON:
        return True
    over_page = start - end > 4 and end - begin > 80 and not text[end:start].isspace()
    return over_page and word is not None and word[0].islower()


def is_unfinished(text: str, start: int, end: int) -> bool:
    """Whether more of the same list has to follow a paragraph: it ends in "as follows:", ";" or "and"."""
    return text[end - 1] in ":;,：；，" or text[max(start, end - 4) : end].lower() in (" and", "; or", ", or")


def ends_alone(text: str, start: int, end: int) -> bool:
    """Whether a short paragraph ends without a stop, as a heading does that a format does not know as one."""
    return end - start < 80 and text[end - 1] not in ".!?:;,…。！？" and not is_furniture(text, start, end)


def is_title(text: str, start: int, end: int) -> bool:
    """Whether a sentence is only the title of a numbered section: "2.1 Fees." """
    return (
        end - start < 80
        and (SECTION.match(text, start) or BRACKETED.match(text, start)) is not None
        and (len(text[start:end].split()) < 9)
    )


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A paragraph, split where a line is one of its own (an item, a heading, a row); wrapped lines stay."""
    if "\n" not in text[start:end]:
        return [(start, end)]
    lines: list[tuple[int, int]] = []
    at = start
    for match in re.compile(r"\n\s*").finditer(text, start, end):
        lines.append(trimmed(text, at, match.start()))
        at = match.end()
    lines.append(trimmed(text, at, end))
    lines = [line for line in lines if line[0] < line[1]]
    widest = max(b - a for a, b in lines)
    parts = [lines[0]]
    for before, line in pairwise(lines):
        if _own_line(text, before, line, widest):
            parts.append(line)
        else:
            parts[-1] = (parts[-1][0], line[1])
    return parts


def _own_line(text: str, before: tuple[int, int], line: tuple[int, int], widest: int) -> bool:
    if MARKER.match(text, line[0]) or " | " in text[slice(*line)] or " | " in text[slice(*before)]:
        return True
    first, last = text[line[0]], text[before[1] - 1]
    if first.islower() or last in ",-–" or text[slice(*before)].rsplit(None, 1)[-1] in _LEADS_ON:
        return False
    if last in ".!?:;" or text[before[0]] == "#":
        return last not in "." or not _abbreviated(text, before[0], before[1] - 1, line[0], frozenset())
    if text[slice(*before)].isupper() and not text[slice(*line)].isupper():
        return True
    next_word = re.match(r"\S+", text[line[0] : line[1]])
    room = widest - (before[1] - before[0])
    return next_word is not None and room > len(next_word[0]) + max(4, widest // 8)


def _split(text: str, start: int, end: int, own: frozenset[str]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _STOP.finditer(text, start, end):
        stop = match.end()
        if match.start() < begin or stop >= end:
            continue
        after = stop
        while after < end and text[after].isspace():
            after += 1
        if after == stop and not match["wide"]:
            continue
        if _ends(text, begin, match, after, end, own):
            spans.append((begin, stop))
            begin = after
    if begin < end:
        spans.append((begin, end))
    return spans


def _ends(text: str, begin: int, match: re.Match[str], after: int, end: int, own: frozenset[str]) -> bool:
    """Whether a stop ends the sentence that began at `begin`; `after`: the next character but space."""
    if match["wide"]:  # what somebody says stands inside of a sentence: 「本当？」と言った
        return not (match["closers"] and "ぁ" <= text[after] <= "ゖ" and after == match.end())
    first = after
    while first < end and text[first] in _OPENING:
        first += 1
    if first >= end:
        return False
    marker = BRACKETED.match(text, after) is not None
    if text[first].islower() and not marker:
        return False
    if match["dots"]:
        return not text[first].isdigit()
    if text[first] in ",;:":
        return False
    if match["dot"] is None:
        return True
    if _MARKER_ALONE.fullmatch(text, begin, match.end("dot")):
        return False
    closed = bool(match["closers"]) and match["closers"] not in "'’"
    return closed or not _abbreviated(text, begin, match.start(), first, own)


_OPENING = frozenset("\"'“‘„«‹([{¿¡「『（【〈《*_")


def _abbreviated(text: str, begin: int, dot: int, first: int, own: frozenset[str]) -> bool:
    """Whether the full stop at `dot` belongs to its word, given what begins at `first`."""
    found = _WORD_BEFORE.search(text[max(begin, dot - 40) : dot])
    if found is None:
        return False
    word = found[0]
    lower = word.lower()
    follows = _NEXT_WORD.match(text, first)
    starter = follows is not None and follows[0] in STARTERS
    if word.isdigit():
        return len(word) < 3 and follows is not None and follows[0] in MONTHS
    if lower in BEFORE_NAME:
        return True
    if lower in BEFORE_NUMBER and lower not in own:
        return _NUMBERED.match(text, first) is not None and not starter
    if lower in WITHIN_NAME or lower in own or _DOTTED.fullmatch(lower):
        return not starter and MARKER.match(text, first) is None
    if len(word) == 1 and word.isalpha():
        return word.islower() or not starter
    return False
