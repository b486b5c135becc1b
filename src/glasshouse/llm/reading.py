"""A stream that ends when its reader does: connection, slot and reply are let go of at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from glasshouse.llm.interface import LLM, Chunk, Request


@asynccontextmanager
async def reading(llm: LLM, request: Request) -> AsyncIterator[AsyncIterator[Chunk]]:
    """The model's stream; left early, it is closed now and not whenever memory is tidied up."""
    pieces = llm.stream(request)
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)  # generators have it, other iterators need not
        if close is not None:
            await close()
