"""The place in a text that is nearest to a pattern by Levenshtein distance: exact, whatever the pattern.

Myers, "A fast bit-vector algorithm for approximate string matching based on dynamic programming", JACM 1999,
with Python's integers as the vectors. A text of n characters takes n steps on integers of len(pattern) bits.
"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(pattern: str, text: str) -> tuple[int, int, int]:
    """(start, end, distance) of the part of `text` nearest to `pattern`.

    Of several parts equally near, the first to end, and of those that end there the one whose length is
    nearest to the pattern's, the longer one of two.
    """
    ends = list(_distances(pattern, text, anchored=False))
    distance = min(ends, default=len(pattern))
    if distance >= len(pattern):
        return 0, 0, len(pattern)
    end = ends.index(distance) + 1
    # Backwards from the end, no further than an alignment so near can reach.
    back = text[max(0, end - len(pattern) - distance) : end][::-1]
    lengths = [
        length
        for length, found in enumerate(_distances(pattern[::-1], back, anchored=True), 1)
        if found == distance
    ]
    length = min(lengths, key=lambda length: (abs(length - len(pattern)), -length))
    return end - length, end, distance


def _distances(pattern: str, text: str, anchored: bool) -> Iterable[int]:
    """After each character of `text`: the distance of the pattern to the text so far, from its very beginning
    where `anchored`, else from wherever is best."""
    top = 1 << (len(pattern) - 1)
    ones = (top << 1) - 1
    at: dict[str, int] = {}
    for place, char in enumerate(pattern):
        at[char] = at.get(char, 0) | 1 << place
    first = 1 if anchored else 0
    plus, minus, distance = ones, 0, len(pattern)
    for char in text:
        equal = at.get(char, 0)
        vertical = equal | minus
        horizontal = (((equal & plus) + plus) ^ plus) | equal
        up = minus | (ones & ~(horizontal | plus))
        down = plus & horizontal
        if up & top:
            distance += 1
        elif down & top:
            distance -= 1
        up = (up << 1) | first
        down <<= 1
        plus = ones & (down | ~(vertical | up))
        minus = up & vertical & ones
        yield distance
