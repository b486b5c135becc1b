"""Where a text may be cut without saying something else."""

from __future__ import annotations

import unicodedata

from glasshouse.documents.difference import NEGATING_PREFIXES, NEGATIONS, NUMBER_WORDS

_IN_NUMBERS = ".,:/"
_MINUS = "-−–"
_NEGATING_ENDS = ("not", "n't", "'t", "n’t", "’t", "less")


def cuts_word(text: str, place: int) -> bool:
    """Whether letters or digits of one word stand on both sides of `place`.

    Scripts without capitals (Chinese, Thai, Arabic, ...) often have no spaces: there nothing is cut.
    """
    return 0 < place < len(text) and _in_word(text[place - 1]) and _in_word(text[place])


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
    """Whether text[start:end] cuts a number or a negation, in digits or in words: "six" of "sixteen", "five" of
    "twenty-five", "able" of "unable", "can" of "cannot". A single letter that is left of a word says nothing."""
    if cuts_number(text, start) or cuts_number(text, end):
        return True
    begin, stop = _word(text, start)
    if begin < start < stop - 1 and (
        _says(text[begin:stop]) or text[begin:start].lower() in NEGATING_PREFIXES
    ):
        return True
    if begin == start and text[max(0, start - 1) : start] == "-" and start > 1:
        before, _ = _word(text, start - 1)
        prefix = text[before : start - 1].lower()
        if prefix in ("non", "un") or (prefix in NUMBER_WORDS and text[start:stop].lower() in NUMBER_WORDS):
            return True
    begin, stop = _word(text, end)
    if begin + 1 < end < stop and (_says(text[begin:stop]) or text[end:stop].lower() in _NEGATING_ENDS):
        return True
    if end == stop and text[end : end + 1] == "-":
        _, after = _word(text, end + 1)
        return text[begin:end].lower() in NUMBER_WORDS and text[end + 1 : after].lower() in NUMBER_WORDS
    return False


def _says(word: str) -> bool:
    word = word.lower()
    return word in NEGATIONS or word in NUMBER_WORDS


def _in_word(char: str) -> bool:
    return char.isascii() and char.isalnum() or unicodedata.category(char) in ("Lu", "Ll", "Lt", "Nd", "Mn")


def _word(text: str, place: int) -> tuple[int, int]:
    """The letters around `place`, with apostrophes between them."""
    start = end = place
    while start > 0 and _letter(text, start - 1):
        start -= 1
    while end < len(text) and _letter(text, end):
        end += 1
    return start, end


def _letter(text: str, place: int) -> bool:
    char = text[place]
    if char in "'’":
        return 0 < place < len(text) - 1 and text[place - 1].isalpha() and text[place + 1].isalpha()
    return char.isalpha() or (char > "\x7f" and unicodedata.category(char) == "Mn")
