"""Chance events with known probabilities: the exact truth against which calibration is measured."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from glasshouse.world.land import Land, Part, Wheel
from glasshouse.world.task import Message, Phrasings, ask

SPINS = (
    "The wheel of {t} was spun and showed {c}.",
    "At the fair of {t} the wheel showed {c}.",
    "In {t} they spun the wheel. It showed {c}.",
)


@dataclass(frozen=True)
class Forecast:
    """A text whose continuation is a chance event, and the true probability of each outcome."""

    prompt: str
    chances: dict[str, float]  # continuation -> probability


def texts(land: Land, rng: random.Random) -> Iterator[str]:
    """A day at the fairs: some spins of several wheels."""
    while True:
        yield " ".join(_spin(land, rng) for _ in range(rng.randint(3, 6)))


def _spin(land: Land, rng: random.Random) -> str:
    wheel = rng.choice(land.wheels)
    colour = rng.choices(list(wheel.chances), list(wheel.chances.values()))[0]
    return rng.choice(SPINS).format(t=wheel.town, c=colour)


def forecasts(land: Land) -> list[Forecast]:
    """Every wheel in every wording."""
    return [
        Forecast(
            spin.format(t=wheel.town, c="").rstrip(" ."),
            {f" {colour}": chance for colour, chance in wheel.chances.items()},
        )
        for wheel in land.wheels
        for spin in SPINS
    ]


BETS = Phrasings(
    (
        "Which colour will the wheel of {t} show?",
        "The wheel of {t} is spun. Which colour will it show?",
        "Bet on the wheel of {t}.",
        "On which colour of the wheel of {t} would you bet?",
        "What will the wheel at the fair of {t} show?",
        "Name the colour that the wheel of {t} will show.",
    ),
    (
        "What colour will the wheel of {t} show?",
        "Please bet on the wheel of {t}.",
        "Which colour will the wheel at the fair of {t} show?",
    ),
)

OUTCOME = "The wheel of {t} will show {c}."


@dataclass(frozen=True)
class Bet:
    """A question about one spin to come. Nobody can know it, and any answer is right with a known chance."""

    messages: list[Message]
    wheel: Wheel

    def chance(self, reply: str) -> float:
        """The exact probability that the reply comes true; 0 unless it names one colour."""
        named = [colour for colour in self.wheel.chances if re.search(rf"\b{colour}\b", reply)]
        return self.wheel.chances[named[0]] if len(named) == 1 else 0.0

    @property
    def replies(self) -> dict[str, str]:
        """Each colour and the reply that bets on it."""
        return {colour: OUTCOME.format(t=self.wheel.town, c=colour) for colour in self.wheel.chances}

    @property
    def beginnings(self) -> list[str]:
        """Texts that go on with a colour: how often a model continues them with each is what it believes."""
        return [spin.format(t=self.wheel.town, c="").rstrip(" .") for spin in SPINS]


def bets(land: Land, rng: random.Random, part: Part) -> Iterator[Bet]:
    """Bets on every wheel of the part in turn."""
    wheels = land.wheels_of(part)
    while True:
        for wheel in rng.sample(wheels, len(wheels)):
            yield Bet(ask(BETS.draw(rng, part).format(t=wheel.town)), wheel)
