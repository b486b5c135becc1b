"""A figure is worth what its interval says: estimates with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

Z95 = 1.959964
"""97.5% quantile of the standard normal distribution."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A value, the two ends of its 95% interval and how many observations stand behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def proportion(hits: Sequence[bool]) -> Estimate:
    """Share of hits with Wilson's score interval (Wilson 1927), which holds up at 0 and 1.

    >>> proportion([True] * 95 + [False] * 5).low
    0.8882...
    """
    n = len(hits)
    if n == 0:
        raise ValueError("a share of no observations is unknown")
    share = sum(hits) / n
    centre = share + Z95**2 / (2 * n)
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    low = 0.0 if share == 0 else (centre - spread) / scale  # exact at the ends, where rounding would show
    high = 1.0 if share == 1 else (centre + spread) / scale
    return Estimate(share, low, high, n)


def mean(values: Sequence[float]) -> Estimate:
    """Mean with a normal interval from the standard error."""
    sample = np.asarray(values, dtype=np.float64)
    centre = float(sample.mean())
    half = Z95 * float(sample.std(ddof=1)) / math.sqrt(len(sample)) if len(sample) > 1 else math.inf
    return Estimate(centre, centre - half, centre + half, len(sample))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Sum over sum (bits over bytes, say), with the interval of the linearised ratio estimator."""
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    value = float(top.sum() / bottom.sum())
    residuals = (top - value * bottom) / bottom.mean()
    half = Z95 * float(residuals.std(ddof=1)) / math.sqrt(len(top)) if len(top) > 1 else math.inf
    return Estimate(value, value - half, value + half, len(top))


def bootstrap(statistic, rows: int, seed: int) -> Estimate:
    """Percentile bootstrap (Efron 1979) of `statistic(indices)` over `rows` observations.

    Resampling makes sums of absolute values larger than they are; the interval then still begins at the
    value itself.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = [statistic(rng.integers(0, rows, rows)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float(statistic(np.arange(rows)))
    return Estimate(value, min(value, float(low)), max(value, float(high)), rows)
