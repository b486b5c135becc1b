"""Warmup, stable, decay: checked point by point and for its shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.training.schedule import warmup_stable_decay


def test_the_factor_rises_stays_and_falls():
    """Ten steps: two of warmup, four of decay to zero."""
    factors = [warmup_stable_decay(step, 10, 0.2, 0.4) for step in range(10)]
    assert factors == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_decay_ends_at_the_final_fraction():
    """One step past the end it would be the fraction itself."""
    factors = [warmup_stable_decay(step, 10, 0.0, 0.5, 0.2) for step in range(10)]
    assert factors[4] == 1.0
    assert factors[9] == pytest.approx(0.2 + 0.8 / 5)
    assert warmup_stable_decay(10, 10, 0.0, 0.5, 0.2) == pytest.approx(0.2)


@given(
    st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1).map(lambda fraction: fraction / 2)
)
def test_the_factor_is_a_hill(steps, warmup, rest, final):
    """Never above 1, never zero, no rise after a fall, for any legal fractions and the shortest runs."""
    factors = [warmup_stable_decay(s, steps, warmup, rest * (1 - warmup), final) for s in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
