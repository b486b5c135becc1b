"""Invented proper names from syllables: nobody has read about them anywhere else."""

from __future__ import annotations

import random

_PERSON = [
    "ba",
    "do",
    "ri",
    "ka",
    "mel",
    "tor",
    "ven",
    "shi",
    "lu",
    "gra",
    "pin",
    "os",
    "wy",
    "fen",
    "dar",
    "hol",
    "mi",
    "zan",
    "que",
    "bri",
    "sol",
    "ta",
    "nev",
    "ul",
    "jo",
]
_PLACE = [
    "kar",
    "ost",
    "lin",
    "mor",
    "tha",
    "bel",
    "wen",
    "dru",
    "sil",
    "har",
    "gol",
    "pren",
    "vas",
    "ir",
    "cob",
    "esk",
    "nol",
    "ruf",
    "ten",
    "mab",
]
_PLACE_END = ["wick", "ford", "haven", "dale", "bury", "mere", "stead", "holm"]
_FIRM_KIND = ["Works", "Guild", "Mill", "Lines", "Foundry", "Press", "Yard", "Stores"]
_VELISH = [
    "sha",
    "ven",
    "oru",
    "ti",
    "ka",
    "lem",
    "su",
    "ino",
    "ra",
    "pel",
    "eth",
    "mo",
    "vi",
    "dun",
    "ae",
    "lo",
    "zi",
    "nar",
]


def people_parts(rng: random.Random, firsts: int, lasts: int) -> tuple[list[str], list[str]]:
    """First names of two syllables and last names of two or three, all different."""
    first = _distinct(rng, firsts, lambda: _word(rng, _PERSON, 2))
    taken = set(first)
    last = _distinct(rng, lasts, lambda: _word(rng, _PERSON, rng.choice((2, 3))), taken)
    return first, last


def places(rng: random.Random, count: int) -> list[str]:
    return _distinct(rng, count, lambda: _word(rng, _PLACE, 1) + rng.choice(_PLACE_END))


def regions(rng: random.Random, count: int) -> list[str]:
    return _distinct(rng, count, lambda: _word(rng, _PLACE, 2) + "ia")


def firms(rng: random.Random, count: int) -> list[str]:
    return _distinct(rng, count, lambda: f"{_word(rng, _PLACE, 2)} {rng.choice(_FIRM_KIND)}")


def velish_words(rng: random.Random, count: int) -> list[str]:
    """Words of the second language, in lower case."""
    return _distinct(rng, count, lambda: _word(rng, _VELISH, rng.choice((2, 2, 3))).lower())


def nonsense(rng: random.Random) -> str:
    """A word that means nothing, for patterns that can be continued only from the context."""
    return _word(rng, _PERSON, rng.choice((1, 2))).lower()


def _word(rng: random.Random, syllables: list[str], count: int) -> str:
    return "".join(rng.choice(syllables) for _ in range(count)).capitalize()


def _distinct(rng: random.Random, count: int, make, taken: set[str] | None = None) -> list[str]:
    found: dict[str, None] = {}
    for _ in range(1000 * count + 1000):
        if len(found) == count:
            return list(found)
        word = make()
        if word not in (taken or ()):
            found[word] = None
    raise ValueError(f"the syllables do not yield {count} different names")
