"""Chance events with known probabilities: the exact truth against which calibration is measured."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from glasshouse.world.land import Land

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
