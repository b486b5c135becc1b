"""Where a text may be cut without saying something else."""

from __future__ import annotations

import re
import unicodedata

from glasshouse.documents.quotes.difference import NEGATING_PREFIXES, NUMBER_WORDS

_LONGEST = 24
"""Letters on each side of a place that are looked at: more than any number or negation has."""

_IN_NUMBERS = ".,:/"
_MINUS = "-−–"
_HYPHENS = "-‐‑"
_ZEROS = re.compile(r"(?<![\d.,:])0+$")
_SECTION = re.compile(
    r"(?:\b(?:section|article|clause|paragraph|exhibit|schedule)s?|§|[.;:!?)]) ?(?<!\d)\d+(?:\.\d+)*$",
    re.IGNORECASE,
)
_LEFT_OF_NEGATIONS = ("or", "ever", "either", "thing", "body", "where", "with", "can", "less")
_NEGATING_ENDS = ("not", "n't", "'t", "n’t", "’t", "less")


def cuts_word(text: str, place: int) -> bool:
    """Whether letters or digits of one word stand on both sides of `place`.

    Scripts without capitals (Chinese, Thai, Arabic, ...) often have no spaces: there nothing is cut.
    """
    around = text[max(0, place - 1) : place + 1]
    if around.isascii():
        return len(around) == 2 and around.isalnum()
    return len(around) == 2 and all(map(_in_word, around))


def cuts_compound(text: str, place: int) -> bool:
    """Whether `place` lies at a hyphen between letters: "non|-exclusive", "twenty-|five"."""
    for hyphen in (place - 1, place):
        if 0 < hyphen < len(text) - 1 and text[hyphen] in _HYPHENS:
            return text[hyphen - 1].isalpha() and text[hyphen + 1].isalpha()
    return False


def cuts_number(text: str, place: int) -> bool:
    """Whether `place` lies in a number: "1|60", "60|.5", "60.|5", "-|5"."""
    if not 0 < place < len(text):
        return False
    left, right = text[place - 1], text[place]
    if left.isdecimal():
        if right.isdecimal():
            return True
        return right in _IN_NUMBERS and text[place + 1 : place + 2].isdecimal()
    if not right.isdecimal():
        return False
    if left in _IN_NUMBERS:
        return text[max(0, place - 2) : place - 1].isdecimal()
    return left in _MINUS and (place == 1 or text[place - 2] in " (")


def misleads(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] cuts a number or a negation: "60" of "160", "six" of "sixteen", "five" of
    "twenty-five", "able" of "unable", "can" of "cannot".

    Zeros before a number may be cut off, and a section's number at its dots: "Section 11" of "Section 11.2".
    """
    if cuts_number(text, start) and not _ZEROS.search(text[max(0, start - 20) : start]):
        return True
    if cuts_number(text, end) and not (
        "." in text[end - 1 : end + 1] and _SECTION.search(text[max(0, end - 40) : end].rstrip("."))
    ):
        return True
    begin, stop = _word(text, start)
    if begin < start < stop and (_says(text[start:stop]) or text[begin:start].lower() in NEGATING_PREFIXES):
        return True
    if begin == start > 1 and text[start - 1] in _HYPHENS:
        before, _ = _word(text, start - 1)
        prefix = text[before : start - 1].lower()
        if prefix in ("non", "un") or (prefix in NUMBER_WORDS and text[start:stop].lower() in NUMBER_WORDS):
            return True
    begin, stop = _word(text, end)
    if begin < end < stop and (_says(text[begin:end]) or text[end:stop].lower() in _NEGATING_ENDS):
        return True
    if begin < end == stop and text[end : end + 1] and text[end] in _HYPHENS:
        _, after = _word(text, end + 1)
        return text[begin:end].lower() in NUMBER_WORDS and text[end + 1 : after].lower() in NUMBER_WORDS
    return False


def _says(part: str) -> bool:
    """Whether a part of a word reads as a number, or as the contrary of a negation that it was part of."""
    part = part.lower()
    return part in NUMBER_WORDS or part in _LEFT_OF_NEGATIONS


def _in_word(char: str) -> bool:
    if char.isascii():
        return char.isalnum()
    return unicodedata.category(char) in ("Lu", "Ll", "Lt", "Nd", "Mn")


def _word(text: str, place: int) -> tuple[int, int]:
    """The letters around `place`, with apostrophes between them; of an endless word the part that matters."""
    start = end = place
    while start > max(0, place - _LONGEST) and _letter(text, start - 1):
        start -= 1
    while end < min(len(text), place + _LONGEST) and _letter(text, end):
        end += 1
    return start, end


def _letter(text: str, place: int) -> bool:
    char = text[place]
    if char in "'’":
        return 0 < place < len(text) - 1 and text[place - 1].isalpha() and text[place + 1].isalpha()
    return char.isalpha() or (char > "\x7f" and unicodedata.category(char) == "Mn")
