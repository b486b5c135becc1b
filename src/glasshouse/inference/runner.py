"""What runs the model for the engine: tokens in, hidden states out, keys and values in pages.

A sequence's keys and values lie in pages of `page_tokens` positions each: position p lies in the page
`pages[p // page_tokens]`, at `p % page_tokens`. Pages are numbers; what stands behind them is the
runner's. Two sequences with a common beginning may name the same pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of one sequence, to be read in one step."""

    ids: Sequence[int]
    start: int  # position of the first; everything before it lies in the pages already
    pages: Sequence[int]  # of the whole sequence, in order; they cover start + len(ids) positions
    wanted: int = 1  # of how many of the last tokens the hidden state is asked for
    adapter: str | None = None


class Runner(Protocol):
    """Steps of a model over a paged cache. Not thread-safe: one engine owns it."""

    page_tokens: int
    page_bytes: int  # memory of one page over all layers
    deterministic: bool  # a token's hidden state does not depend, to the bit, on what shares its step

    def allocate(self, pages: int) -> None:
        """Make room for `pages` pages, numbered from 0; called once."""
        ...

    def hidden(self, pieces: Sequence[Piece]) -> Tensor:
        """Read all pieces: write their keys and values, return the normed output of the last block.

        Returns (sum of `wanted`, hidden), piece after piece. No two pieces write the same position.
        """
        ...

    def logits(self, hidden: Tensor, adapters: Sequence[str | None]) -> Tensor:
        """(rows, hidden) -> (rows, vocab) float32 on the CPU; `adapters` names each row's."""
        ...
