"""Comparing two arms after every outcome, without ever fooling oneself by looking too often.

Each outcome y of an arm with probability p becomes one number, whose expectation is the arms' difference:

    x = (y - m) / p_treated    or    x = -(y - m) / p_control

where m is the mean of all outcomes before it (inverse propensity weighting, with a prediction taken off so
that the variance is about that of a difference of means: Waudby-Smith et al., arXiv:2103.06476). Arms are
drawn independently of outcomes, so x - difference is the step of a martingale, and two tests follow:

exact       for outcomes within stated bounds (0 or 1, a judge's 1 to 10): capital from betting against a
            difference d, the product of 1 + l * (x - d). Under the truth it is a non-negative martingale, so
            it ever reaches 1/alpha with probability alpha at most (Ville), at any sample size. The capital
            is spread over several l (Waudby-Smith & Ramdas, arXiv:2010.09686).
asymptotic  for outcomes without bounds (seconds, dollars): Robbins' normal mixture with the variance seen so
            far. Its error rate is alpha in the limit only; the first BURN_IN outcomes are not looked at.

Both hold at all times at once (arXiv:1810.08240): an experiment may be watched, stopped and continued at
will.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BURN_IN = 100
"""Outcomes of both arms before the asymptotic test says anything."""

TUNED_FOR = 1000
"""Outcomes at which the normal mixture is tightest; any number is valid, and far ones cost little."""

_BETS = 0.95 * 1.75 ** -np.arange(12.0)
"""Stakes l as parts of the largest that cannot go bankrupt: one for large differences, ..., one for 0.1%."""

_HALVINGS = 30
"""Steps of bisection: 2 / 2^30 of the outcome's range."""


@dataclass(frozen=True)
class Difference:
    """Treated minus control, with an interval that holds at all times at once with confidence 1 - alpha."""

    effect: float
    low: float
    high: float
    p_value: float  # of "no difference", always valid; below alpha exactly where the interval excludes 0
    n: int  # outcomes of both arms
    spread: float  # standard deviation of one x: how many outcomes a difference needs follows from it


def contrasts(values: Floats, treated: NDArray[np.bool_], share: float, first: float = 0.5) -> Floats:
    """The x of each outcome. (..., n) -> (..., n)

    `share`: probability of the treated arm among the two. `first`: the prediction for the first outcome.
    """
    before = np.cumsum(values, axis=-1) - values + first
    predicted = before / np.arange(1, values.shape[-1] + 1)  # from earlier outcomes only
    return np.where(treated, 1 / share, -1 / (1 - share)) * (values - predicted)


def log_capital(x: Floats, difference: float | Floats, share: float, sign: int = 1) -> Floats:
    """Logarithm of what a bet with 1 on "more than this difference" has become after each x. (..., n)

    x of outcomes within 0 and 1; `sign` -1 bets on "less". Falls with the difference (rises for -1).
    """
    stakes = _BETS / (1 + 1 / min(share, 1 - share))  # x lies within 1/share, a difference within 1
    gain = sign * (x - difference)
    total = np.full(x.shape, -np.inf)
    for stake in stakes:
        total = np.logaddexp(total, np.cumsum(np.log1p(stake * gain), axis=-1))
    return total - math.log(len(stakes))


def compare(
    values: Floats,
    treated: NDArray[np.bool_],
    share: float,
    alpha: float,
    bounds: tuple[float, float] | None = None,
) -> Difference:
    """The arms' difference after all outcomes, in the order in which their arms were drawn. (n,), (n,)

    `bounds`: what no outcome can be below or above; with them the test is exact, without asymptotic.
    """
    if bounds is None:
        return _asymptotic(values, treated, share, alpha)
    low, high = bounds
    width = high - low
    x = contrasts((values - low) / width, treated, share)
    if not len(x):
        return Difference(0.0, -width, width, 1.0, 0, math.nan)
    needed = math.log(2 / alpha)  # half of alpha for either side
    lower = _bisect(lambda d: log_capital(x, d, share, 1).max() >= needed)
    upper = -_bisect(lambda d: log_capital(x, -d, share, -1).max() >= needed)
    won = max(log_capital(x, 0.0, share, sign).max() for sign in (1, -1))
    effect = float(np.clip(np.mean(x), lower, upper))
    p_value = min(1.0, 2 * math.exp(-won))
    return Difference(effect * width, lower * width, upper * width, p_value, len(x), float(x.std()) * width)


def _bisect(refuted: Callable[[float], bool]) -> float:
    """The largest difference in -1 ... 1 that the bets refute."""
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _asymptotic(values: Floats, treated: NDArray[np.bool_], share: float, alpha: float) -> Difference:
    mean, spread, radius = normal_mixture(values, treated, share, alpha)
    if not len(mean):
        return Difference(0.0, -math.inf, math.inf, 1.0, len(values), math.nan)
    # Excluding 0 at level a means mean² / spread² = radius(a)² / spread²: solved for a, at its best moment.
    n = np.arange(BURN_IN, len(values) + 1)
    scale = _inverse_tuning(alpha) * n + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        z2 = np.where(mean == 0, 0.0, (mean / spread) ** 2)
    log_p = (np.log(scale) - z2 * n * (1 - 1 / scale)) / 2
    p_value = math.exp(min(0.0, float(log_p.min())))
    low, high = float((mean - radius).max()), float((mean + radius).min())
    return Difference(float(mean[-1]), low, high, p_value, len(values), float(spread[-1]))


def normal_mixture(
    values: Floats, treated: NDArray[np.bool_], share: float, alpha: float
) -> tuple[Floats, Floats, Floats]:
    """Mean and standard deviation of the x, and the interval's half-width, from outcome BURN_IN on.

    (..., n) -> (..., n - BURN_IN + 1) each; empty before.
    """
    n = np.arange(1, values.shape[-1] + 1)
    # Whatever the values' scale, the first outcome tells nothing: it only predicts the second.
    start = values[..., :1]
    x = contrasts(values - start, treated, share, first=0.0)
    mean = np.cumsum(x, axis=-1) / n
    spread = np.sqrt(np.maximum(np.cumsum(x**2, axis=-1) / n - mean**2, 0.0))
    radius = spread * np.sqrt(_half_width2(n, alpha))
    late = np.s_[..., BURN_IN - 1 :]
    return mean[late], spread[late], radius[late]


def _half_width2(n: Any, alpha: float) -> Any:
    """Squared half-width of the normal mixture for a standard deviation of 1."""
    scale = _inverse_tuning(alpha) * n + 1
    return scale / (scale - 1) * np.log(scale / alpha**2) / n


def _inverse_tuning(alpha: float) -> float:
    """rho² of the mixture, for the least width at TUNED_FOR outcomes (arXiv:2103.06476, appendix B.2)."""
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / TUNED_FOR


def sample_size(effect: float, spread: float, alpha: float) -> int | None:
    """About how many outcomes of both arms, from the first, show a difference as large as this.

    Where the normal mixture's half-width is the effect; the betting test needs about as many. None where the
    effect is 0 or the spread is unknown.
    """
    if not effect or not math.isfinite(spread):
        return None
    wanted = (effect / spread) ** 2 if spread else math.inf
    low, high = 1, 2
    while _half_width2(high, alpha) > wanted:
        low, high = high, high * 2
        if high > 2**40:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _half_width2(middle, alpha) > wanted else (low, middle)
    return high
