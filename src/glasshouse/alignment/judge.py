"""Who gives a reply its reward: a program, such as a verifier of sums, or a reward model in a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glasshouse.alignment.rollouts import Reply
from glasshouse.core.errors import DataError


@dataclass(frozen=True)
class Judge:
    """A program that gives a reply its reward: score(example, reply's text), any finite number.

    It must be a pure function. `name` tells it from others: a run continues only under that name.
    """

    name: str
    score: Callable[[Mapping[str, Any], str], float]


def judged(judge: Judge, examples: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Reply]]) -> Tensor:
    """Each reply's reward, (prompts, group) float32. Raises DataError for one that is no finite number."""
    rewards = torch.tensor(
        [
            [float(judge.score(example, reply.text)) for reply in group]
            for example, group in zip(examples, groups, strict=True)
        ]
    )
    if not rewards.isfinite().all():
        place = int((~rewards.isfinite()).any(1).nonzero()[0])
        raise DataError(
            f"the judge '{judge.name}' gave a reward that is no finite number",
            where=f"prompt {list(examples[place]['prompt'])}",
            fix="give every reply a number; 0 for one that cannot be judged",
        )
    return rewards
