"""Other seeds for the same request: for a second try, for several samples."""

from __future__ import annotations

from glasshouse.core.seeds import derive
from glasshouse.llm.interface import Request

SEEDS = 2**31
"""Seeds stay below: the smallest range among the servers we know is a signed 32-bit number's."""


def other_seed(request: Request, *names: str | int) -> int:
    """The same for the same request's seed and names; a request without a seed counts as one with 0."""
    return derive(request.seed or 0, *names) % SEEDS
