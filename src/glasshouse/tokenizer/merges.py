"""Between a ranked vocabulary (rustbpe, tiktoken) and a list of merges (tokenizer.json)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise


def merge_pairs(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that each token of two bytes or more was merged from, in order of rank.

    `ranks` maps a token's bytes to its rank; a lower rank is merged first. Raises ValueError where a token
    cannot be reached by merges of lower rank.
    """
    merged = sorted((rank, token) for token, rank in ranks.items() if len(token) > 1)
    return [_parents(token, rank, ranks) for rank, token in merged]


def _parents(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Merge the token's bytes with the ranks below its own: two parts are left, and they are its parents."""
    candidates = [
        (token[:cut], token[cut:])
        for cut in range(1, len(token))
        if ranks.get(token[:cut], rank) < rank and ranks.get(token[cut:], rank) < rank
    ]
    if len(candidates) == 1:  # the common case, and much faster
        return candidates[0]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, place = min(
            (ranks.get(left + right, rank), i) for i, (left, right) in enumerate(pairwise(parts))
        )
        if best >= rank:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    if len(parts) != 2:
        raise ValueError(f"the token {token!r} of rank {rank} cannot be reached by merges of lower rank")
    return parts[0], parts[1]
