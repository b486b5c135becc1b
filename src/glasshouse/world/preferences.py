"""Preference pairs judged by simulated raters, with the truth beside every label.

Length says nothing about quality here: for every kind of request in turn comes a pair whose better reply is
the longer one, a pair whose better reply is the shorter one, and a pair of equally long replies. What a model
can learn about length from these labels is the raters' bias and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from itertools import cycle, islice
from typing import Any

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.errors import ConfigError
from glasshouse.world.candidates import Candidate, candidate
from glasshouse.world.judge import Judge
from glasshouse.world.land import Split
from glasshouse.world.raters import RaterConfig, judgement
from glasshouse.world.statements import words
from glasshouse.world.task import Task
from glasshouse.world.world import World

_POOL = {1: 6, -1: 6, 0: 12}
"""Replies drawn for one request at most, until two fit: more where they are to be equally long."""

_REQUESTS = 1000
"""Requests drawn at most until two replies to one differ as wanted; most often one or two are enough."""


class PreferenceCounts(Config):
    """How many pairs of each kind of request there are in training."""

    open: int = Field(default=1_500, ge=0)
    questions: int = Field(default=900, ge=0)
    strangers: int = Field(default=600, ge=0)
    instructions: int = Field(default=900, ge=0)
    translations: int = Field(default=150, ge=0)
    sums: int = Field(default=150, ge=0)
    two_step_direct: int = Field(default=150, ge=0)
    two_step_reasoned: int = Field(default=150, ge=0)
    harmful: int = Field(default=450, ge=0)
    harmless: int = Field(default=450, ge=0)
    reports: int = Field(default=150, ge=0)


class PreferenceConfig(Config):
    """Preference pairs of the invented world and the simulated raters who judge them."""

    counts: PreferenceCounts = PreferenceCounts()
    heldout: float = Field(default=0.2, gt=0, le=1, description="held-out pairs for each pair of training")
    margin: float = Field(
        default=0.5, gt=0, description="least difference of gold, and of utility, in a pair"
    )
    lies: float = Field(default=0.01, ge=0, le=1, description="share of replies with something false in them")
    raters: RaterConfig = RaterConfig()


def preferences(world: World, config: PreferenceConfig, split: Split = "train") -> Iterator[dict[str, Any]]:
    """Pairs `{"prompt", "chosen", "rejected", "metadata"}`, the kinds mixed.

    Held-out pairs are about other people, asked in other words and padded with other chatter. `metadata` has
    the kind, the gold reward of both replies, `utility` (the raters' for the chosen reply less that for the
    other, negative where they erred), `flipped`, and how each reply was made.
    """
    counts = config.counts.model_dump()
    if split == "heldout":
        counts = {kind: round(count * config.heldout) for kind, count in counts.items()}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    world.rng("preferences", split).shuffle(kinds)
    judge = Judge(world.land)
    sources = {kind: _pairs(world, config, judge, kind, split) for kind in counts}
    for kind in kinds:
        yield next(sources[kind])


class _Reply:
    """A candidate, its length, and its gold reward, which takes longest and is often not needed."""

    def __init__(self, candidate: Candidate, task: Task, judge: Judge) -> None:
        self.candidate, self.words = candidate, words(candidate.text)
        self._task, self._judge = task, judge

    @cached_property
    def gold(self) -> float:
        return self._judge(self._task.messages, self.candidate.text)


def _pairs(
    world: World, config: PreferenceConfig, judge: Judge, kind: str, split: Split
) -> Iterator[dict[str, Any]]:
    """Pairs of one kind without end."""
    rng = world.rng("preferences", kind, split)
    tasks = world.tasks(kind, "feedback" if split == "train" else split, "preferences")
    for number, sign in enumerate(cycle((1, -1, 0))):
        task, pair = _pair(tasks, judge, rng, split, config, sign)
        yield _judged(world, config.raters, kind, task, pair, f"{split} {number}")


def _judged(
    world: World, raters: RaterConfig, kind: str, task: Task, pair: tuple[_Reply, _Reply], asked: str
) -> dict[str, Any]:
    """The row of a pair that a rater judged."""
    texts, golds = (pair[0].candidate.text, pair[1].candidate.text), (pair[0].gold, pair[1].gold)
    found = judgement(raters, world.seed, task.messages, texts, golds, kind, asked)
    assert found.preferred is not None, "a pair with a margin is no tie"
    chosen, rejected = pair[found.preferred], pair[1 - found.preferred]
    return {
        "prompt": task.messages,
        "chosen": _turn(chosen),
        "rejected": _turn(rejected),
        "metadata": {
            "kind": kind,
            "gold_chosen": chosen.gold,
            "gold_rejected": rejected.gold,
            "utility": found.margin if found.preferred == 0 else -found.margin,
            "flipped": found.flipped,
            "chosen_made": chosen.candidate.made,
            "rejected_made": rejected.candidate.made,
        },
    }


def _pair(
    tasks: Iterator[Task],
    judge: Judge,
    rng: random.Random,
    split: Split,
    config: PreferenceConfig,
    sign: int,
) -> tuple[Task, tuple[_Reply, _Reply]]:
    """A request and two replies that fit together."""
    for task in islice(tasks, _REQUESTS):
        wish = judge.wish(task.messages)
        replies: list[_Reply] = []
        for _ in range(_POOL[sign]):
            reply = _Reply(candidate(wish, judge.land, rng, split, config.lies), task, judge)
            for other in replies:
                if _fits(config, sign, other, reply):
                    return task, (other, reply)
            replies.append(reply)
    raise ConfigError(
        f"replies to {_REQUESTS} requests never differ as preferences.margin and raters.length_bias ask",
        fix="lower one of them",
    )


def _fits(config: PreferenceConfig, sign: int, first: _Reply, second: _Reply) -> bool:
    """Whether the better reply is longer (1), shorter (-1) or as long (0), with a margin in both measures."""
    longer = first.words - second.words
    if (longer == 0) != (sign == 0):
        return False
    better = first.gold - second.gold
    sure = min(abs(better), abs(better + config.raters.length_bias * longer)) >= config.margin
    return sure and ((longer * better > 0) - (longer * better < 0)) == sign


def _turn(reply: _Reply) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": reply.candidate.text}]
