"""How well a reward model agrees with the invented world's simulated raters, whose errors are known.

Real raters' errors are not known; here a model that knew everything would agree with 1 - error of the labels,
and with all of them where no label was turned round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from glasshouse.alignment.reward_model import RewardModel
from glasshouse.evaluation.intervals import proportion
from glasshouse.world.raters import RaterConfig

DIFFICULTY = (0.0, 0.5, 1.0, 2.0, 100.0)
"""Edges of how much more the raters like one reply than the other: small is difficult."""


def rater_agreement(
    model: RewardModel, pairs: Sequence[Mapping[str, Any]], raters: RaterConfig
) -> dict[str, Any]:
    """Of pairs of `world.preferences`, with their metadata.

    accuracy        share of the labels that it agrees with; ceiling: the most that a stated error allows
    flipped         share of these labels that are wrong, counted
    with_raters     agreement with what the raters meant, errors undone
    with_gold       agreement with the gold reward, which has no length bias
    by_kind         with_raters, for each kind of request
    by_difficulty   with_raters, by how much better the raters find the better reply

    Shares are {"value", "low", "high", "n"} with 95% intervals.
    """
    rewards = [
        model.score([{"messages": [*pair["prompt"], *pair[side]]} for pair in pairs])
        for side in ("chosen", "rejected")
    ]
    agrees = (rewards[0] > rewards[1]).tolist()
    about = [pair["metadata"] for pair in pairs]
    meant = [hit != row["flipped"] for hit, row in zip(agrees, about, strict=True)]
    golden = [
        hit == (row["gold_chosen"] > row["gold_rejected"]) for hit, row in zip(agrees, about, strict=True)
    ]

    def among(chosen: Sequence[bool]) -> dict[str, Any] | None:
        hits = [hit for hit, taken in zip(meant, chosen, strict=True) if taken]
        return proportion(hits).as_dict() if hits else None

    return {
        "pairs": len(pairs),
        "ceiling": raters.ceiling,
        "flipped": sum(row["flipped"] for row in about) / len(pairs),
        "accuracy": proportion(agrees).as_dict(),
        "with_raters": proportion(meant).as_dict(),
        "with_gold": proportion(golden).as_dict(),
        "by_kind": {
            kind: among([row["kind"] == kind for row in about])
            for kind in sorted({row["kind"] for row in about})
        },
        "by_difficulty": [
            {"from": low, "to": high, "accuracy": among([low <= abs(row["utility"]) < high for row in about])}
            for low, high in pairwise(DIFFICULTY)
        ],
    }
