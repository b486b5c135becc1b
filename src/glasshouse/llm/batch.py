"""Many conversations over one model: so many at once, in fair order, those with a common beginning
together."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

from glasshouse.core.errors import ConfigError
from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import LLM, Chunk, Completion, Message, Request
from glasshouse.llm.layer import Layer
from glasshouse.llm.reading import reading
from glasshouse.llm.spent import Spent

PREFIX_CHARACTERS = 1024
"""Of a common beginning that is worth waiting for: some 256 tokens of English. Providers cache from 1,024
tokens on (OpenAI, Anthropic), engines like ours and vLLM from 16; a wait costs the time to one first
piece."""

AHEAD = 16
"""Requests read ahead of the oldest unfinished one, for each place in the batch: among them groups are
found."""


@dataclass(frozen=True)
class Outcome:
    """What became of the request at `place` (from 0): a completion, or the error that it ended with.

    `finished` counts the requests that had ended by the time this one is handed on, later ones too.
    """

    place: int
    completion: Completion | None
    error: Exception | None
    finished: int


class Batch(Layer):
    """At most `at_once` calls are open; the others wait in the order in which they came.

    Outermost, `complete_many` asks for a whole file; innermost, it keeps a server from more than it can
    serve, and no call holds its place while Retry waits.
    """

    def __init__(self, inner: LLM, at_once: int = 8, *, prefix_characters: int = PREFIX_CHARACTERS) -> None:
        if at_once < 1:
            raise ConfigError(f"at_once must be 1 or more, got {at_once}", where="Batch")
        super().__init__(inner)
        self.at_once, self.prefix_characters = at_once, prefix_characters
        self._places: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def complete(self, request: Request) -> Completion:
        async with self._place():
            return await self.inner.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        async with self._place(), reading(self.inner, request) as chunks:
            async for chunk in chunks:
                yield chunk

    async def complete_many(self, requests: Iterable[Request]) -> AsyncIterator[Outcome]:
        """Outcomes in the order of the requests, each as soon as it and all before it have ended.

        A failure stands in its place and stops nothing. Of a long iterable no more is read than `at_once` ·
        16 requests ahead of the oldest outcome that was not handed on yet. Where several of those begin
        with the same messages, of `prefix_characters` or more, one goes ahead, and the rest follow when its
        first piece came: then the beginning is in the provider's or the engine's prefix cache. Whoever
        stops reading cancels what is open. What the iterable raises is raised after the outcomes before it.
        """
        queue = _Queue(self, iter(requests))
        try:
            while True:
                queue.fill()
                for outcome in queue.ready():
                    yield outcome
                if queue.exhausted:
                    break
                await queue.step()
        finally:
            await queue.cancel()
        if queue.broken is not None:
            raise queue.broken

    def _place(self) -> asyncio.Semaphore:
        """The semaphore of the running loop: one belongs to the loop in which somebody first waited for
        it."""
        loop = asyncio.get_running_loop()
        if self._places is None or self._places[0] is not loop:
            self._places = loop, asyncio.Semaphore(self.at_once)
        return self._places[1]


@dataclass
class _Prefix:
    """The first messages of some requests in the queue. `cached`: a model has read them."""

    first: int  # place of the first request that begins with them
    requests: int = 0
    leader: int | None = None
    cached: bool = False


@dataclass(order=True)
class _Asked:
    """A request in the queue, ordered so that those with common beginnings are neighbours."""

    order: tuple[int, ...]
    place: int = field(compare=False)
    request: Request = field(compare=False)
    prefixes: tuple[int, ...] = field(compare=False)


class _Queue:
    """The requests between the iterable and the reader: waiting, running and done."""

    def __init__(self, batch: Batch, source: Iterator[Request]) -> None:
        self.batch, self.source = batch, source
        self.window = batch.at_once * AHEAD
        self.broken: Exception | None = None
        self.ended = False
        self.read = self.handed_on = self.finished = 0
        self.waiting: list[_Asked] = []
        self.running: set[asyncio.Task[None]] = set()
        self.done: dict[int, Completion | Exception] = {}
        self.prefixes: dict[int, _Prefix] = {}
        self.changed = asyncio.Event()

    @property
    def exhausted(self) -> bool:
        return self.ended and self.handed_on == self.read

    def fill(self) -> None:
        """Reads as far ahead as allowed, and starts what may start."""
        while not self.ended and self.read - self.handed_on < self.window:
            try:
                request = next(self.source)
            except StopIteration:
                self.ended = True
            except Exception as error:
                self.ended, self.broken = True, error
            else:
                self._enter(request)
        for asked in [*self.waiting]:
            if len(self.running) >= self.batch.at_once:
                break
            if not any(self.prefixes[key].leader is not None for key in asked.prefixes):
                self.waiting.remove(asked)
                self._start(asked)

    def ready(self) -> Iterator[Outcome]:
        while (result := self.done.pop(self.handed_on, None)) is not None:
            place, self.handed_on = self.handed_on, self.handed_on + 1
            failed = isinstance(result, Exception)
            yield Outcome(place, None if failed else result, result if failed else None, self.finished)
            self.fill()

    async def step(self) -> None:
        """Until something ended or a beginning was read."""
        await self.changed.wait()
        self.changed.clear()

    async def cancel(self) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    def _enter(self, request: Request) -> None:
        place, self.read = self.read, self.read + 1
        keys = tuple(_prefixes(request, self.batch.prefix_characters))
        for key in keys:
            self.prefixes.setdefault(key, _Prefix(place)).requests += 1
        order = (*(self.prefixes[key].first for key in keys), place)
        insort(self.waiting, _Asked(order, place, request, keys))

    def _start(self, asked: _Asked) -> None:
        shared = False
        for key in asked.prefixes:
            prefix = self.prefixes[key]
            if not prefix.cached:
                prefix.leader = asked.place
                shared = shared or prefix.requests > 1
        task = asyncio.create_task(self._run(asked, shared))
        self.running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self.changed.set()

    async def _run(self, asked: _Asked, leads: bool) -> None:
        try:
            if leads:
                self.done[asked.place] = await self._lead(asked)
            else:
                self.done[asked.place] = await self.batch.complete(asked.request)
            self._release(asked, cached=True)
        except Exception as error:
            self.done[asked.place] = error
        finally:
            self._release(asked, cached=False)
            self.finished += 1
            for key in asked.prefixes:
                self.prefixes[key].requests -= 1
                if not self.prefixes[key].requests:
                    del self.prefixes[key]

    async def _lead(self, asked: _Asked) -> Completion:
        """Streamed, to see the first piece; whole where the stream broke after it, as no layer could mend
        that."""
        spent, begun = Spent(), False
        try:
            async with reading(self.batch, asked.request) as chunks:
                async for chunk in chunks:
                    begun = True
                    self._release(asked, cached=True)
                    if chunk.completion is not None:
                        return chunk.completion
        except LLMError as error:
            if not begun or not error.retryable:
                raise
            spent.add(error)
        completion = await self.batch.complete(asked.request)
        spent.add(completion)
        return spent.reply(completion)

    def _release(self, asked: _Asked, *, cached: bool) -> None:
        """Lets those follow that wait for this one; where it failed, one of them leads."""
        for key in asked.prefixes:
            prefix = self.prefixes[key]
            if prefix.leader == asked.place:
                prefix.leader, prefix.cached = None, cached
                self.changed.set()


def _prefixes(request: Request, characters: int) -> Iterator[int]:
    """A number for each beginning that is long enough, the shortest first. Two beginnings with one number
    would only wait for each other in vain."""
    key = hash((repr(request.tools) if request.tools else "", request.tool_choice))
    length = 0
    for message in request.messages:
        content, key = _extended(key, message)
        length += content
        if length >= characters:
            yield key


def _extended(key: int, message: Message) -> tuple[int, int]:
    """(characters of the message, the number of the beginning that ends with it)."""
    content, calls = message.get("content"), message.get("tool_calls")
    text = content if isinstance(content, str) else repr(content)
    return len(text), hash((key, message["role"], text, repr(calls) if calls else ""))
