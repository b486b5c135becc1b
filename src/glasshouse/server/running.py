"""The engine's events for asyncio, with the time that was spent waiting for them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from glasshouse.inference.engine import Engine
from glasshouse.inference.request import Delta, Event, Finish, PromptRead, Request
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError, deadline_exceeded, draining


class Running:
    """A request that is with the engine. Leaving the `with` cancels what is not finished.

    Raises what `Engine.submit` raises at once, before anything is sent to the client.
    """

    def __init__(self, engine: Engine, request: Request, call: Call) -> None:
        self._call, self._left = call, request.n
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._inbox.put_nowait, event)

        self._ticket = engine.submit(request, deliver)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._left:
            self._ticket.cancel()

    async def events(self) -> AsyncIterator[Event]:
        """To the last choice's end. Raises ApiError where the engine gave up (`failure`)."""
        call = self._call
        while self._left:
            waited = time.perf_counter()
            event = await self._inbox.get()
            call.engine_seconds += time.perf_counter() - waited
            if isinstance(event, PromptRead):
                call.cached_tokens += event.cached
            elif isinstance(event, Delta):
                call.new_tokens += len(event.ids)
                if call.first_token is None and event.ids:
                    call.first_token = call.seconds
                if event.finish is not None:
                    self._left -= 1
                    if error := failure(event.finish):
                        raise error
            yield event


def failure(finish: Finish) -> ApiError | None:
    """What an end that is not the model's own means to a client."""
    match finish.reason:
        case "timeout":
            return deadline_exceeded()
        case "cancelled":
            return draining()
        case "error":
            return ApiError(500, "the engine failed on this request")
    return None
