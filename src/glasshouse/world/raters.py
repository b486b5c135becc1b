"""Simulated raters. No person judged anything here: what they like, and how often they err, is known.

A rater's utility of a reply is its gold reward plus `length_bias` for every word that it has beyond the other
reply, and the rater names the reply of higher utility, but with probability `error` the other one. So no
reward model can agree with such labels more often than 1 - error, and what it can be cheated with is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.seeds import derive
from glasshouse.world.statements import words
from glasshouse.world.task import Message

_EQUAL = 1e-9
"""Utilities closer than this are equal: they are sums of a few decimal fractions."""


class RaterConfig(Config):
    """How the simulated raters depart from the gold reward."""

    error: float = Field(default=0.1, ge=0, lt=0.5, description="probability that a judgement is reversed")
    length_bias: float = Field(
        default=0.04,
        ge=0,
        description="utility of each word beyond the other reply's",
    )

    @property
    def ceiling(self) -> float:
        """The highest accuracy that a reward model can have on these labels, ties left out."""
        return 1 - self.error


@dataclass(frozen=True)
class Judgement:
    """Which of two replies is preferred (0 or 1; None is a tie), and why."""

    preferred: int | None
    margin: float  # utility of the first reply less that of the second
    flipped: bool  # whether the error turned the preference round


def judgement(
    config: RaterConfig,
    seed: int,
    prompt: list[Message],
    replies: tuple[str, str],
    golds: tuple[float, float],
    *asked: str | int,
) -> Judgement:
    """One simulated rater's judgement of two replies to a prompt, given their gold rewards.

    It depends on the seed and on what is judged, in either order. A rater who is asked again (`asked`: a
    name for each time, a round say) may err differently.
    """
    margin = golds[0] - golds[1] + config.length_bias * (words(replies[0]) - words(replies[1]))
    if abs(margin) < _EQUAL:
        return Judgement(None, 0.0, False)
    turns = [f"{message['role']}: {message['content']}" for message in prompt]
    chance = derive(seed, "simulated raters", *asked, *turns, *sorted(replies)) / 2**63
    flipped = chance < config.error
    return Judgement(int((margin < 0) != flipped), margin, flipped)
