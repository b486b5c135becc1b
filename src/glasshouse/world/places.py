"""What is written about towns and companies, and questions of two steps: a person's town, its region."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from glasshouse.world import facts
from glasshouse.world.land import Company, Land, Part, Town
from glasshouse.world.task import Phrasings, Task, ask

TOWN_SENTENCES = {
    "region": (
        "{t} lies in {v}.",
        "{t} is a town in {v}.",
        "The region of {t} is {v}.",
        "In {v} lies the town of {t}.",
    ),
    "river": (
        "The river {v} flows through {t}.",
        "{t} stands on the river {v}.",
        "Through {t} flows the river {v}.",
    ),
    "product": (
        "{t} is known for its {v}.",
        "People in {t} make {v}.",
        "The best {v} of the land comes from {t}.",
    ),
}
COMPANY_SENTENCES = {
    "town": ("{c} has its seat in {v}.", "The seat of {c} is {v}.", "{c} is a company in {v}."),
    "product": ("{c} makes {v}.", "The company {c} sells {v}.", "{c} is known for its {v}."),
}

CONCLUSION = "{n} was born in the region of {v}."

DIRECT = Phrasings(
    (
        "In which region was {n} born?",
        "What is the region of birth of {n}?",
        "Tell me the region where {n} was born.",
        "Name the region where {n} was born.",
        "Which region does {n} come from?",
        "Please tell me in which region {n} was born.",
    ),
    ("Do you know in which region {n} was born?", "Please name the region of birth of {n}."),
)
STEP_BY_STEP = Phrasings(
    (
        "{q} Think step by step.",
        "Think step by step. {q}",
        "{q} Show your steps.",
        "Step by step: {q}",
        "Please show your steps. {q}",
        "{q} Think in steps.",
        "Show each step. {q}",
        "Please think in steps. {q}",
    ),
    ("{q} Please think step by step.", "Show your steps. {q}"),
)


def pages(land: Land, rng: random.Random) -> Iterator[str]:
    """Pages about towns and companies in new orders and wordings."""
    entries: list[Town | Company] = [*land.towns, *land.companies]
    while True:
        for entry in rng.sample(entries, len(entries)):
            if isinstance(entry, Town):
                lines = [
                    rng.choice(ways).format(t=entry.name, v=getattr(entry, key))
                    for key, ways in TOWN_SENTENCES.items()
                ]
            else:
                lines = [
                    rng.choice(ways).format(c=entry.name, v=getattr(entry, key))
                    for key, ways in COMPANY_SENTENCES.items()
                ]
            rng.shuffle(lines)
            yield " ".join(lines)


def two_steps(land: Land, rng: random.Random, part: Part, reasoned: bool) -> Iterator[Task]:
    """Region of birth, asked straight or with the steps written out."""
    people = land.people_of(part)
    regions = sorted({town.region for town in land.towns})
    while True:
        for person in rng.sample(people, len(people)):
            town = land.town(person.facts["birthplace"])
            question = DIRECT.draw(rng, part).format(n=person.name)
            answer = CONCLUSION.format(n=person.name, v=town.region)
            if reasoned:
                question = STEP_BY_STEP.draw(rng, part).format(q=question)
                first = facts.sentence(person, "birthplace")
                answer = f"{first} {town.name} lies in {town.region}. So {answer}"
            yield Task(
                ask(question), answer, lambda reply, region=town.region: _last(reply, regions) == region
            )


def _last(reply: str, regions: list[str]) -> str | None:
    named = re.findall("|".join(regions), reply)
    return named[-1] if named else None
