"""Prompt lookup: what followed the same words last time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glasshouse.inference.speculation import PromptLookup


def by_search(ids: list[int], most: int, longest: int, shortest: int) -> list[int]:
    """The definition: scan the whole text for the last earlier occurrence of its longest end."""
    for size in range(min(longest, len(ids) - 1), shortest - 1, -1):
        for start in range(len(ids) - size - 1, -1, -1):
            if ids[start : start + size] == ids[-size:]:
                guess = list(ids)
                period = len(ids) - (start + size)
                while len(guess) < len(ids) + most:
                    guess.append(guess[len(guess) - period])
                return guess[len(ids) :]
    return []


@given(
    ids=st.lists(st.integers(0, 3), max_size=40),
    more=st.lists(st.integers(0, 3), max_size=10),
    most=st.integers(0, 12),
    longest=st.integers(1, 5),
    data=st.data(),
)
def test_the_index_finds_what_a_scan_finds(
    ids: list[int], more: list[int], most: int, longest: int, data: st.DataObject
) -> None:
    """The continuation of the last earlier occurrence of the longest end, however the text was appended."""
    shortest = data.draw(st.integers(1, longest))
    lookup = PromptLookup(ids, longest=longest, shortest=shortest)
    lookup.extend([])
    for token in more:
        lookup.extend([token])
    assert lookup.propose(most) == by_search(ids + more, most, longest, shortest)


def test_a_new_word_proposes_nothing() -> None:
    """Without an earlier occurrence there is no guess; asking does not change the next answer."""
    lookup = PromptLookup([1, 2, 3, 1, 2])
    assert lookup.propose(2) == lookup.propose(2) == [3, 1]
    lookup.extend([9])
    assert lookup.propose(2) == []
    assert PromptLookup().propose(4) == []
