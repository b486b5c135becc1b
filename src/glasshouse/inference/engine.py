"""The engine: requests go in, events come out, from one thread that owns the model.

This file is the door: what is asked is checked and queued here, and the thread started. What the thread
does is `loop.py`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from glasshouse.core.config import Config
from glasshouse.core.errors import GlasshouseError, UsageError
from glasshouse.inference.decoding import check_prompts
from glasshouse.inference.grammar import GrammarCompiler
from glasshouse.inference.job import Choice, Job, Ticket
from glasshouse.inference.loop import Loop, Pooled
from glasshouse.inference.memory_ceiling import default_pages
from glasshouse.inference.pages import PagePool
from glasshouse.inference.penalties import Penalties
from glasshouse.inference.placement import Placement
from glasshouse.inference.request import Delta, Event, Finish, QueueFullError, Request, TokenScore
from glasshouse.inference.runner import Runner
from glasshouse.inference.scheduler import Scheduler
from glasshouse.inference.text_stream import TextStream
from glasshouse.inference.torch_runner import TorchRunner
from glasshouse.model import Transformer
from glasshouse.model.lora import adapter_names

if TYPE_CHECKING:
    from glasshouse.inference.language_model import LanguageModel

DRAFT_TOKENS = 8
"""Most tokens guessed ahead for a text."""


class EngineSettings(Config):
    """Limits of one engine."""

    queue_limit: int = Field(default=256, ge=0, description="requests that may wait")
    max_rows: int = Field(default=64, ge=1, description="texts that are written at once")
    step_tokens: int = Field(
        default=512, ge=16, description="tokens read in one step, as far as prompts are concerned"
    )
    cache_bytes: int | None = Field(
        default=None, ge=1, description="ceiling of keys and values; by default a share of what is free"
    )
    draft_tokens: int | None = Field(
        default=None, ge=0, description="most tokens guessed ahead for a text; by default as many as pay"
    )
    runner: Literal["auto", "native", "torch"] = Field(
        default="auto", description="what runs the model; auto: native where it can"
    )
    deterministic: bool = Field(
        default=False, description="nothing beside a text can change it, not even by a last bit"
    )


@dataclass(frozen=True)
class EngineStats:
    """A moment of the engine's life; counters run from its start."""

    running: int  # requests
    waiting: int
    pages_in_use: int  # pages that some request holds; those kept for reuse only do not count
    pages_total: int
    prompt_tokens: int
    cached_tokens: int  # of them, those that needed no reading
    new_tokens: int
    steps: int = 0
    preemptions: int = 0


@dataclass
class Completion:
    """One choice, whole."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    finish: Finish | None = None


class Engine:
    """Runs requests on a model. `submit` may be called from any thread."""

    def __init__(self, model: LanguageModel, settings: EngineSettings | None = None) -> None:
        self.model, self.settings = model, settings or EngineSettings()
        self.runner = _runner(model.model, model.placement, self.settings)
        pages = self._count_pages()
        self.runner.allocate(pages)
        self._room = pages * self.runner.page_tokens  # tokens of the longest text
        scaling = model.model.config.rope_scaling
        dynamic = scaling is not None and scaling.rope_type == "dynamic"
        scheduler = Scheduler(
            PagePool(pages),
            self.runner.page_tokens,
            max_rows=self.settings.max_rows,
            step_tokens=self.settings.step_tokens,
            whole_from=model.model.config.max_position_embeddings if dynamic else None,
        )
        most = self.settings.draft_tokens
        if most is None:  # one token at a time, a wrong guess costs as much as a right one saves
            most = 0 if isinstance(self.runner, TorchRunner) and self.runner.deterministic else DRAFT_TOKENS
        vocab = model.model.config.vocab_size
        known = model.tokenizer.vocab_size
        self._loop = Loop(self.runner, scheduler, vocab, known, most, self._left_queue)
        self._grammars = GrammarCompiler(model.tokenizer, vocab, model.stop_ids)
        self._adapters = frozenset(adapter_names(model.model))
        self._changed = threading.Condition()  # guards what follows
        self._arrived: list[Job | Pooled] = []  # not yet seen by the thread
        self._number = 0
        self._waiting = 0  # requests that have not started
        self._queued_since, self._left = 0.0, 0  # since when requests wait, how many left the queue since
        self._closing: float | None = None  # when everything that still runs is cancelled
        self._ended = False  # the thread looks at nothing any more
        self.thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self.thread.start()

    def submit(self, request: Request, deliver: Callable[[Event], None]) -> Ticket:
        """Queue a request. `deliver` gets its events in the engine's thread and must not block.

        Raises UsageError for a request that the model cannot serve, QueueFullError where too many wait.
        """
        limit = self._check(request)
        if request.grammar is not None:
            self._grammars.compile(request.grammar)
        number = self._admit(1)
        ticket = Ticket(request)
        job = Job(request, ticket, deliver, number, limit)
        try:
            job.choices = [self._choice(job, index) for index in range(request.n)]
            for other in job.choices[1:]:
                other.leader = job.choices[0]
            self._enter([job])
        except BaseException:
            self._left_queue()
            raise
        return ticket

    def events(self, request: Request) -> Iterator[Event]:
        """The request's events as they come; leaving the loop early cancels it.

        Raises what went wrong in the engine, where a choice would finish with "error".
        """
        inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ticket = self.submit(request, inbox.put)
        left = request.n
        try:
            while left:
                event = inbox.get()
                left -= isinstance(event, Delta) and event.finish is not None
                if ticket.error is not None:
                    raise ticket.error
                yield event
        finally:
            ticket.cancel()

    async def stream(self, request: Request) -> AsyncGenerator[Event]:
        """`events` for asyncio."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Event] = asyncio.Queue()

        def deliver(event: Event) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, event)

        ticket = self.submit(request, deliver)
        left = request.n
        try:
            while left:
                event = await inbox.get()
                left -= isinstance(event, Delta) and event.finish is not None
                yield event
        finally:
            ticket.cancel()

    def complete(self, request: Request) -> list[Completion]:
        """All choices of a request, whole."""
        done = [Completion() for _ in range(request.n)]
        for event in self.events(request):
            if isinstance(event, Delta):
                made = done[event.choice]
                made.text += event.text
                made.ids += event.ids
                made.scores += event.scores
                made.finish = event.finish
        return done

    def embed(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """The mean of each prompt's last hidden states, float32 (prompts, hidden).

        The prompts are read in the engine's steps, among everything else that it does.
        """
        config = self.model.model.config
        check_prompts(prompts, min(config.context, self._room), config.vocab_size)
        number = self._admit(0, len(prompts))
        rows = [Pooled(prompt, number + place) for place, prompt in enumerate(prompts)]
        self._enter(rows)
        means = [row.mean.result() for row in rows]
        return torch.stack(means) if means else torch.empty(0, config.hidden_size)

    def stats(self) -> EngineStats:
        """What the engine does at this moment, and has done."""
        loop = self._loop
        pool = loop.scheduler.pool
        return EngineStats(
            running=sum(job.started for job in list(loop.jobs)),
            waiting=self._waiting,
            pages_in_use=pool.in_use,
            pages_total=pool.total,
            prompt_tokens=loop.prompt_tokens,
            cached_tokens=loop.cached_tokens,
            new_tokens=loop.new_tokens,
            steps=loop.steps,
            preemptions=loop.scheduler.preemptions,
        )

    def close(self, drain: float = 0.0) -> None:
        """Take no more requests; give those that are in `drain` seconds, then cancel them."""
        with self._changed:
            self._closing = time.monotonic() + drain
            self._changed.notify()
        if threading.current_thread() is not self.thread:  # a collector of garbage may run anywhere
            self.thread.join()
        self._grammars.forget()  # megabytes each, and the engine itself may wait long for the collector

    def _count_pages(self) -> int:
        """Pages below the memory ceiling; raises UsageError where not even one fits."""
        size, tokens, ceiling = self.runner.page_bytes, self.runner.page_tokens, self.settings.cache_bytes
        if ceiling is None:
            model = self.model.model
            return default_pages(size, tokens, model.config.context, self.settings.max_rows, model.device)
        if ceiling < size:
            raise UsageError(
                f"a page of {tokens} tokens takes {size} bytes, the ceiling is {ceiling}",
                fix="raise cache_bytes",
            )
        return ceiling // size

    def _admit(self, requests: int, numbers: int = 1) -> int:
        """Count so many requests into the queue and give out their numbers; raise where no more are taken."""
        with self._changed:
            if self._closing is not None:
                raise GlasshouseError("the engine is closed", fix="start another one")
            limit = self.settings.queue_limit
            if self._waiting >= limit and self._waiting >= limit + self._free_rows():
                raise QueueFullError(self._waiting, self._retry_after())
            if not self._waiting:
                self._queued_since, self._left = time.monotonic(), 0
            self._waiting += requests
            number, self._number = self._number, self._number + numbers
            return number

    def _free_rows(self) -> int:
        """Rows that nobody holds, and that no further choice of a request that has begun will take."""
        loop = self._loop
        wanted = sum(len(job.open) for job in list(loop.jobs) if job.started) + len(loop.pooled)
        return max(self.settings.max_rows - wanted, 0)

    def _enter(self, new: Sequence[Job | Pooled]) -> None:
        with self._changed:
            if self._ended:
                raise GlasshouseError("the engine is closed", fix="start another one")
            self._arrived += new
            self._changed.notify()

    def _left_queue(self) -> None:
        with self._changed:
            self._waiting -= 1
            self._left += 1

    def _retry_after(self) -> float:
        """Seconds until a place in the queue should be free, by the pace since there is a queue."""
        return max((time.monotonic() - self._queued_since) / max(self._left, 1), 1.0)

    def _choice(self, job: Job, index: int) -> Choice:
        request, end_ids = job.request, self.model.stop_ids
        text = TextStream(self.token_bytes, request.stop)
        constraint = None if request.grammar is None else self._grammars.start(request.grammar, job.limit)
        return Choice(job, index, text, constraint, end_ids)

    def token_bytes(self, token: int) -> bytes:
        """What a token says; nothing if the embedding has more rows than the tokenizer has tokens."""
        tokenizer = self.model.tokenizer
        return tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""

    def _check(self, request: Request) -> int:
        """How many new tokens a choice may have; raises UsageError for what cannot be served."""
        config = self.model.model.config
        check_prompts([request.prompt], min(config.context, self._room), config.vocab_size)
        if request.n < 1:
            raise UsageError(f"{request.n} choices were asked for", fix="ask for at least one")
        if request.adapter is not None and request.adapter not in self._adapters:
            raise UsageError(
                f"the model has no adapter called '{request.adapter}'",
                fix=f"it has: {', '.join(sorted(self._adapters)) or 'none'}",
            )
        if Penalties.needed(request.sampling):
            Penalties(request.sampling, request.prompt, config.vocab_size)
        room = min(config.context, self._room + 1) - len(request.prompt)
        return room if request.max_new_tokens is None else min(request.max_new_tokens, room)

    def _work(self) -> None:
        """The engine's thread."""
        loop = self._loop
        with torch.inference_mode():
            while True:
                with self._changed:
                    while loop.idle and not self._arrived and self._closing is None:
                        self._changed.wait()
                    arrived, self._arrived = self._arrived, []
                    if loop.idle and not arrived:
                        self._ended = True
                        return
                for new in arrived:
                    loop.enter(new)
                loop.sweep(self._closing is not None and time.monotonic() >= self._closing)
                loop.step()


def _runner(model: Transformer, placement: Placement | None, settings: EngineSettings) -> Runner:
    """The runner that the settings ask for. Raises UsageError if the native one cannot run the model."""
    if settings.runner != "torch":
        from glasshouse.inference.native_runner import NativeRunner

        if settings.runner == "native" or (placement is None and NativeRunner.supports(model) is None):
            return NativeRunner(model)
    return TorchRunner(model, deterministic=settings.deterministic, placement=placement)
