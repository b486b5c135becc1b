"""How many tokens to guess for one text: more while guesses are right, none for a while after wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

from glasshouse.inference.speculation import PromptLookup

FIRST = 2
"""Tokens of the first guess."""

PAUSE = 16
"""Tokens written without a guess after one that was all wrong; doubled each time in a row."""

LONGEST_PAUSE = 256


class Drafter:
    """Guesses by prompt lookup for one text; what the model makes of them decides how many come next."""

    def __init__(self, ids: Sequence[int], most: int) -> None:
        self._lookup, self._known, self._most = PromptLookup(ids), len(ids), most
        self._size, self._wait, self._pause = FIRST, 0, PAUSE

    def propose(self, ids: Sequence[int], room: int) -> list[int]:
        """At most `room` tokens to follow the text, which has only grown since the last call."""
        self._lookup.extend(ids[self._known :])
        self._wait -= len(ids) - self._known
        self._known = len(ids)
        return [] if self._wait > 0 else self._lookup.propose(min(self._size, self._most, room))

    def learn(self, proposed: int, right: int) -> None:
        """So many tokens were proposed, and so many of them, from the first on, were right."""
        if right == proposed:
            self._size = min(2 * self._size, self._most)
        elif right:
            self._size = right + 1
        else:
            self._size, self._wait = FIRST, self._pause
        self._pause = PAUSE if right else min(2 * self._pause, LONGEST_PAUSE)
