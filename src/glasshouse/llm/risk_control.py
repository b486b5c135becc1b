"""Which rule may be used, so that its error rate is small, with a stated probability of being mistaken.

Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052): each rule is a hypothesis, "its error rate is
above epsilon". Of n accepted answers k were wrong. Were the rate above epsilon, so few would come about with
less than

    p = P(Binomial(n, epsilon) <= k)

which is the exact, Clopper-Pearson test. (n is as it falls out: given which answers are accepted, each is
wrong with the rule's error rate.) The hypotheses are tested in an order that was fixed without the rows they
are tested on, each at the full delta, until one cannot be rejected: fixed-sequence testing. The first rule of
the order whose rate is above epsilon is found out with probability 1 - delta, and none behind it is tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def p_value(errors: int, n: int, epsilon: float) -> float:
    """P(Binomial(n, epsilon) <= errors); 1 where nothing was accepted.

    >>> round(p_value(0, 22, 0.1), 4)
    0.0985
    """
    if errors >= n:
        return 1.0
    yes, no = math.log(epsilon), math.log1p(-epsilon)
    whole = math.lgamma(n + 1)
    logs = [
        whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * yes + (n - k) * no
        for k in range(errors + 1)
    ]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(log - top) for log in logs))


def upper_bound(errors: int, n: int, delta: float) -> float:
    """Clopper and Pearson's one-sided bound (1934): the rate under which `errors` of n or fewer would come
    about with probability `delta` only. It is at most epsilon just where `p_value` is at most delta."""
    if errors >= n:
        return 1.0
    low, high = errors / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle > 0 and p_value(errors, n, middle) <= delta:
            high = middle
        else:
            low = middle
    return high


def fixed_sequence(counts: Iterable[tuple[int, int]], epsilon: float, delta: float) -> list[float]:
    """The p-values of rules with (errors, n), in their order, until one is above delta: the last."""
    found = []
    for errors, n in counts:
        found.append(p_value(errors, n, epsilon))
        if found[-1] > delta:
            break
    return found


def least_rows(epsilon: float, delta: float) -> int:
    """Accepted answers without a single error that prove the bound; with fewer nothing can."""
    return math.ceil(math.log(delta) / math.log1p(-epsilon) - 1e-9)
