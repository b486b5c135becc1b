"""What a quote says otherwise than the text it was taken from, in one line."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
billion trillion dozen half third quarter first second fourth fifth sixth seventh eighth ninth tenth once
twice double triple
% ‰ $ € £ ¥
"""
NUMBER_WORDS = frozenset(_NUMBERS.split())
"""English, and signs that say what a number is of."""

_NEGATIONS = """
not no never none nor neither nothing nobody nowhere cannot without unless except excluding
"""
NEGATIONS = frozenset(_NEGATIONS.split())
NEGATING_PREFIXES = ("un", "in", "im", "ir", "il", "non", "non-", "dis", "mis")

SHOWN = 3
"""Changes shown besides those of numbers and negations, which all are."""

LONGEST = 12
"""Words of one side of a change; of a longer one its first and last are shown."""

_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['’‐‑-][^\W\d_]+)*|\S")
SIGNS = str.maketrans("‘’‚‛′`´“”„‟″«»‹›‐‑‒–—―−⁃", "'" * 7 + '"' * 7 + "''" + "-" * 8)


def typography(text: str) -> str:
    """With straight quotation marks, plain dashes and no ligatures."""
    if text.isascii():
        return text.replace("`", "'")  # nearly every word
    return unicodedata.normalize("NFKC", text.translate(SIGNS))


def folded(text: str) -> str:
    """Without capitals and typographic signs, character for character; of a text in NFD."""
    return text.translate(SIGNS).lower()


def difference(quote: str, source: str) -> str:
    """Of `quote` against `source`, what stands in the text: "'30 days' for '60 days'", "'not' left out".

    Both have single spaces. Changes of numbers and negations come first and are all there, then the others in
    their order, and at last capitals and typographic signs. Empty where nothing differs.
    """
    said, stands = _Words(quote), _Words(source)
    changes = _changes(said, stands)
    if not changes:
        changes = _changes(_Words(quote, spaced=True), _Words(source, spaced=True), " (spaces)")
    changes.sort(key=lambda change: change.rank)  # stable
    grave = [str(change) for change in changes if change.rank == 0]
    others = list(dict.fromkeys(str(change) for change in changes if change.rank))
    lines = list(dict.fromkeys(grave)) + others[:SHOWN]
    if len(others) > SHOWN:
        lines.append(f"{len(others) - SHOWN} more")
    return "; ".join(lines)


def left_out(gaps: list[str]) -> str:
    """What the ellipses of a quote leave out, in one line; parts with numbers and negations first."""
    parts = [words for words in map(_Words, gaps) if words.words]
    if not parts:
        return "nothing left out at the ellipsis"
    parts.sort(key=lambda words: not words.weighty(0, None))  # stable
    return "left out at the ellipsis: " + "; ".join(words.shown(0, len(words.words)) for words in parts)


class _Words:
    """Numbers, words and signs of a text; or, `spaced`, what stands between its spaces."""

    def __init__(self, text: str, spaced: bool = False) -> None:
        self.text = unicodedata.normalize("NFC", text)
        found = list((re.compile(r"\S+") if spaced else _WORD).finditer(self.text))
        self.spans = [each.span() for each in found]
        self.words = [each.group() for each in found]
        if self.text.isascii():  # folds character for character
            whole = typography(self.text).lower()
            self.folded = [whole[start:end] for start, end in self.spans]
        else:
            self.folded = [typography(word).casefold() for word in self.words]

    def between(self, start: int, end: int) -> str:
        return self.text[self.spans[start][0] : self.spans[end - 1][1]] if start < end else ""

    def weighty(self, start: int, end: int | None) -> list[str]:
        return [word for word in self.folded[start:end] if _is_weighty(word)]

    def shown(self, start: int, end: int) -> str:
        """In quotation marks, cut in the middle where it is long, but never a number or a negation unsaid."""
        if end - start <= LONGEST:
            return f"'{self.between(start, end)}'"
        half = LONGEST // 2
        hidden = self.weighty(start + half, end - half)
        among = f" (with {', '.join(repr(word) for word in dict.fromkeys(hidden))})" if hidden else ""
        return f"'{self.between(start, start + half)} … {self.between(end - half, end)}'{among}"


def _is_weighty(word: str) -> bool:
    if word[0].isdecimal() or word.endswith("n't"):
        return True
    return any(part in NUMBER_WORDS or part in NEGATIONS for part in word.split("-"))


@dataclass(frozen=True)
class _Change:
    text: str
    rank: int  # 0 a number or a negation, 1 other words, 2 capitals and signs

    def __str__(self) -> str:
        return self.text


def _changes(said: _Words, stands: _Words, why: str = "") -> list[_Change]:
    from rapidfuzz.distance import Levenshtein

    found: list[_Change] = []
    open_at: tuple[int, int] | None = None
    for step in Levenshtein.opcodes(said.folded, stands.folded):
        if step.tag != "equal":
            open_at = open_at or (step.src_start, step.dest_start)
            continue
        if open_at:
            found.append(
                _change(said, (open_at[0], step.src_start), stands, (open_at[1], step.dest_start), why)
            )
            open_at = None
        for place in range(step.src_end - step.src_start):
            one, other = step.src_start + place, step.dest_start + place
            if said.words[one] != stands.words[other]:
                found.append(_change(said, (one, one + 1), stands, (other, other + 1), why))
    if open_at:
        ends = (len(said.words), len(stands.words))
        found.append(_change(said, (open_at[0], ends[0]), stands, (open_at[1], ends[1]), why))
    return found


def _change(
    said: _Words, mine: tuple[int, int], stands: _Words, theirs: tuple[int, int], why: str
) -> _Change:
    """Of one stretch of words that differs."""
    quote, source = said.between(*mine), stands.between(*theirs)
    if not why and quote and source:
        if quote.lower() == source.lower():
            why = " (capitals)"
        elif typography(quote).casefold() == typography(source).casefold():
            why = " (typography)"
    if why:
        return _Change(f"{said.shown(*mine)} for {stands.shown(*theirs)}{why}", 2)
    numbers = Counter(said.weighty(*mine)), Counter(stands.weighty(*theirs))
    rank = (
        0
        if numbers[0] != numbers[1] or _negated(said.folded[slice(*mine)], stands.folded[slice(*theirs)])
        else 1
    )
    if not source:
        return _Change(f"{said.shown(*mine)} added", rank)
    if not quote:
        return _Change(f"{stands.shown(*theirs)} left out", rank)
    (_, one), (_, other) = mine, theirs
    follows = said.folded[one : one + 1]
    if rank == 0 and follows and follows == stands.folded[other : other + 1] and follows[0].isalpha():
        mine, theirs = (mine[0], one + 1), (theirs[0], other + 1)  # a number with what it counts
    return _Change(f"{said.shown(*mine)} for {stands.shown(*theirs)}", rank)


def _negated(said: list[str], stands: list[str]) -> bool:
    """Whether a word of one side is one of the other's with a negating prefix: "unable" for "able"."""
    for one, other in ((said, stands), (stands, said)):
        bare = set(other) - set(one)
        for word in set(one) - set(other):
            if any(word.startswith(prefix) and word[len(prefix) :] in bare for prefix in NEGATING_PREFIXES):
                return True
    return False
