"""The engine: requests go in, events come out, from one thread that owns the model.

Between two steps requests join and leave; a step reads some tokens of many texts at once (see
`scheduler.py`), and each text that has been read to its end gets its next token.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from glasshouse.core.config import Config
from glasshouse.core.errors import GlasshouseError, UsageError
from glasshouse.inference.decoding import check_prompts
from glasshouse.inference.drafter import Drafter
from glasshouse.inference.grammar import GrammarCompiler
from glasshouse.inference.job import Choice, Job, Ticket
from glasshouse.inference.language_model import LanguageModel
from glasshouse.inference.memory_ceiling import default_pages
from glasshouse.inference.pages import PagePool
from glasshouse.inference.penalties import Penalties
from glasshouse.inference.request import Delta, Event, Finish, QueueFullError, Request, TokenScore
from glasshouse.inference.runner import Piece, Runner
from glasshouse.inference.scheduler import Part, Row, Scheduler
from glasshouse.inference.text_stream import TextStream
from glasshouse.inference.torch_runner import TorchRunner
from glasshouse.inference.writers import Writers
from glasshouse.model import Transformer
from glasshouse.model.lora import adapter_names

DRAFT_TOKENS = 8
"""Most tokens guessed ahead for a text."""

DRAFT_STEP = 16
"""Most tokens of one step that texts write, guesses included: beyond, a guess costs as much as it may bring."""

log = logging.getLogger(__name__)


class EngineSettings(Config):
    """Limits of one engine."""

    queue_limit: int = Field(256, ge=0, description="requests that may wait")
    max_rows: int = Field(64, ge=1, description="texts that are written at once")
    step_tokens: int = Field(
        512, ge=16, description="tokens read in one step, as far as prompts are concerned"
    )
    cache_bytes: int | None = Field(
        None, ge=1, description="ceiling of keys and values; by default a share of what is free"
    )
    draft_tokens: int | None = Field(
        None, ge=0, description="most tokens guessed ahead for a text; by default as many as pay"
    )
    runner: Literal["auto", "native", "torch"] = Field(
        "auto", description="what runs the model; auto: native where it can"
    )
    deterministic: bool = Field(
        False, description="nothing beside a text can change it, not even by a last bit"
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


class Pooled(Row):
    """A text that is read for the mean of its hidden states."""

    def __init__(self, ids: Sequence[int], number: int) -> None:
        super().__init__(list(ids), (number,), shared=False)
        self.total: Tensor | float = 0.0
        self.mean: Future[Tensor] = Future()


class Engine:
    """Runs requests on a model. `submit` may be called from any thread."""

    def __init__(self, model: LanguageModel, settings: EngineSettings | None = None) -> None:
        self.model, self.settings = model, settings or EngineSettings()
        self.runner = _runner(model.model, self.settings)
        pages = self._count_pages()
        self.runner.allocate(pages)
        self._room = pages * self.runner.page_tokens  # tokens of the longest text
        scaling = model.model.config.rope_scaling
        dynamic = scaling is not None and scaling.rope_type == "dynamic"
        self._scheduler = Scheduler(
            PagePool(pages),
            self.runner.page_tokens,
            max_rows=self.settings.max_rows,
            step_tokens=self.settings.step_tokens,
            whole_from=model.model.config.max_position_embeddings if dynamic else None,
        )
        most = self.settings.draft_tokens
        if most is None:  # one token at a time, a wrong guess costs as much as a right one saves
            most = 0 if isinstance(self.runner, TorchRunner) and self.runner.deterministic else DRAFT_TOKENS
        self._draft_tokens = most
        vocab = model.model.config.vocab_size
        self._writers = Writers(vocab)
        self._grammars = GrammarCompiler(model.tokenizer, vocab, model.stop_ids)
        self._adapters = frozenset(adapter_names(model.model))
        self._lock = threading.Condition()
        self._arrived: list[Job | Pooled] = []  # not yet seen by the thread
        self._waiting = 0  # jobs that have not started
        self._jobs: list[Job] = []  # of the thread
        self._pooled: list[Pooled] = []
        self._number = 0
        self._closing: float | None = None  # when everything that still runs is cancelled
        self._starts: list[float] = []  # when the last requests left the queue
        self._steps = self._prompt_tokens = self._cached_tokens = self._new_tokens = 0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, deliver: Callable[[Event], None]) -> Ticket:
        """Queue a request. `deliver` gets its events in the engine's thread and must not block.

        Raises UsageError for a request that the model cannot serve, QueueFullError where too many wait.
        """
        limit = self._check(request)
        if request.grammar is not None:
            self._grammars.compile(request.grammar)
        ticket = Ticket(request)
        with self._lock:
            self._admit()
            job = Job(request, ticket, deliver, self._number, limit)
            job.choices = [self._choice(job, index) for index in range(request.n)]
            for other in job.choices[1:]:
                other.leader = job.choices[0]
            self._waiting += 1
            self._arrived.append(job)
            self._lock.notify()
        return ticket

    def events(self, request: Request) -> Iterator[Event]:
        """The request's events as they come; leaving the loop early cancels it."""
        inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ticket = self.submit(request, inbox.put)
        left = request.n
        try:
            while left:
                event = inbox.get()
                left -= isinstance(event, Delta) and event.finish is not None
                yield event
        finally:
            ticket.cancel()

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        """`events` for asyncio."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        ticket = self.submit(request, lambda event: loop.call_soon_threadsafe(inbox.put_nowait, event))
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
        with self._lock:
            self._admit()
            rows = [Pooled(prompt, self._number + place) for place, prompt in enumerate(prompts)]
            self._number += len(rows)
            self._arrived += rows
            self._lock.notify()
        means = [row.mean.result() for row in rows]
        return torch.stack(means) if means else torch.empty(0, config.hidden_size)

    def stats(self) -> EngineStats:
        """What the engine does at this moment, and has done."""
        pool = self._scheduler.pool
        waiting = self._waiting
        return EngineStats(
            running=max(len(self._jobs) + len(self._arrived) - waiting, 0),
            waiting=waiting,
            pages_in_use=pool.in_use,
            pages_total=pool.total,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            new_tokens=self._new_tokens,
            steps=self._steps,
            preemptions=self._scheduler.preemptions,
        )

    def close(self, drain: float = 0.0) -> None:
        """Take no more requests; give those that are in `drain` seconds, then cancel them."""
        with self._lock:
            self._closing = time.monotonic() + drain
            self._lock.notify()
        self._thread.join()

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

    # What follows runs under the lock, in any thread.

    def _admit(self) -> None:
        """Raise where no more requests are taken."""
        if self._closing is not None:
            raise GlasshouseError("the engine is closed", fix="start another one")
        free = max(self.settings.max_rows - len(self._scheduler.running), 0)
        if self._waiting >= self.settings.queue_limit + free:
            raise QueueFullError(self._waiting, self._retry_after())
        self._number += 1

    def _retry_after(self) -> float:
        """Seconds until a place in the queue should be free, by the last requests that left it."""
        starts = [*self._starts[-32:], time.monotonic()]
        if len(starts) < 3:
            return 1.0
        return max((starts[-1] - starts[0]) / (len(starts) - 1), 1.0)

    def _choice(self, job: Job, index: int) -> Choice:
        request, end_ids = job.request, self.model.stop_ids
        text = TextStream(self.model.tokenizer.token_bytes, request.stop)
        constraint = None if request.grammar is None else self._grammars.start(request.grammar)
        return Choice(job, index, text, constraint, end_ids)

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

    # What follows runs in the engine's thread only.

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                with self._lock:
                    while not (self._arrived or self._jobs or self._pooled or self._closing is not None):
                        self._lock.wait()
                    arrived, self._arrived = self._arrived, []
                    if not (arrived or self._jobs or self._pooled):
                        return
                for new in arrived:
                    self._enter(new)
                self._leave()
                self._step()

    def _enter(self, new: Job | Pooled) -> None:
        if isinstance(new, Pooled):
            self._pooled.append(new)
            self._scheduler.add(new)
            return
        self._jobs.append(new)
        for choice in new.choices if new.limit > 0 else new.choices[:1]:
            self._scheduler.add(choice)

    def _leave(self) -> None:
        """End what was cancelled or has run out of time."""
        now = time.monotonic()
        closed = self._closing is not None and now >= self._closing
        for job in list(self._jobs):
            if job.ticket.cancelled or closed:
                self._end(job, Finish("cancelled"))
            elif job.deadline is not None and now >= job.deadline:
                self._end(job, Finish("timeout"))
        if closed:
            for row in list(self._pooled):
                self._fail(row, GlasshouseError("the engine was closed"))

    def _step(self) -> None:
        """Read some tokens of every text that is on, and give those read to their end their next tokens."""
        self._guess()
        parts = self._scheduler.plan()
        if not parts:
            return
        self._steps += 1
        try:
            wanted = [_wanted(part) for part in parts]
            hidden = self.runner.hidden(
                [
                    Piece(part.ids, part.row.read, part.row.pages, count, part.row.adapter)
                    for part, count in zip(parts, wanted, strict=True)
                ]
            )
            self._use(parts, list(hidden.split(wanted)))
        except Exception as error:
            log.exception("a step failed")
            for row in {part.row for part in parts}:
                self._fail(row, error)

    def _use(self, parts: Sequence[Part], states: Sequence[Tensor]) -> None:
        """Make something of each part's wanted states."""
        writing: list[tuple[Part, Tensor]] = []
        for part, state in zip(parts, states, strict=True):
            row = part.row
            self._count(part)
            if isinstance(row, Pooled):
                row.total = row.total + state.float().sum(0).cpu()
                self._scheduler.done(part)
                if row.left == 0:
                    self._scheduler.remove(row)
                    self._pooled.remove(row)
                    row.mean.set_result(row.total / len(row.ids))
                continue
            assert isinstance(row, Choice)
            job = row.job
            if _scored(row):
                vocab = self.model.model.config.vocab_size
                job.score_prompt(row.read, state, self.runner.logits, vocab)
            if row.left > part.count:
                self._scheduler.done(part)
                continue
            if not job.read:
                job.tell_read(row.cached)
            if job.limit == 0:
                self._end(job, Finish("length"))
                continue
            writing.append((part, state[-1 - len(part.drafts) :]))
        if writing:
            self._write(writing)

    def _count(self, part: Part) -> None:
        """Count the tokens, and a request's start."""
        row = part.row
        if isinstance(row, Choice) and not row.job.started:
            row.job.started = True
            with self._lock:
                self._waiting -= 1
                self._starts = [*self._starts[-32:], time.monotonic()]
        if not row.opened:
            if row.read == row.cached:
                self._cached_tokens += row.cached
                self._prompt_tokens += row.cached
            self._prompt_tokens += part.count

    def _guess(self) -> None:
        """Propose tokens for the texts that write, if they are few."""
        writing = [row for row in self._scheduler.running if isinstance(row, Choice) and row.left == 1]
        room = DRAFT_STEP - len(writing) if self._draft_tokens else 0
        for choice in writing:
            if room <= 0:
                return
            if choice.drafter is None:
                choice.drafter = Drafter(choice.ids, self._draft_tokens)
            drafts = choice.drafter.propose(choice.ids, min(room, choice.remaining - 1))
            if drafts and choice.constraint is not None:
                drafts = drafts[: choice.constraint.valid_prefix(drafts)]
            choice.drafts = drafts
            room -= len(drafts)

    def _write(self, writing: Sequence[tuple[Part, Tensor]]) -> None:
        """Choose the next tokens of rows whose states (1 + drafts, hidden) these are."""
        choices = [part.row for part, _ in writing if isinstance(part.row, Choice)]
        drafts = [part.drafts for part, _ in writing]
        counts = [len(states) for _, states in writing]
        logits = self.runner.logits(torch.cat([states for _, states in writing])).split(counts)
        tokens = self._writers.choose(choices, drafts, logits)
        for (part, _), choice, chosen, rows in zip(writing, choices, tokens, logits, strict=True):
            right = len(chosen) - 1
            if choice.drafter is not None and part.drafts:
                choice.drafter.learn(len(part.drafts), right)
            kept = choice.say(chosen, rows)
            self._new_tokens += kept
            self._scheduler.done(part, min(kept, right))
            if choice.finish is not None:
                self._scheduler.remove(choice)
                self._close(choice.job)

    def _close(self, job: Job) -> None:
        """Forget a job whose choices have all ended."""
        if job.open:
            return
        self._jobs.remove(job)
        if not job.started:
            with self._lock:
                self._waiting -= 1

    def _end(self, job: Job, finish: Finish) -> None:
        """End every open choice of a job now; its pages are free at once."""
        for choice in job.open:
            if choice in self._scheduler.running or choice in self._scheduler.waiting:
                self._scheduler.remove(choice)
            choice.end(finish)
        self._close(job)

    def _fail(self, row: Row, error: Exception) -> None:
        """A row cannot go on: so its request ends."""
        if isinstance(row, Pooled):
            self._pooled.remove(row)
            self._scheduler.remove(row)
            row.mean.set_exception(error)
        elif isinstance(row, Choice) and row.job in self._jobs:
            self._end(row.job, Finish("error"))


def _runner(model: Transformer, settings: EngineSettings) -> Runner:
    """The runner that the settings ask for. Raises UsageError if the native one cannot run the model."""
    if settings.runner != "torch":
        from glasshouse.inference.native_runner import NativeRunner

        if settings.runner == "native" or NativeRunner.supports(model) is None:
            return NativeRunner(model)
    return TorchRunner(model, deterministic=settings.deterministic)


def _scored(row: Row) -> bool:
    return isinstance(row, Choice) and row.job.request.prompt_logprobs is not None and not row.shared


def _wanted(part: Part) -> int:
    """Of how many of a part's tokens the hidden state is needed."""
    row, tokens = part.row, part.count + len(part.drafts)
    if isinstance(row, Pooled) or (_scored(row) and not row.opened):
        return tokens
    return 1 + len(part.drafts) if row.left == part.count else 0
