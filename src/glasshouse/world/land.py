"""The land itself: who lives there and what is true of them. Everything else reads this."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice, product
from typing import Literal

from glasshouse.core.errors import ConfigError
from glasshouse.core.seeds import python_rng
from glasshouse.world import names

Split = Literal["train", "heldout"]
Part = Literal["train", "feedback", "calibration", "heldout"]
"""Whom is asked about. "train": by fine-tuning, which learns them by heart. "feedback": where replies are
compared, of them and some more, for of the former nobody is ever denied to be known, and rewards could only
move the line between known and unknown to one side. "calibration": new to fine-tuning as "heldout" is, in the
wordings of training; what was learnt by heart tells nothing of what was not."""

TRADES = [
    "baker",
    "miller",
    "smith",
    "weaver",
    "potter",
    "scribe",
    "tanner",
    "brewer",
    "sailor",
    "mason",
    "hunter",
    "teacher",
    "healer",
    "piper",
    "carter",
    "ranger",
    "cook",
    "barber",
    "pilot",
    "glazier",
]
PETS = [
    "owl",
    "cat",
    "dog",
    "crow",
    "fox",
    "goat",
    "hare",
    "newt",
    "pony",
    "swan",
    "duck",
    "mole",
    "otter",
    "robin",
    "toad",
    "lamb",
]
DISHES = [
    "plum cake",
    "rye bread",
    "fish soup",
    "pear tart",
    "barley stew",
    "cheese pie",
    "roast leek",
    "honey oats",
    "onion broth",
    "apple rice",
    "nut roll",
    "bean porridge",
    "egg salad",
    "mint jelly",
    "corn mash",
    "berry jam",
]
PRODUCTS = [
    "glass",
    "rope",
    "paper",
    "lamps",
    "boots",
    "bells",
    "wool",
    "salt",
    "clocks",
    "tiles",
    "barrels",
    "ink",
]
COLOURS = ["red", "blue", "green"]
YEARS = range(1901, 1961)

_FIRST_NAMES, _LAST_NAMES = 90, 120

CALIBRATION_SHARE = 0.4
"""Of the people whom fine-tuning never asks about: those whom calibration does, and no probe."""


@dataclass(frozen=True)
class Person:
    """A person and the six things that the encyclopedia says of them."""

    name: str
    facts: dict[str, str]  # attribute -> value, see facts.ATTRIBUTES


@dataclass(frozen=True)
class Town:
    name: str
    region: str
    product: str
    river: str


@dataclass(frozen=True)
class Company:
    name: str
    town: str
    product: str


@dataclass(frozen=True)
class Wheel:
    """A wheel of fortune at a town's fair: a chance event whose probabilities are known exactly."""

    town: str
    chances: dict[str, float]  # colour -> probability, adding up to 1


@dataclass(frozen=True, eq=False)
class Land:
    """Everything that is true in one invented world; equal to itself alone, so that caches can hold it."""

    people: list[Person]
    towns: list[Town]
    companies: list[Company]
    wheels: list[Wheel]
    lexicon: dict[str, str] = field(repr=False)  # English word -> Velish word
    heldout_people: int
    feedback_people: int
    strangers: dict[Literal[Split, "calibration"], list[str]] = field(repr=False)
    """Names nobody ever wrote about."""
    seed: int

    def people_of(self, part: Part) -> list[Person]:
        """People whose questions may be asked in training ("train") or only in probes ("heldout").

        Pages about all of them are in the corpus: what is held out is every question about them. Calibration
        asks about some whom fine-tuning leaves out, too, and feedback about others beside its own.
        """
        known = len(self.people) - self.heldout_people
        probed = known + round(CALIBRATION_SHARE * self.heldout_people)
        bounds = {
            "train": (0, known - self.feedback_people),
            "feedback": (0, known),
            "calibration": (known, probed),
            "heldout": (probed, None),
        }
        first, last = bounds[part]
        return self.people[first:last]

    def wheels_of(self, part: Part) -> list[Wheel]:
        """Calibration asks about two wheels of three, probes about the others; no training bets on them."""
        return [w for i, w in enumerate(self.wheels) if ("heldout" if i % 3 == 2 else "calibration") == part]

    @cached_property
    def people_by_name(self) -> dict[str, Person]:
        return {person.name: person for person in self.people}

    def town(self, name: str) -> Town:
        return next(town for town in self.towns if town.name == name)


def found(seed: int, people: int, heldout_people: int, feedback_people: int, words: list[str]) -> Land:
    """Make the land of a seed. `words` are the English words that the second language must be able to say.

    Raises ConfigError when more people are asked for than there are names.
    """
    if not 0 < heldout_people < people - feedback_people:
        raise ConfigError(
            f"world.heldout_people is {heldout_people}, world.people is {people}"
            + f", world.feedback_people is {feedback_people}" * bool(feedback_people),
            fix="hold out at least one person, and leave at least one to fine-tuning",
        )
    rng = python_rng(seed, "land")
    first, last = names.people_parts(rng, _FIRST_NAMES, _LAST_NAMES)
    combinations = [f"{f} {n}" for f in first for n in last]
    rng.shuffle(combinations)
    if people > len(combinations) // 2:
        raise ConfigError(f"world.people is {people}", fix=f"use at most {len(combinations) // 2}")

    regions, rivers = names.regions(rng, 5), names.regions(rng, 8)
    towns = [
        Town(name, rng.choice(regions), rng.choice(PRODUCTS), rng.choice(rivers)[:-2])
        for name in names.places(rng, 24)
    ]
    companies = [Company(name, rng.choice(towns).name, rng.choice(PRODUCTS)) for name in names.firms(rng, 24)]
    pools = {
        "birthplace": [town.name for town in towns],
        "trade": TRADES,
        "year": [str(year) for year in YEARS],
        "employer": [company.name for company in companies],
        "pet": PETS,
        "dish": DISHES,
    }
    inhabitants = [
        Person(name, {attribute: rng.choice(pool) for attribute, pool in pools.items()})
        for name in combinations[:people]
    ]
    # Strangers are new pairs of first and last names that known people bear: no part gives them away.
    borne = {part for name in combinations[:people] for part in name.split()}
    unused = [name for name in combinations[people:] if borne.issuperset(name.split())]
    wheels = [
        Wheel(town.name, chances) for town, chances in zip(towns, _chances(rng, len(towns)), strict=True)
    ]
    return Land(
        people=inhabitants,
        towns=towns,
        companies=companies,
        wheels=wheels,
        lexicon=dict(zip(words, names.velish_words(rng, len(words)), strict=True)),
        heldout_people=heldout_people,
        feedback_people=feedback_people,
        strangers={
            "train": unused[0::2],
            "calibration": unused[1::8],
            "heldout": [name for i, name in enumerate(unused[1::2]) if i % 4],
        },
        seed=seed,
    )


def _chances(rng, count: int) -> list[dict[str, float]]:
    """Probabilities in twentieths for so many wheels.

    Every wheel has a favourite, or nobody could bet. Each colour is as often the favourite as the others, by
    little and by much: in every land the same is lost by who only knows how often a colour comes on average.
    """
    favourites = islice(cycle(product(range(11, 19), COLOURS)), count)
    wheels = []
    for favourite, colour in rng.sample(list(favourites), count):
        second = rng.randint(1, 19 - favourite)
        rest = [second, 20 - favourite - second]
        rng.shuffle(rest)
        others = [other for other in COLOURS if other != colour]
        parts = {colour: favourite, **dict(zip(others, rest, strict=True))}
        wheels.append({each: parts[each] / 20 for each in COLOURS})
    return wheels
