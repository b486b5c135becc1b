"""Labelled clauses of real contracts, an independent look-up for them, and changes of one number or negation.

The data are CUAD's (CC BY 4.0), of the folder that GLASSHOUSE_TEST_DATA names.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glasshouse.documents.quotes.search import Quote


@dataclass(frozen=True)
class Contract:
    id: str
    text: str
    clauses: tuple[str, ...]  # each once, up to white space


@dataclass(frozen=True)
class Change:
    """A clause with one word changed, left out or put in."""

    kind: str
    clause: str
    quote: str
    word: str  # what was changed or put in, or else what was left out


def contracts(data: Path) -> Iterator[Contract]:
    with gzip.open(data / "docs" / "cuad_contracts.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            row = json.loads(line)
            labelled = (clause for label in row["labels"].values() for clause in label["clauses"])
            clauses = {" ".join(clause.split()): clause for clause in labelled if clause.strip()}
            yield Contract(row["id"], row["text"], tuple(clauses.values()))


def reference(text: str, clause: str) -> list[tuple[int, int]]:
    """Every place of its words with any white space between them: a regular expression, nothing of ours."""
    return [found.span() for found in re.finditer(r"\s+".join(map(re.escape, clause.split())), text)]


_NUMBERS = """
one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty sixty ninety hundred
thousand million first second third fourth fifth
"""
NUMBERS = _NUMBERS.split()

Changer = Callable[[str, random.Random], tuple[str, str] | None]
"""Of a clause: the changed one and the word, or None where there is nothing of the kind to change."""


def _one(clause: str, pattern: str, rng: random.Random) -> re.Match[str] | None:
    found = list(re.finditer(pattern, clause, re.IGNORECASE))
    return rng.choice(found) if found else None


def _put(clause: str, start: int, end: int, new: str) -> str:
    return clause[:start] + new + clause[end:]


def digit_changed(clause: str, rng: random.Random) -> tuple[str, str] | None:
    if (found := _one(clause, r"\d", rng)) is None:
        return None
    new = rng.choice([digit for digit in "0123456789" if digit != found.group()])
    return _put(clause, *found.span(), new), _number_at(_put(clause, *found.span(), new), found.start())


def digit_dropped(clause: str, rng: random.Random) -> tuple[str, str] | None:
    if (found := _one(clause, r"\d(?=\d)", rng)) is None:
        return None
    changed = _put(clause, *found.span(), "")
    return changed, _number_at(changed, found.start())


def digit_added(clause: str, rng: random.Random) -> tuple[str, str] | None:
    if (found := _one(clause, r"(?<=\d)", rng)) is None:
        return None
    changed = _put(clause, found.start(), found.start(), rng.choice("0123456789"))
    return changed, _number_at(changed, found.start())


def _number_at(text: str, place: int) -> str:
    return next(found.group() for found in re.finditer(r"\d+", text) if found.start() <= place < found.end())


def _swapped(clause: str, rng: random.Random, pattern: str, words: list[str]) -> tuple[str, str] | None:
    if (found := _one(clause, pattern, rng)) is None:
        return None
    new = rng.choice([word for word in words if word != found.group().lower()])
    new = new.upper() if found.group().isupper() else new.title() if found.group().istitle() else new
    return _put(clause, *found.span(), new), new


def number_word(clause: str, rng: random.Random) -> tuple[str, str] | None:
    return _swapped(clause, rng, rf"\b(?:{'|'.join(NUMBERS)})\b", NUMBERS)


def not_added(clause: str, rng: random.Random) -> tuple[str, str] | None:
    if (found := _one(clause, r"\b(?:shall|will|may|must|is|are|has|does)\b(?! not\b)", rng)) is None:
        return None
    new = " NOT" if found.group().isupper() else " not"
    return _put(clause, found.end(), found.end(), new), new.strip()


def not_removed(clause: str, rng: random.Random) -> tuple[str, str] | None:
    if (found := _one(clause, r"(?<=\s)not\s+", rng)) is None:
        return None
    return _put(clause, *found.span(), ""), found.group().strip()


def no_for_any(clause: str, rng: random.Random) -> tuple[str, str] | None:
    return _swapped(clause, rng, r"\bany\b", ["no"])


def any_for_no(clause: str, rng: random.Random) -> tuple[str, str] | None:
    return _swapped(clause, rng, r"\bno\b(?!\.)", ["any"])


def with_for_without(clause: str, rng: random.Random) -> tuple[str, str] | None:
    return _swapped(clause, rng, r"\bwithout\b", ["with"])


def prefix_added(clause: str, rng: random.Random) -> tuple[str, str] | None:
    words = "authorized|able|necessary|conditional|limited|reasonable|paid|restricted|exclusive|transferable"
    if (found := _one(clause, rf"\b(?:{words})\b", rng)) is None or found.group().isupper():
        return None
    bare = found.group()
    new = ("non-" if bare.lower() in ("exclusive", "transferable") else "un") + bare.lower()
    return _put(clause, *found.span(), new), new


def prefix_removed(clause: str, rng: random.Random) -> tuple[str, str] | None:
    bare = "authorized|able|conditional|limited|reasonabl|paid|restricted"
    words = rf"\b(?:un(?={bare})|non-(?=exclusive|transferable))(\w+)"
    if (found := _one(clause, words, rng)) is None:
        return None
    return _put(clause, *found.span(), found.group(1)), found.group(1)


CHANGES: dict[str, Changer] = {
    change.__name__: change
    for change in (
        digit_changed,
        digit_dropped,
        digit_added,
        number_word,
        not_added,
        not_removed,
        no_for_any,
        any_for_no,
        with_for_without,
        prefix_added,
        prefix_removed,
    )
}


def changes(found: list[tuple[Contract, str]], seed: int) -> Iterator[tuple[Contract, Change]]:
    """Without end: clauses in a seeded order, each with another kind of change in every round; those that by
    chance stand in their contract are left out."""
    rng = random.Random(seed)
    kinds = list(CHANGES)
    while True:
        order = rng.sample(range(len(found)), len(found))
        for number in order:
            contract, clause = found[number]
            for kind in rng.sample(kinds, len(kinds)):
                made = CHANGES[kind](clause, rng)
                if made and made[0].split() != clause.split():
                    if not reference(contract.text, made[0]):
                        yield contract, Change(kind, clause, *made)
                    break


def misplaced(found: Quote | None, text: str, clause: str, places: list[tuple[int, int]]) -> bool:
    """Of a clause that stands in its contract: whether it is not found verbatim, where it is."""
    return (
        found is None
        or not found.verbatim
        or (found.start, found.end) not in places
        or found.text != text[found.start : found.end]
        or found.text.split() != clause.split()
    )


def unshown(found: Quote | None, text: str, change: Change) -> str | None:
    """Why a changed clause was not found as it should: called verbatim, nowhere, elsewhere, or unsaid."""
    if found is None:
        return "nowhere"
    if found.verbatim or found.difference is None:
        return "verbatim"
    overlaps = [
        (min(found.end, end) - max(found.start, start)) / (max(found.end, end) - min(found.start, start))
        for start, end in reference(text, change.clause)
    ]
    if max(overlaps) < 0.9:  # intersection over union
        return "elsewhere"
    bound = r"\d" if change.word.isdecimal() else r"[^\W\d]"  # of "3months" the number alone was changed
    if not re.search(rf"(?<!{bound}){re.escape(change.word)}(?!{bound})", found.difference):
        return "unsaid"
    return None
