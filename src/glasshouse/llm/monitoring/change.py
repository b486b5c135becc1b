"""Has a stream of numbers left its reference window? A test that may look after every number.

Each new number is ranked among all that came before it in its stretch (the reference window first). As
long as the numbers are exchangeable, these ranks, ties broken at random, are independent and uniform,
whatever the distribution (conformal test martingales: Vovk, Gammerman and Shafer 2005; Vovk et al. 2021,
"Retrain or not retrain"). Bets against uniform ranks therefore win nothing on average. Their
Shiryaev-Roberts sum R <- (1 + R) * bet has, whenever one stops, the expectation of the numbers until then,
so that the chance of R >= c within n numbers is at most n / c (e-detectors: Shin, Ramdas and Rinaldo 2023).
Ranks begin anew from the reference after each stretch; chances add up, so N numbers bring a false alarm with
a chance of at most N / c. This is a theorem for any distribution, not an approximation for a normal one.

What it does not cover: numbers that are not exchangeable although nothing is wrong, such as latencies by
day and by night. That is a change, too, and it is told.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass

STRETCH = 10
"""Reference windows that are ranked together before ranks begin anew: else a missed change would become the
rule, and memory would grow for ever."""

BETS = (
    (1 / 2, 1.25),
    (1 / 2, 1.7),
    (1 / 4, 1.5),
    (1 / 4, 3.0),
    (1 / 10, 1.5),
    (1 / 10, 3.0),
    (1 / 10, 7.0),
    (1 / 50, 2.0),
    (1 / 50, 4.0),
    (1 / 50, 12.0),
)
"""(share of the highest ranks, how many times as many of them as before): small and large shifts of all
numbers, and of a few, such as rare refusals. The test averages over them, which costs little delay."""


@dataclass(frozen=True)
class Change:
    """Found at number `noticed`, counted from the first ever; it began at about number `began`."""

    began: int
    noticed: int
    rose: bool


class ChangeTest:
    """`reference`: numbers that are the rule. N more bring a false alarm with a chance of N / `run_length`.

    `up` and `down`: which changes matter; both halve what each may bet.
    """

    def __init__(
        self, reference: int, run_length: float, *, up: bool = True, down: bool = True, seed: int = 0
    ) -> None:
        sides = [side for side, wanted in ((True, up), (False, down)) if wanted]
        self._bets = [
            (share, gain, (1 - gain * share) / (1 - share), rose) for rose in sides for share, gain in BETS
        ]
        self.reference: list[float] = []  # sorted
        self._length, self._threshold = reference, run_length * len(self._bets)
        self._random = random.Random(seed)
        self.count = 0
        self._begin()

    def _begin(self) -> None:
        self._seen = list(self.reference)
        self._sums = [0.0] * len(self._bets)
        self._ranks: list[float] = []

    def see(self, value: float) -> Change | None:
        """Take in the next number; a Change where there is one. The test then begins anew."""
        self.count += 1
        if len(self.reference) < self._length:
            insort(self.reference, value)
            if len(self.reference) == self._length:
                self._begin()
            return None
        seen = self._seen
        below = bisect_left(seen, value)
        ties = bisect_right(seen, value, below) - below + 1
        rank = (below + self._random.random() * ties) / (len(seen) + 1)  # uniform on [0, 1)
        seen.insert(below, value)
        self._ranks.append(rank)
        low = 1.0 - rank
        self._sums = sums = [
            (1.0 + total) * (gain if (low if rose else rank) < share else loss)
            for total, (share, gain, loss, rose) in zip(self._sums, self._bets, strict=True)
        ]
        if sum(sums) >= self._threshold:
            change = self._found()
            self._begin()
            return change
        if len(seen) >= STRETCH * self._length:
            self._begin()
        return None

    def _found(self) -> Change:
        """The likeliest beginning, over all bets: where what a bet has won since is most."""
        most, began, upward = -math.inf, self.count, True
        for share, gain, loss, rose in self._bets:
            won, lost, total = math.log(gain), math.log(loss), 0.0
            for back, rank in enumerate(reversed(self._ranks), 1):
                total += won if (1.0 - rank if rose else rank) < share else lost
                if total > most:
                    most, began, upward = total, self.count - back + 1, rose
        return Change(began, self.count, upward)
