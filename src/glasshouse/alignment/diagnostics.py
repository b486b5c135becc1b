"""Is this run still learning what it should? One number a step for each worry, and alarms with names.

A rule reads series (oldest first, one number a step) and returns what is wrong in one sentence, or None.
It has no state, so a run that was resumed, or a file of metrics, gives the same alarms. Thresholds are the
constants below: each says where it is from. A rule is silent until its window is full.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glasshouse.core.progress import say

NEGATIVE_KL = -1.0
"""Nats a reply. A true KL is never negative; a sampled mean of k1 may be, by its noise. Below this, where
`trl`'s PPO warned, samples and log-probabilities do not belong together (temperature, cut replies, masks)."""

EXPLODING_KL = 20.0
"""Nats a reply: twice the 10 that this project allows an aligned model to be away from its reference."""

ENTROPY_LEFT = 0.1
"""Share of the first steps' entropy: below, the policy says one thing, and groups have nothing to compare."""

LENGTH_FACTOR = 1.5
"""Longer, or shorter, than in the first steps by so much: an assumption. That RLHF
drives lengths is known (arXiv:2310.03716)."""

EXPLAINED_VARIANCE = 0.0
"""Below, the value head is worse than one constant, and advantages are noisier than without it."""

VALUE_STEPS = 20
"""Rollouts from which a value head, which begins at zero, has something to learn: an assumption."""

CLIPPED_FRACTION = 0.3
"""Of tokens: an assumption. Above, the steps are too large for the samples that they learn from."""

WINDOW = 5
"""Steps at either end that are averaged before they are compared, against the noise of single steps."""

HACKING_WINDOW = 20
"""Steps over which proxy and gold must part."""

HACKING_ERRORS = 3.0
"""Standard errors that each slope must be away from zero. By chance both are in one of some 70,000
windows (Student's t with 18 degrees of freedom)."""


@dataclass(frozen=True)
class Alarm:
    """`name` of a rule, the step at which it first fired, and what it said."""

    name: str
    step: int
    reason: str


@torch.no_grad()
def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask: 1 is perfect, 0 what a constant reaches.

    NaN where all returns are equal: there is nothing to explain.
    """
    values, returns = values[mask].double(), returns[mask].double()
    if len(returns) < 2:
        return math.nan
    spread = float(returns.var())
    return 1 - float((returns - values).var()) / spread if spread > 0 else math.nan


def negative_kl(kl: Sequence[float]) -> str | None:
    """The newest step's mean k1 a reply lies below what noise explains."""
    if kl and kl[-1] < NEGATIVE_KL:
        return f"KL to the reference is {kl[-1]:.2f} nats a reply: samples and log-probabilities do not agree"
    return None


def exploding_kl(kl: Sequence[float]) -> str | None:
    """The newest step is far from the reference, or not a number."""
    if kl and not kl[-1] <= EXPLODING_KL:
        return f"KL to the reference is {kl[-1]:.2f} nats a reply: raise the KL coefficient, or stop earlier"
    return None


def entropy_collapse(entropy: Sequence[float]) -> str | None:
    """The policy has become nearly sure of every token."""
    ends = _ends(entropy)
    if ends and ends[1] < ENTROPY_LEFT * ends[0]:
        return f"entropy fell from {ends[0]:.3f} to {ends[1]:.3f} nats a token: replies have become one reply"
    return None


def length_drift(length: Sequence[float]) -> str | None:
    """Replies have become much longer or shorter."""
    ends = _ends(length)
    if ends and not ends[0] / LENGTH_FACTOR <= ends[1] <= ends[0] * LENGTH_FACTOR:
        return f"replies went from {ends[0]:.0f} to {ends[1]:.0f} tokens: does the reward like lengths?"
    return None


def value_explains_nothing(variance: Sequence[float]) -> str | None:
    """The value head's predictions are worse than their mean."""
    if len(variance) >= VALUE_STEPS and (mean := _mean(variance[-WINDOW:])) < EXPLAINED_VARIANCE:
        return f"the value head explains {mean:.2f} of the returns' variance: less than a constant would"
    return None


def too_much_clipped(fraction: Sequence[float]) -> str | None:
    """Steps go further than the clip allows."""
    if len(fraction) >= WINDOW and (mean := _mean(fraction[-WINDOW:])) > CLIPPED_FRACTION:
        return (
            f"{mean:.0%} of tokens are clipped: lower the learning rates, or learn less often from a sample"
        )
    return None


def reward_hacking(proxy: Sequence[float], gold: Sequence[float]) -> str | None:
    """What is trained on rises while what is meant falls, both beyond their noise (arXiv:2210.10760)."""
    if min(len(proxy), len(gold)) < HACKING_WINDOW:
        return None
    up, down = slope(proxy[-HACKING_WINDOW:]), slope(gold[-HACKING_WINDOW:])
    if up[0] > HACKING_ERRORS * up[1] and down[0] < -HACKING_ERRORS * down[1]:
        return (
            f"over {HACKING_WINDOW} steps the proxy reward rose by {up[0]:.3g} a step and the gold reward "
            f"fell by {-down[0]:.3g}: the policy cheats the reward"
        )
    return None


def slope(series: Sequence[float]) -> tuple[float, float]:
    """(least-squares slope a step, its standard error) of three numbers or more."""
    n = len(series)
    steps = [i - (n - 1) / 2 for i in range(n)]
    spread, mean = sum(x * x for x in steps), _mean(series)
    rise = sum(x * (y - mean) for x, y in zip(steps, series, strict=True)) / spread
    rest = sum((y - mean - rise * x) ** 2 for x, y in zip(steps, series, strict=True))
    return rise, math.sqrt(rest / (n - 2) / spread)


RULES: dict[str, tuple[Callable[..., str | None], tuple[str, ...]]] = {
    "negative_kl": (negative_kl, ("kl",)),
    "exploding_kl": (exploding_kl, ("kl",)),
    "entropy_collapse": (entropy_collapse, ("entropy",)),
    "length_drift": (length_drift, ("reply_tokens",)),
    "value_explains_nothing": (value_explains_nothing, ("explained_variance",)),
    "too_much_clipped": (too_much_clipped, ("clipped_fraction",)),
    "reward_hacking": (reward_hacking, ("reward_proxy", "reward_gold")),
}
"""Each alarm's rule, and the columns of metrics.jsonl that it reads."""


def alarms(rows: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """Every rule that fired, at the first step where it did, from the rows of metrics.jsonl.

    A rule reads the rows that have all of its columns; the others are left out. Of several steps on the same
    `rollouts` the last one counts: what they tell of their samples they tell only once.
    """
    newest = {row.get("rollouts", -number): row for number, row in enumerate(rows, 1)}
    rows = list(newest.values())
    found = []
    for name, (rule, columns) in RULES.items():
        having = [row for row in rows if all(column in row for column in columns)]
        series = [[row[column] for row in having] for column in columns]
        for end in range(1, len(having) + 1):
            reason = rule(*(values[:end] for values in series))
            if reason is not None:
                found.append(Alarm(name, having[end - 1]["step"], reason))
                break
    return sorted(found, key=lambda alarm: alarm.step)


def tell_alarms(metrics: Path) -> list[Alarm]:
    """`alarms` of a metrics.jsonl, each told in a line."""
    found = alarms([json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()])
    for alarm in found:
        say(f"alarm: {alarm.name} at step {alarm.step}: {alarm.reason}")
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ends(series: Sequence[float]) -> tuple[float, float] | None:
    """Means of the first and of the newest window; None until they are apart."""
    if len(series) < 2 * WINDOW:
        return None
    return _mean(series[:WINDOW]), _mean(series[-WINDOW:])
