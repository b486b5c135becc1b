"""Language models for code without an event loop: one loop, in a thread of its own, for the whole process.

Clients keep connections that belong to the loop they were opened in, so that loop must outlive every call.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine, Iterable, Iterator
from functools import cache
from queue import Queue
from typing import Any, TypeVar

from glasshouse.llm.interface import LLM, Chunk, Completion, Request

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="llm", daemon=True)
    thread.start()
    atexit.register(loop.call_soon_threadsafe, loop.stop)
    return loop


def wait(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns; not from within the loop itself. Ctrl-C cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def complete(llm: LLM, request: Request) -> Completion:
    """The assistant's next message."""
    return wait(llm.complete(request))


def complete_all(llm: LLM, requests: Iterable[Request]) -> list[Completion]:
    """The replies to several conversations, asked at once, in their order."""

    async def ask() -> list[Completion]:
        return await asyncio.gather(*(llm.complete(request) for request in requests))

    return wait(ask())


def stream(llm: LLM, request: Request) -> Iterator[Chunk]:
    """The same as `complete`, piece by piece. Whoever stops reading stops the reply."""
    pieces: Queue[Chunk | None] = Queue()

    async def read() -> None:
        try:
            async for chunk in llm.stream(request):
                pieces.put(chunk)
        finally:
            pieces.put(None)

    future = asyncio.run_coroutine_threadsafe(read(), _loop())
    try:
        while (chunk := pieces.get()) is not None:
            yield chunk
        future.result()
    finally:
        future.cancel()
