"""The engine's events for asyncio, with the time that was spent waiting for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Self

from glasshouse.inference.engine import Engine, Ticket
from glasshouse.inference.request import Delta, Event, Finish, PromptRead, Request
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError, deadline_exceeded, draining


class Mailbox:
    """Carries events from the engine's thread into the event loop, all that are there with one call.

    A call of its own for every event would cost the engine a system call, and the interpreter's lock with it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[asyncio.Queue[Event], Event]] = deque()
        self._called = False

    def post(self, inbox: asyncio.Queue[Event], event: Event) -> None:
        """From any thread."""
        self._waiting.append((inbox, event))
        if not self._called:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._called = False  # before looking: what is posted from now on calls again
        while self._waiting:
            inbox, event = self._waiting.popleft()
            inbox.put_nowait(event)


class Running:
    """A request that is with the engine. Leaving the `with` cancels what is not finished."""

    def __init__(self, request: Request, call: Call, mailbox: Mailbox) -> None:
        self._request, self._call, self._left = request, call, request.n
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._mailbox = mailbox
        self._ticket: Ticket | None = None
        self._abandoned = False

    def submit(self, engine: Engine) -> None:
        """Raises what `Engine.submit` raises. May be called in another thread than the loop's."""
        self._ticket = engine.submit(self._request, partial(self._mailbox.post, self._inbox))
        if self._abandoned:  # while a grammar was compiled
            self._ticket.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Nobody waits for the rest any more."""
        self._abandoned = True
        if self._ticket is not None and self._left:
            self._ticket.cancel()

    async def events(self) -> AsyncIterator[Event]:
        """To the last choice's end. Raises ApiError where the engine gave up (`failure`)."""
        call = self._call
        while self._left:
            with call.with_engine():
                event = await self._inbox.get()
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

    async def written(self, told: Callable[[Event], Iterable[bytes]]) -> AsyncIterator[bytes]:
        """What the events are to a client, joined as long as another event is there already."""
        waiting: list[bytes] = []
        try:
            async for event in self.events():
                waiting += told(event)
                if waiting and self._inbox.empty():
                    yield b"".join(waiting)
                    waiting.clear()
        except ApiError:
            yield b"".join(waiting)
            raise


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
