"""The layers around a model whose work may be killed at any moment, and goes on without paying twice.

Cache > Fit > Retry > Budget > Batch > model, the usual order. What differs from `llm.standard`: a reply is on
disk before anybody works with it, so that only calls that are open when the process dies are lost; and what
was spent is kept, so that a limit holds for all the runs of one file of results together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from glasshouse.llm.batch import Batch
from glasshouse.llm.budget import Budget
from glasshouse.llm.cache import Cache
from glasshouse.llm.cache_store import CacheStore
from glasshouse.llm.errors import (
    BudgetExceededError,
    LLMError,
    NotAbleError,
    NotAllowedError,
    RateLimitedError,
    UnreachableError,
)
from glasshouse.llm.fit import Fit
from glasshouse.llm.interface import LLM, Chunk, Completion, Request
from glasshouse.llm.layer import Layer
from glasshouse.llm.prices import Prices
from glasshouse.llm.retry import Retry
from glasshouse.llm.spending import Limits, Spending

STOPPING = (BudgetExceededError, NotAbleError, NotAllowedError, RateLimitedError, UnreachableError)
"""Errors that say nothing about a document: every other one would meet them too."""

MAX_BYTES = 2**36
"""Of replies. They are what was paid for, so there is room for millions."""


class Resumable:
    """A model in such layers, and what has been spent on it."""

    def __init__(
        self,
        llm: LLM,
        folder: Path,
        *,
        at_once: int = 8,
        tries: int = 4,
        dollars: float | None = None,
        tokens: int | None = None,
        prices: Prices | None = None,
    ) -> None:
        """`folder`: where replies and spending are kept, for one process at a time."""
        self.spending = Spending(
            Limits.parse({"dollars": dollars, "tokens": tokens}), folder / "spending.sqlite"
        )
        self.spending.settle_abandoned()
        self._store = CacheStore(folder / "replies.sqlite", MAX_BYTES, write_through=True)
        self.name = llm.name
        self.priced = (prices or Prices()).find(llm.name) is not None
        self._caches: dict[int, Cache] = {}
        self._paid = Fit(Retry(Budget(Batch(llm, at_once), self.spending, prices), tries=tries))

    def layers(self, times: int = 0) -> Stopping:
        """For one document. `times`: how often it was tried before, with replies not to be read again."""
        if times not in self._caches:
            version = f"try {times}" if times else ""
            self._caches[times] = Cache(self._paid, self._store, version=version)
        return Stopping(self._caches[times])

    async def close(self) -> None:
        await self._paid.close()
        self._store.close()
        self.spending.close()


class Stopping(Layer):
    """Remembers the first error that concerns the whole run, whatever becomes of it further out."""

    def __init__(self, inner: LLM) -> None:
        super().__init__(inner)
        self.error: LLMError | None = None

    async def complete(self, request: Request) -> Completion:
        try:
            return await self.inner.complete(request)
        except STOPPING as error:
            self.error = self.error or error
            raise

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        try:
            async for chunk in self.inner.stream(request):
                yield chunk
        except STOPPING as error:
            self.error = self.error or error
            raise
