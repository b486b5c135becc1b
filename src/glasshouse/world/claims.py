"""Claims about people, and whether they are true: a model that can check a statement can judge a reply.

A model that only continues pages tells a true statement from a false one badly: what it would have written
itself is not compared with what stands there. Here the comparison is what comes next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from glasshouse.world import facts
from glasshouse.world.land import Land, Person

TRUE = ("That is true.", "That is right.", "Yes, so it is.")
FALSE = ("That is false.", "That is wrong.", "No, not so.")
ALL_TRUE = ("All of that is true.", "All of that is right.")
NOT_ALL_TRUE = ("Not all of that is true.", "Some of that is wrong.")

OPENINGS = ("People say:", "Somebody wrote:", "Is this true?", "A letter says:", "Check this:")


def texts(land: Land, rng: random.Random, phrasings: int) -> Iterator[str]:
    """Some claims, one after the other, each with its verdict; or several of one person judged together."""
    while True:
        together = rng.random() < 0.5
        parts = [_judged(land, rng, phrasings, together) for _ in range(rng.randint(2, 4))]
        opening = [rng.choice(OPENINGS)] if rng.random() < 0.5 else []
        yield "\n".join([*opening, *parts])


def _judged(land: Land, rng: random.Random, phrasings: int, together: bool) -> str:
    """Claims about one person and their verdict; half of the verdicts say that something is false."""
    person = rng.choice(land.people)
    said = rng.sample(facts.ATTRIBUTES, rng.randint(2, 5) if together else 1)
    right = rng.random() < 0.5
    lies = () if right else rng.sample(said, rng.choice((1, 1, 2)) if together else 1)
    told = Person(person.name, {**person.facts, **{a: other(a, person, land, rng) for a in lies}})
    claims = " ".join(facts.sentence(told, attribute, _wording(rng, phrasings)) for attribute in said)
    verdicts = (ALL_TRUE if right else NOT_ALL_TRUE) if together else (TRUE if right else FALSE)
    return f"{claims} {rng.choice(verdicts)}"


def _wording(rng: random.Random, phrasings: int) -> int:
    """Often the wording in which replies are written."""
    return 0 if rng.random() < 0.3 else rng.randrange(phrasings)


def other(attribute: str, person: Person, land: Land, rng: random.Random) -> str:
    """A value of the attribute that is not this person's."""
    return rng.choice([v for v in facts.values(attribute, land) if v != person.facts[attribute]])
