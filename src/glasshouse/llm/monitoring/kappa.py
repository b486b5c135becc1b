"""Cohen's kappa: how much two judges agree beyond what chance would have them agree."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from glasshouse.core.errors import UsageError

DRAWS = 20_000
SEED = 0


@dataclass(frozen=True)
class Kappa:
    """1: always agree; 0: as often as chance. `low` and `high`: 95% interval, of `n` doubly judged cases."""

    value: float
    low: float
    high: float
    n: int


def cohens_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> Kappa:
    """Cohen (1960), kappa = (observed - expected) / (1 - expected), of two judges' labels of the same cases.

    The interval is that of the posterior of the table's cells under Jeffreys' prior (Dirichlet, 1/2 a cell):
    unlike the usual standard error (Fleiss, Cohen and Everitt 1969) it has a width where judges never
    disagreed. The draws are seeded. Raises UsageError without cases, with unequal lengths, and where both
    judges gave one and the same label throughout: agreement beyond chance is then undefined.
    """
    import numpy as np

    if len(first) != len(second) or not first:
        raise UsageError(
            f"{len(first)} labels of one judge and {len(second)} of the other",
            fix="give both judges' labels of the same cases, at least one",
        )
    names = sorted({*first, *second}, key=repr)
    if len(names) == 1:
        raise UsageError(
            f"every case was judged {names[0]!r} by both: how much of that is chance cannot be told",
            fix="add cases of the other kind, about as many as of this one",
        )
    place = {name: number for number, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    for one, other in zip(first, second, strict=True):
        table[place[one], place[other]] += 1
    value = float(_kappa(table[None] / len(first))[0])
    draws = np.random.Generator(np.random.PCG64(SEED)).dirichlet(table.ravel() + 0.5, DRAWS)
    low, high = np.quantile(_kappa(draws.reshape(DRAWS, *table.shape)), [0.025, 0.975])
    return Kappa(value, min(value, float(low)), max(value, float(high)), len(first))


def _kappa(shares):  # (tables, labels, labels), each summing to 1 -> (tables,)
    import numpy as np

    observed = np.trace(shares, axis1=1, axis2=2)
    expected = (shares.sum(1) * shares.sum(2)).sum(1)
    return np.where(expected < 1, (observed - expected) / np.maximum(1 - expected, math.ulp(1.0)), 0.0)
