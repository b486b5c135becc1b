"""Which arm a key belongs to: a matter of the two names alone, so that nothing has to be remembered."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

SUSPICIOUS = 0.001
"""A p-value below this says that the arms' sizes are no accident. The field's custom is 0.0005 to 0.01."""

_PRIOR = 100.0
"""Weight of the mixture's prior, in observations: found quickly are deviations of about a tenth."""


def assign(experiment: str, key: str, shares: Mapping[str, float]) -> str:
    """The arm of a key: the same in every process, for ever, and independent between experiments.

    `shares`: each arm's part of all keys, in the order in which the arms were declared; they sum to 1.

    >>> assign("greeting", "user-17", {"A": 0.5, "B": 0.5})
    'A'
    """
    digest = hashlib.blake2b(f"{experiment}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    for arm, share in shares.items():
        place -= share
        if place < 0:
            return arm
    return list(shares)[-1]  # the last 1e-16 that rounding left over


def mismatch_p_value(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """p-value of "the arms got their shares", valid however often it is looked at.

    A sample-ratio mismatch means that outcomes of one arm are lost on their way: then no comparison holds.
    Multinomial likelihood under a Dirichlet mixture around the shares, against that under the shares
    themselves (Lindon & Malek, arXiv:2011.03567).
    """
    total = sum(counts.values())
    log_e = math.lgamma(_PRIOR) - math.lgamma(_PRIOR + total)
    for arm, share in shares.items():
        n = counts.get(arm, 0)
        log_e += math.lgamma(_PRIOR * share + n) - math.lgamma(_PRIOR * share) - n * math.log(share)
    return min(1.0, math.exp(-log_e)) if log_e > 0 else 1.0
