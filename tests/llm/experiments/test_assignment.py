"""Arms belong to keys: evenly, for ever, and independently between experiments."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from glasshouse.llm.experiments.assignment import SUSPICIOUS, assign, mismatch_p_value

HALVES = {"A": 0.5, "B": 0.5}


def test_another_process_draws_the_same_arms():
    keys = [f"user-{number}" for number in range(200)] + ["", "Zoé 🦉", "\udc80"]
    code = (
        "import sys, json\nfrom glasshouse.llm.experiments.assignment import assign\n"
        "print(''.join(assign('greeting', key, {'A': 0.5, 'B': 0.5}) for key in json.loads(sys.argv[1])))"
    )
    import json

    told = subprocess.run(
        [sys.executable, "-c", code, json.dumps(keys)], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "".join(assign("greeting", key, HALVES) for key in keys)


def test_arms_get_their_shares():
    shares = {"A": 0.7, "B": 0.2, "C": 0.1}
    counts = Counter(assign("e", str(number), shares) for number in range(20_000))
    for arm, share in shares.items():
        assert counts[arm] == pytest.approx(20_000 * share, abs=4 * (20_000 * share * (1 - share)) ** 0.5)
    assert mismatch_p_value(counts, shares) > SUSPICIOUS


def test_an_arm_in_one_experiment_says_nothing_about_that_in_another():
    both = Counter((assign("one", str(n), HALVES), assign("two", str(n), HALVES)) for n in range(20_000))
    assert all(abs(count - 5000) < 4 * (20_000 * 3 / 16) ** 0.5 for count in both.values())


def test_a_key_that_leaves_one_arm_for_another_share_goes_to_no_third():
    """Raising the share of the last arm moves keys to it only."""
    for number in range(2000):
        before = assign("e", str(number), {"A": 0.5, "B": 0.5})
        after = assign("e", str(number), {"A": 0.3, "B": 0.7})
        assert (before, after) != ("B", "A")


def test_a_lossy_arm_is_found_and_an_honest_one_is_not_however_often_one_looks():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        second = np.cumsum(rng.random(3000) < 0.5)
        steps = range(10, 3000, 25)
        alarms += any(
            mismatch_p_value({"A": n + 1 - int(second[n]), "B": int(second[n])}, HALVES) < 0.05 for n in steps
        )
    assert alarms <= 300 * 0.05 + 3.1 * (300 * 0.05 * 0.95) ** 0.5
    assert mismatch_p_value({"A": 5000, "B": 4500}, HALVES) < SUSPICIOUS
    assert mismatch_p_value({}, HALVES) == 1.0
    assert mismatch_p_value({"A": 200}, HALVES) < SUSPICIOUS
