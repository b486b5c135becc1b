"""Sums of two numbers, worked in the head. (With the calculator: where tools are taught.)"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from glasshouse.world.land import Land, Part
from glasshouse.world.task import Phrasings, Task, ask

LARGEST = 99
_HELDOUT_EVERY = 5

REQUESTS = Phrasings(
    (
        "What is {a} + {b}?",
        "Add {a} and {b}.",
        "How much is {a} + {b}?",
        "Please work out {a} + {b}.",
        "Tell me what {a} + {b} makes.",
        "{a} + {b} = ?",
    ),
    ("Please add {a} and {b}.", "Work out {a} + {b}.", "Tell me how much {a} + {b} is."),
)


def pairs(rng: random.Random, part: Part) -> Iterator[tuple[int, int]]:
    """Pairs of numbers from 0 to 99; one pair in five is never in a training text, of those every third is
    for calibration and in no probe."""
    while True:
        a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
        unseen, rest = divmod(7 * a + 3 * b, _HELDOUT_EVERY)
        kind = "train" if rest else "heldout" if unseen % 3 else "calibration"
        if kind == part:
            yield a, b


def texts(land: Land, rng: random.Random) -> Iterator[str]:
    """Pages of a sum book."""
    source = pairs(rng, "train")
    while True:
        yield "\n".join(f"{a} + {b} = {a + b}" for a, b in (next(source) for _ in range(rng.randint(3, 8))))


def questions(land: Land, rng: random.Random, part: Part) -> Iterator[Task]:
    for a, b in pairs(rng, part):
        yield Task(
            ask(REQUESTS.draw(rng, part).format(a=a, b=b)),
            f"{a} + {b} = {a + b}",
            lambda reply, total=a + b: re.findall(r"\d+", reply)[-1:] == [str(total)],
        )
