"""Rules of a cascade, and which of them are worth testing.

A rule sets all tiers' thresholds together, so that one test speaks for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from glasshouse.classify.calibration import logistic_curve, sigmoid
from glasshouse.llm.routing_samples import Table

LEVELS, BEGINNINGS = 40, 8
"""Rules tried out: confidences times probabilities of being enough."""


@dataclass(frozen=True)
class Rule:
    """Thresholds of all tiers but the last; -inf always accepts, +inf never asks."""

    accept: tuple[float, ...]
    begin: float = 0.0

    def walk(
        self, sure: np.ndarray | None, likely: np.ndarray | None, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """((n,) the tier that answers, (n, tiers) whether it was asked)."""
        levels = np.array(self.accept)
        asked = np.broadcast_to(levels < np.inf, (n, len(levels)))
        if likely is not None:
            asked = asked & (likely >= self.begin)
        taken = asked if sure is None else asked & (sure >= levels)  # a confidence that is nan is never taken
        taken = np.concatenate([taken, np.ones((n, 1), bool)], axis=1)
        answers = taken.argmax(axis=1)
        reached = np.arange(len(levels) + 1) <= answers[:, None]
        return answers, reached & np.concatenate([asked, np.ones((n, 1), bool)], axis=1)


@dataclass(frozen=True)
class Outcome:
    answers: np.ndarray
    asked: np.ndarray
    accepted: int
    errors: int
    cost: float  # mean, of a request


def outcome_of(rule: Rule, table: Table) -> Outcome:
    answers, asked = rule.walk(table.sure, table.likely, len(table.right))
    taken = answers < table.right.shape[1] - 1
    wrong = ~table.right[np.arange(len(answers)), answers]
    cost = float((table.cost * asked).sum(axis=1).mean())
    return Outcome(answers, asked, int(taken.sum()), int((wrong & taken).sum()), cost)


def path_of(design: Table, epsilon: float, scale: float) -> list[Rule]:
    """Rules from careful to bold: each costs less than all before it, and errs more.

    Begins with the one that is likeliest to be proved on `scale` times as many rows.
    """
    found = []
    for rule in _rules(design):
        outcome = outcome_of(rule, design)
        if outcome.accepted:
            rate = (outcome.errors + 1) / (outcome.accepted + 2)  # Laplace's: few rows prove little
            found.append((rate, outcome.cost, rule, outcome.accepted * scale))
    found.sort(key=lambda entry: entry[:2])
    path, hopes, cheapest = [], [], math.inf
    for rate, cost, rule, accepted in found:
        if cost < cheapest:
            cheapest = cost
            path.append(rule)
            hopes.append((epsilon - rate) * math.sqrt(accepted))  # in standard errors, near enough
    return path[int(np.argmax(hopes)) :] if hopes else []


def _rules(design: Table) -> list[Rule]:
    tiers = design.right.shape[1]
    begins = [0.0]
    if design.likely is not None:
        begins += _levels(design.likely.ravel(), BEGINNINGS if design.sure is not None else LEVELS)
    if design.sure is None:
        return [Rule((-math.inf,) * (tiers - 1), begin) for begin in begins]
    accepts = _accepts(design.sure, design.right)
    return [Rule(accept, begin) for accept in accepts for begin in begins]


def _accepts(sure: np.ndarray, right: np.ndarray) -> list[tuple[float, ...]]:
    """Thresholds that ask the same probability of being right of each tier, for many such probabilities.

    Equal probabilities accept most at a given number of errors (Neyman and Pearson's lemma). A tier's
    confidence becomes a probability by a logistic curve. Where that does not rise, the confidence tells
    nothing, and the tier is taken whole or not at all.
    """
    told, worth = [], []  # by tier: the confidences, and what each is worth
    for tier in range(sure.shape[1]):
        known = np.isfinite(sure[:, tier])
        x, hits = sure[known, tier], right[known, tier]
        slope, shift = logistic_curve(x, hits) if len(x) else (0.0, 0.0)
        told.append(x)
        worth.append(sigmoid(slope * x + shift) if slope > 0 else np.full(len(x), hits.mean()))
    return [
        tuple(float(x[p >= level].min(initial=np.inf)) for x, p in zip(told, worth, strict=True))
        for level in _levels(np.concatenate(worth), LEVELS)
    ]


def _levels(values: np.ndarray, most: int) -> list[float]:
    """Up to `most` of the values, evenly spread over their ranks."""
    if not len(values):
        return []
    ranks = np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))
    return sorted(set(np.sort(values)[ranks].tolist()), reverse=True)
