"""Prompt lookup: guesses for the next tokens, taken from what followed the same words earlier.

The longest end of the text that occurred before is looked up, and what followed its last occurrence is
proposed (Saxena, "Prompt Lookup Decoding", 2023; also transformers' `prompt_lookup_num_tokens`). A guess
costs nothing if it is wrong but the room in a step: the model checks every proposed token.
"""

from __future__ import annotations

from collections.abc import Iterable


class PromptLookup:
    """The index of one text's n-grams; a token costs `longest` dictionary entries, whatever the length.

    >>> PromptLookup([1, 2, 3, 4, 1, 2]).propose(3)
    [3, 4, 1]
    """

    def __init__(self, ids: Iterable[int] = (), *, longest: int = 4, shortest: int = 2) -> None:
        """`longest` and `shortest` are the lengths of the n-grams that are looked up."""
        assert 1 <= shortest <= longest
        self._sizes = range(longest, shortest - 1, -1)
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # an n-gram -> the place after its last occurrence
        self._before: dict[tuple[int, ...], int] = {}  # for the n-grams at the end: the one before that
        self.extend(ids)

    def extend(self, ids: Iterable[int]) -> None:
        """Append tokens to the text."""
        known, after = self._ids, self._after
        before = self._before
        for token in ids:
            known.append(token)
            end = len(known)
            before = {}
            for size in self._sizes:
                if size <= end:
                    gram = tuple(known[end - size :])
                    if (place := after.get(gram)) is not None:
                        before[gram] = place
                    after[gram] = end
        self._before = before

    def propose(self, most: int) -> list[int]:
        """At most `most` tokens that may come next; none where the text's end is new.

        Where the earlier occurrence overlaps the end, the guess goes on with its own tokens, as a loop would.
        """
        if not self._before or most < 1:
            return []
        place = next(iter(self._before.values()))  # the longest n-gram stands first
        guess = self._ids[place : place + most]
        while len(guess) < most:
            guess += guess[: most - len(guess)]
        return guess
