"""Intervals against closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glasshouse.evaluation import intervals


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(95, 100, 0.8882, 0.9785), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)]
)
def test_wilson_known_answers(hits, n, low, high):
    """Published values of the score interval, the ends at 0 and 1 included."""
    estimate = intervals.proportion([True] * hits + [False] * (n - hits))
    assert estimate.value == hits / n
    assert estimate.low == pytest.approx(low, abs=5e-4)
    assert estimate.high == pytest.approx(high, abs=5e-4)


def test_wilson_covers_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = [
        (e := intervals.proportion(list(rng.random(200) < 0.93))).low <= 0.93 <= e.high for _ in range(1000)
    ]
    assert 0.92 < np.mean(covered) < 0.98


def test_ratio_of_equal_weights_is_the_mean():
    """With equal denominators the ratio estimator is the mean, value and interval."""
    values = [1.0, 2.0, 4.0, 3.0]
    by_mean, by_ratio = intervals.mean(values), intervals.ratio(values, [1.0] * 4)
    assert (by_mean.value, by_mean.low) == pytest.approx((by_ratio.value, by_ratio.low))
    assert by_mean.high - by_mean.value == pytest.approx(1.959964 * np.std(values, ddof=1) / 2)


def test_one_observation_has_no_interval():
    assert math.isinf(intervals.mean([1.0]).high)


def test_bootstrap_agrees_with_the_normal_interval():
    sample = np.random.default_rng(2).normal(5, 2, 400)
    by_bootstrap = intervals.bootstrap(lambda rows: float(sample[rows].mean()), 400, seed=1)
    by_formula = intervals.mean(list(sample))
    assert by_bootstrap.value == pytest.approx(by_formula.value)
    assert by_bootstrap.low == pytest.approx(by_formula.low, abs=0.06)


def test_an_interval_holds_its_value():
    """A sum of absolute values grows when resampled; its interval begins at the value."""
    noise = np.random.default_rng(3).normal(0, 1, 60)
    noise -= noise.mean()
    estimate = intervals.bootstrap(lambda rows: abs(float(noise[rows].sum())), 60, seed=1)
    assert estimate.low <= estimate.value <= estimate.high
    assert intervals.proportion([True] * 600).high == 1.0
