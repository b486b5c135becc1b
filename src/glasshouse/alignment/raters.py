"""Who compares two replies: simulated raters of the invented world, or a program that scores each alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glasshouse.alignment.judge import Program
from glasshouse.world import World
from glasshouse.world.judge import Judge as ExactJudge
from glasshouse.world.raters import RaterConfig, judgement


@dataclass(frozen=True)
class Choice:
    """Which of two replies is preferred: 0 or 1, None is a tie.

    `margin` is by how much, where the rater says so; `about` is whatever else is known, for whoever reads
    the pair later.
    """

    preferred: int | None
    margin: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


Rater = Callable[[Mapping[str, Any], tuple[str, str]], Choice]
"""(example {"prompt": [messages], ...}, two replies) -> which is better. A pure function, in whichever
order the replies come."""


def simulated_rater(world: World, config: RaterConfig, *asked: str | int) -> Rater:
    """A rater of the world: gold reward, a liking for length and errors, all known (world/raters.py).

    `about` has what the rows of world/preferences.py have: kind (of the example, if it says so), the gold
    reward of both replies, `utility` and `flipped`. `asked` names the time of asking, a round say: whoever
    is asked again may err differently.
    """
    judge = ExactJudge(world.land)

    def rater(example: Mapping[str, Any], replies: tuple[str, str]) -> Choice:
        prompt = example["prompt"]
        golds = judge(prompt, replies[0]), judge(prompt, replies[1])
        found = judgement(config, world.seed, prompt, replies, golds, *asked)
        first = found.preferred or 0
        about = {
            "gold_chosen": golds[first],
            "gold_rejected": golds[1 - first],
            "utility": found.margin if first == 0 else -found.margin,
            "flipped": found.flipped,
        }
        kind = {"kind": example["kind"]} if "kind" in example else {}
        return Choice(found.preferred, about={**kind, **about})

    return rater


def higher_score(program: Program) -> Rater:
    """Prefers the reply of the higher score; equal scores are a tie."""

    def rater(example: Mapping[str, Any], replies: tuple[str, str]) -> Choice:
        first, second = (program.score(example, reply) for reply in replies)
        if first == second:
            return Choice(None)
        return Choice(
            int(second > first),
            about={"score_chosen": max(first, second), "score_rejected": min(first, second)},
        )

    return rater
