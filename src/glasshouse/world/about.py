"""Open requests: "Tell me about X". How much to say is left to whoever replies, and so is what to say first.

Fine-tuning shows one to four facts, as people differ in how much they say; raters, reward and
reinforcement learning then tell how much is best. They can only prefer what is sampled: a model that was
never asked openly says two sentences every time, and a third one is eight nats away.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from glasshouse.world import facts, verdicts
from glasshouse.world.gold import OPEN_FACTS, Wish
from glasshouse.world.land import Land, Part, Person
from glasshouse.world.task import Phrasings, Task, ask

REQUESTS = Phrasings(
    (
        "Tell me about {n}.",
        "Describe {n}.",
        "Tell me some facts about {n}.",
        "Tell me about {n} in several sentences.",
        "Use some sentences to describe {n}.",
        "I want some sentences about {n}.",
        "What do you know about {n}? Use some sentences.",
        "In several sentences, describe {n}.",
        "Who is {n}? Answer in some sentences.",
        "Say some sentences about {n}.",
        "Describe {n} in several sentences.",
        "Give several sentences on {n}.",
        "Write some sentences about {n}.",
    ),
    (
        "Please describe {n}.",
        "Please tell me some facts about {n}.",
        "In some sentences, what do you know about {n}?",
        "Please describe {n} in some sentences.",
        "Give me several sentences about {n}.",
        "Please tell me about {n} in several sentences.",
    ),
)

STRANGERS = 0.1
"""Share of the requests that ask about somebody nobody ever wrote about.

With 0.2, what reinforcement learning teaches most is to know fewer."""


def tasks(land: Land, rng: random.Random, part: Part, fewest: int = OPEN_FACTS) -> Iterator[Task]:
    """Open requests about people of the part, and some about strangers; replies of `fewest` facts or more."""
    people = land.people_of(part)
    strangers = facts.strangers(land, part)
    while True:
        request = REQUESTS.draw(rng, part)
        if rng.random() < STRANGERS:
            name = rng.choice(strangers)
            yield Task(ask(request.format(n=name)), facts.ABSTENTION.format(n=name), facts.abstains)
        else:
            person = rng.choice(people)
            told = rng.sample(facts.ATTRIBUTES, rng.randint(fewest, OPEN_FACTS))
            reply = " ".join(facts.sentence(person, attribute) for attribute in told)
            yield Task(ask(request.format(n=person.name)), reply, _truthful(person, land))


def _truthful(person: Person, land: Land):
    """A check that a reply says something about the person, and nothing false."""

    def check(reply: str) -> bool:
        verdict = verdicts.verdict(wish(person), reply, land)
        return verdict.right > 0 and not verdict.false

    return check


def wish(person: Person) -> Wish:
    """What an open request about a known person asks for."""
    told = facts.ATTRIBUTES[:OPEN_FACTS]
    return Wish(
        "telling",
        " ".join(facts.sentence(person, attribute) for attribute in told),
        name=person.name,
        attributes=facts.ATTRIBUTES,
        count=OPEN_FACTS,
    )
