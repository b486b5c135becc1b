"""Alarms: each fires on the series that it is for, and keeps silent on noise and on healthy runs."""

import math
import random

import pytest
import torch

from glasshouse.alignment.diagnostics import (
    RULES,
    Alarm,
    alarms,
    explained_variance,
    slope,
)


def noisy(start, end, spread=0.05, steps=40, seed=0):
    """A straight line with Gaussian noise."""
    rng = random.Random(seed)
    return [start + (end - start) * i / (steps - 1) + rng.gauss(0, spread) for i in range(steps)]


MUST_FIRE = {
    "negative_kl": ([0.1, -0.2, -3.0],),
    "exploding_kl": (noisy(0, 30),),
    "entropy_collapse": (noisy(2.0, 0.01, 0.001),),
    "length_drift": (noisy(50, 90),),
    "value_explains_nothing": (noisy(-0.4, -0.3),),
    "too_much_clipped": (noisy(0.1, 0.5),),
    "reward_hacking": (noisy(0, 2), noisy(1, -1)),
}
MUST_NOT_FIRE = [
    ("negative_kl", (noisy(0, 5, 0.2),)),
    ("negative_kl", ([],)),
    ("exploding_kl", (noisy(0, 10, 0.5),)),
    ("entropy_collapse", (noisy(2.0, 1.0, 0.1),)),
    ("entropy_collapse", ([2.0, 0.0, 0.0],)),  # too few steps to tell
    ("length_drift", (noisy(50, 60, 5),)),
    ("value_explains_nothing", (noisy(0.0, 0.8),)),
    ("value_explains_nothing", ([-1.0, -1.0],)),
    ("too_much_clipped", (noisy(0.1, 0.2),)),
    ("reward_hacking", (noisy(0, 2), noisy(0, 1))),  # both rise
    ("reward_hacking", (noisy(2, 0), noisy(1, -1))),  # both fall: a bad run, but nobody cheats
    ("reward_hacking", (noisy(0, 2), [0.5] * 40)),
    ("reward_hacking", (noisy(0, 2)[:19], noisy(1, -1)[:19])),
]


@pytest.mark.parametrize("name", RULES)
def test_each_alarm_fires_on_its_series(name):
    """With a sentence that tells what is wrong."""
    reason = RULES[name][0](*MUST_FIRE[name])
    assert reason is not None
    assert ":" in reason


@pytest.mark.parametrize(("name", "series"), MUST_NOT_FIRE)
def test_alarms_are_silent_on_healthy_series(name, series):
    """Noise, slow and harmless trends, and series that are too short."""
    assert RULES[name][0](*series) is None


def test_replies_that_become_shorter_are_a_drift_too():
    """By the same factor."""
    assert RULES["length_drift"][0](noisy(90, 50)) is not None


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_kl_that_is_no_number_explodes(broken):
    """A comparison with NaN must not hide it."""
    assert RULES["exploding_kl"][0]([0.1, broken]) is not None


def test_noise_alone_is_not_hacking():
    """Of 300 runs in which nothing happens, none is accused."""
    rule = RULES["reward_hacking"][0]
    accused = [rule(noisy(0, 0, 1, seed=s), noisy(0, 0, 1, seed=s + 1000)) for s in range(300)]
    assert not any(accused)


def test_slope_and_error_are_those_of_least_squares():
    """Against the normal equations of numpy's polynomial fit."""
    import numpy as np

    series = noisy(1, 3, 0.5, steps=12)
    fit, covariance = np.polyfit(np.arange(12), series, 1, cov=True)
    assert slope(series) == pytest.approx((fit[0], covariance[0, 0] ** 0.5))


def test_explained_variance_of_known_predictions():
    """Perfect 1, a constant 0, the wrong sign below; undefined where all returns are equal."""
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.full_like(returns, 5), returns, mask) == 0
    assert explained_variance(-returns, returns, mask) == -3
    assert math.isnan(explained_variance(returns, torch.ones_like(returns), mask))


def test_alarms_tell_the_first_step_at_which_a_rule_fired():
    """From rows as metrics.jsonl has them; rows without a rule's columns do not count for it."""
    rows = [{"step": 10 * i, "kl": float(i), "loss": 0.1} for i in range(1, 30)]
    rows.insert(3, {"step": 35, "loss": 0.1})
    fired = alarms(rows)
    assert [(alarm.name, alarm.step) for alarm in fired] == [("exploding_kl", 210)]
    assert "21.00 nats" in fired[0].reason


def test_a_healthy_run_has_no_alarm():
    """All columns there, nothing fires."""
    columns = {
        "kl": noisy(0, 6, 0.1),
        "entropy": noisy(2, 1),
        "reply_tokens": noisy(50, 55, 2),
        "clipped_fraction": noisy(0.1, 0.15, 0.01),
        "explained_variance": noisy(0.1, 0.7),
        "reward_proxy": noisy(0, 1),
        "reward_gold": noisy(0, 0.8),
    }
    rows = [{"step": i, **{name: values[i] for name, values in columns.items()}} for i in range(40)]
    assert alarms(rows) == []
    rows[20]["kl"] = -5.0
    assert [type(alarm) for alarm in alarms(rows)] == [Alarm]
