"""Learning-rate schedule: warmup, stable, decay (WSD; MiniCPM, arXiv:2404.06395)."""

from __future__ import annotations


def warmup_stable_decay(
    step: int, steps: int, warmup_fraction: float, decay_fraction: float, final_fraction: float = 0.0
) -> float:
    """Factor on every learning rate at `step` (0-based) of `steps`: up to 1, constant, then linearly down.

    The first step already moves, and the factor would reach `final_fraction` one step after the last.

    >>> [round(warmup_stable_decay(s, 8, 0.25, 0.5), 2) for s in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    warmup = round(steps * warmup_fraction)
    decay = round(steps * decay_fraction)
    factor = 1.0
    if step < warmup:
        factor = (step + 1) / warmup
    left = steps - step
    if left < decay:
        factor = min(factor, final_fraction + (1.0 - final_fraction) * left / decay)
    return factor
