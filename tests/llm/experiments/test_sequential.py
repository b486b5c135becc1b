"""The promises of the sequential tests, against simulation: nothing is found where nothing is, however often
one looks; the truth lies in the interval at all times; and the same simulation catches a test that cheats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glasshouse.llm.experiments.sequential import (
    BURN_IN,
    compare,
    contrasts,
    log_capital,
    normal_mixture,
    sample_size,
)

ALPHA, LONG = 0.05, 5000
LINE = math.log(2 / ALPHA)


def draw(rng, runs, means, share=0.5, n=LONG):
    treated = rng.random((runs, n)) < share
    rates = np.where(treated, means[1], means[0])
    return (rng.random((runs, n)) < rates).astype(float), treated


def refuted(values, treated, share, difference):
    """(runs, n): where the bets have refuted a difference by then."""
    x = contrasts(values, treated, share)
    either = np.maximum(log_capital(x, difference, share, 1), log_capital(x, difference, share, -1))
    return np.maximum.accumulate(either, axis=-1) >= LINE


def at_most(hits, runs, rate=ALPHA):
    """Not more hits than chance allows at this rate (99.9%)."""
    return hits <= rate * runs + 3.1 * math.sqrt(rate * (1 - rate) * runs)


def naive(values, treated):
    """The test that everybody knows, made after each outcome from the 20th on: whether ever p < 0.05."""
    n1 = np.cumsum(treated, -1)
    n0 = np.cumsum(~treated, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean1, mean0 = np.cumsum(values * treated, -1) / n1, np.cumsum(values * ~treated, -1) / n0
        z = (mean1 - mean0) / np.sqrt(mean1 * (1 - mean1) / n1 + mean0 * (1 - mean0) / n0)
    return (np.abs(z[:, 19:]) > 1.96).any(-1)


CASES = [(0.5, 0.5), (0.9, 0.5), (0.02, 0.5), (0.3, 0.2)]


@pytest.mark.parametrize(("rate", "share"), CASES)
def test_looking_after_every_outcome_finds_no_difference_that_is_none(rate, share):
    rng = np.random.default_rng(1)
    values, treated = draw(rng, 200, (rate, rate), share)
    assert at_most(refuted(values, treated, share, 0.0)[:, -1].sum(), 200)
    mean, _, radius = normal_mixture(values, treated, share, ALPHA)
    assert at_most((np.abs(mean) > radius).any(-1).sum(), 200)


def test_the_same_simulation_catches_a_z_test_that_is_repeated():
    rng = np.random.default_rng(2)
    values, treated = draw(rng, 200, (0.5, 0.5))
    assert naive(values, treated).mean() > 2 * ALPHA
    assert not at_most(naive(values, treated).sum(), 200)


def test_the_asymptotic_test_keeps_its_rate_for_times_and_prices_with_a_long_tail():
    rng = np.random.default_rng(3)
    values, treated = rng.lognormal(1.0, 1.0, (200, LONG)), rng.random((200, LONG)) < 0.5
    mean, _, radius = normal_mixture(values, treated, 0.5, ALPHA)
    assert at_most((np.abs(mean) > radius).any(-1).sum(), 200)


@pytest.mark.parametrize("means", [(0.5, 0.6), (0.05, 0.02), (0.2, 0.9)])
def test_the_true_difference_is_inside_at_all_times(means):
    rng = np.random.default_rng(4)
    values, treated = draw(rng, 200, means)
    truth = means[1] - means[0]
    assert at_most(refuted(values, treated, 0.5, truth)[:, -1].sum(), 200)
    mean, _, radius = normal_mixture(values, treated, 0.5, ALPHA)
    assert at_most((np.abs(mean - truth) > radius).any(-1).sum(), 200)


def test_power_beside_a_z_test_of_fixed_size():
    """What a z-test of fixed size needs for 80% power, and half as many more, is enough here."""
    rng = np.random.default_rng(5)
    values, treated = draw(rng, 200, (0.5, 0.6))
    found = refuted(values, treated, 0.5, 0.0)
    stops = np.where(found[:, -1], found.argmax(-1) + 1, LONG)
    fixed = 2 * (1.96 + 0.8416) ** 2 * (0.25 + 0.24) / 0.1**2
    print(f"median {np.median(stops):.0f}, mean {stops.mean():.0f} outcomes; fixed size {fixed:.0f}")
    assert found[:, -1].all()
    assert np.median(stops) < 1.5 * fixed


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_interval_and_p_value_agree_and_the_interval_only_shrinks(bounds):
    rng = np.random.default_rng(6)
    (values,), (treated,) = draw(rng, 1, (0.4, 0.52), n=1500)
    before = (-math.inf, math.inf)
    agreed = set()
    for n in range(BURN_IN, 1501, 50):
        found = compare(values[:n], treated[:n], 0.5, ALPHA, bounds)
        assert found.low >= before[0] - 1e-6
        assert found.high <= before[1] + 1e-6
        before = (found.low, found.high)
        excluded = found.low > 0 or found.high < 0
        assert excluded == (found.p_value <= ALPHA)
        agreed.add(excluded)
    assert agreed == {False, True}  # both sides were seen


def test_the_interval_is_where_the_bets_refute_by_brute_force():
    rng = np.random.default_rng(7)
    (values,), (treated,) = draw(rng, 1, (0.3, 0.45), share=0.3, n=400)
    found = compare(values, treated, 0.3, ALPHA, (0.0, 1.0))
    grid = np.linspace(-1, 1, 801)
    kept = [d for d in grid if not refuted(values[None], treated[None], 0.3, d)[0, -1]]
    assert found.low == pytest.approx(kept[0], abs=0.0026)
    assert found.high == pytest.approx(kept[-1], abs=0.0026)


def test_bounds_are_a_matter_of_scale_alone():
    rng = np.random.default_rng(8)
    (values,), (treated,) = draw(rng, 1, (0.4, 0.6), n=300)
    small = compare(values, treated, 0.5, ALPHA, (0.0, 1.0))
    large = compare(1 + 9 * values, treated, 0.5, ALPHA, (1.0, 10.0))
    assert large.p_value == pytest.approx(small.p_value)
    assert (large.effect, large.low, large.high) == pytest.approx(
        (9 * small.effect, 9 * small.low, 9 * small.high)
    )


def test_no_bet_goes_bankrupt_at_the_worst_outcomes():
    """Capital of the most unlucky sequence: never negative, so its logarithm is a number."""
    for share in (0.5, 0.05, 0.9):
        for sign in (1, -1):
            for x in (1 / share, -1 / (1 - share)):
                assert np.isfinite(log_capital(np.full(50, x), float(sign), share, sign)).all()


def test_bets_are_fair_under_the_truth():
    """The mean capital after few outcomes is 1: every sequence of three, weighted by its probability."""
    rate, share, total = 0.3, 0.4, 0.0
    for code in range(4**3):
        steps = [(code >> 2 * step) & 3 for step in range(3)]
        values = np.array([float(step & 1) for step in steps])
        treated = np.array([bool(step & 2) for step in steps])
        chance = np.prod(np.where(values > 0, rate, 1 - rate) * np.where(treated, share, 1 - share))
        total += chance * math.exp(log_capital(contrasts(values, treated, share), 0.0, share)[-1])
    assert total == pytest.approx(1.0, abs=1e-12)


def test_the_size_foretold_is_about_the_size_needed():
    rng = np.random.default_rng(9)
    values, treated = draw(rng, 100, (0.5, 0.6))
    found = refuted(values, treated, 0.5, 0.0)
    foretold = sample_size(0.1, 1.0, ALPHA)
    assert foretold is not None
    assert 0.7 < foretold / np.median(found.argmax(-1) + 1) < 1.4
    assert sample_size(0.0, 1.0, ALPHA) is None
    assert sample_size(0.1, math.nan, ALPHA) is None


def test_no_outcome_and_one_outcome_say_nothing():
    for values in ([], [1.0]):
        for bounds in ((0.0, 1.0), None):
            found = compare(np.array(values), np.array([True] * len(values)), 0.5, ALPHA, bounds)
            assert found.low < 0 < found.high
            assert found.p_value == 1.0


@pytest.mark.accept
@pytest.mark.parametrize(("rate", "share"), CASES)
def test_many_more_runs(rate, share):
    """As the first, with 10,000 runs of 5,000 outcomes: the rate is known to 0.2 points."""
    rng = np.random.default_rng(2027)
    exact = asymptotic = cheating = 0
    for _ in range(50):
        values, treated = draw(rng, 200, (rate, rate), share)
        exact += refuted(values, treated, share, 0.0)[:, -1].sum()
        mean, _, radius = normal_mixture(values, treated, share, ALPHA)
        asymptotic += (np.abs(mean) > radius).any(-1).sum()
        cheating += naive(values, treated).sum()
    print(
        f"rate {rate}, share {share}: betting {exact / 1e4:.2%}, normal mixture {asymptotic / 1e4:.2%}, "
        f"repeated z-test {cheating / 1e4:.2%} false positives at {ALPHA:.0%}"
    )
    assert exact <= ALPHA * 10_000
    assert at_most(asymptotic, 10_000)
    assert cheating > 2 * ALPHA * 10_000
