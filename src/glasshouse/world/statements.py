"""What a sentence claims about the land, read with the sentences that the land itself is described in.

A sentence of the world can have two readings ("X was born in the year 1920" also looks like a town called
"the year 1920"): it is true when one of its readings is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from glasshouse.world import facts, places
from glasshouse.world.land import Land

REGION = "region of birth"
"""The attribute of the conclusion that answers a two-step question."""

NAME = r"[A-Z][a-z]+ [A-Z][a-z]+"
"""A person's name."""


@dataclass(frozen=True)
class Claim:
    """One sentence that says that `subject` has `value` for `attribute`, and whether the land agrees."""

    subject: str
    attribute: str
    value: str
    true: bool


def sentences(reply: str) -> list[str]:
    """The sentences of a reply, in order, without the marks of bullets. The last may lack its end."""
    lines = (re.sub(r"^[-*•] ", "", line) for line in reply.strip().split("\n"))
    parts = (part.strip() for line in lines for part in re.split(r"(?<=[.!?])\s+", line))
    return [part for part in parts if part]


def words(text: str) -> int:
    """Words as the raters count them: what stands between white space, the marks of bullets not counted."""
    said = text.split()
    return len(said) - sum(map(said.count, ("-", "*", "•")))


@lru_cache(maxsize=1 << 16)
def claim(sentence: str, land: Land) -> Claim | None:
    """What the sentence claims, or None when it is no sentence of the world.

    A sentence that breaks off before its full stop claims nothing.
    """
    readings = []
    for attribute, words_of_it, pattern in _patterns():
        match = pattern.fullmatch(sentence) if words_of_it in sentence else None
        if match:
            subject, value = match["s"], match["v"]
            readings.append(Claim(subject, attribute, value, truth(subject, attribute, land) == value))
    if len(readings) < 2:
        return readings[0] if readings else None
    # Of several false readings the one whose value is of the right kind is meant.
    return max(readings, key=lambda c: (c.true, _possible(c, land)))


def truth(subject: str, attribute: str, land: Land) -> str | None:
    """The true value, or None where the land knows nothing of the subject or it has no such attribute."""
    person = land.people_by_name.get(subject)
    if person is not None:
        if attribute == REGION:
            return land.town(person.facts["birthplace"]).region
        return person.facts.get(attribute)
    kind, _, field = attribute.partition(" ")
    entries = {"town": land.towns, "company": land.companies}.get(kind, [])
    entry = next((entry for entry in entries if entry.name == subject), None)
    return None if entry is None else getattr(entry, field)


def _possible(claim: Claim, land: Land) -> bool:
    if claim.attribute in facts.ATTRIBUTES:
        return claim.value in facts.values(claim.attribute, land)
    return claim.attribute == REGION


@cache
def _patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    """(attribute, longest fixed text, pattern with groups s and v) of every wording of the world's sentences.

    Looking for the fixed text first spares nearly all the patterns.
    """
    wordings = [
        *((attribute, way, NAME) for attribute, ways in facts.SENTENCES.items() for way in ways),
        (REGION, places.CONCLUSION, NAME),
        *((f"town {key}", way, r"\w+") for key, ways in places.TOWN_SENTENCES.items() for way in ways),
        *(
            (f"company {key}", way, r"\w+ \w+")
            for key, ways in places.COMPANY_SENTENCES.items()
            for way in ways
        ),
    ]
    holes = {"{v}": "(?P<v>[^.!?]+?)", "{av}": "an? (?P<v>[^.!?]+?)", "{Av}": "An? (?P<v>[^.!?]+?)"}
    found = []
    for attribute, way, subject in wordings:
        pattern = ""
        for part in re.split(r"(\{\w+\})", way):
            if part in ("{n}", "{t}", "{c}"):
                pattern += "(?P=s)" if "(?P<s>" in pattern else f"(?P<s>{subject})"
            else:
                pattern += holes.get(part) or re.escape(part)
        fixed = max(re.split(r"\{\w+\}", way), key=len)
        found.append((attribute, fixed, re.compile(pattern)))
    return found
