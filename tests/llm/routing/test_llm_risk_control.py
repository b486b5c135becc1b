"""The statistics behind the router's guarantee, against scipy, brute force and simulation."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from glasshouse.llm.risk_control import fixed_sequence, least_rows, p_value, upper_bound


@pytest.mark.parametrize("n", [1, 22, 400, 5000])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5])
def test_the_p_value_is_the_binomials(n, epsilon):
    for errors in {0, 1, n // 20, n // 3} - {n}:
        expected = binom.cdf(errors, n, epsilon)
        assert p_value(errors, n, epsilon) == pytest.approx(expected, rel=1e-8, abs=1e-300)
    assert p_value(n, n, epsilon) == 1.0


def test_nothing_accepted_proves_nothing():
    assert p_value(0, 0, 0.1) == 1.0


@pytest.mark.parametrize(("errors", "n"), [(0, 30), (3, 60), (40, 900)])
def test_the_bound_is_clopper_and_pearsons(errors, n):
    assert upper_bound(errors, n, 0.1) == pytest.approx(beta.ppf(0.9, errors + 1, n - errors), abs=1e-9)


def test_the_bound_is_below_epsilon_just_where_the_test_rejects():
    for n in (25, 100):
        for errors in range(n):
            assert (upper_bound(errors, n, 0.1) <= 0.12) == (p_value(errors, n, 0.12) <= 0.1)


def test_the_least_number_of_rows_is_exact():
    n = least_rows(0.1, 0.1)
    assert (n, p_value(0, n, 0.1) <= 0.1, p_value(0, n - 1, 0.1) <= 0.1) == (22, True, False)


def test_testing_stops_at_the_first_that_fails():
    ps = fixed_sequence([(0, 50), (1, 60), (30, 70), (0, 1000)], 0.1, 0.1)
    assert len(ps) == 3
    assert ps[1] <= 0.1 < ps[2]


def test_the_family_of_tests_errs_with_probability_delta_at_most():
    """Ten nested rules, the last five above the bound, on the same rows: any of these passes in delta of all
    samples at most, though each is tested at the full delta."""
    rng = np.random.default_rng(0)
    rates = np.linspace(0.05, 0.14, 10)  # of the rules in turn; above 0.1 from the seventh on
    n, slips = 300, 0
    for _ in range(2000):
        wrong = rng.random(n)[:, None] < rates
        ps = fixed_sequence([(int(k), n) for k in wrong.sum(0)], 0.1, 0.1)
        passed = len(ps) - (ps[-1] > 0.1)
        slips += bool(passed and rates[passed - 1] > 0.1 + 1e-9)
    assert slips <= binom.ppf(0.999, 2000, 0.1)
    assert slips > 0  # a rule just above the bound does get through now and then
