"""The engine: requests go in, events come out, from one thread that owns the model."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor

from glasshouse.core.config import Config
from glasshouse.inference.decoding import check_prompts, decode
from glasshouse.inference.language_model import LanguageModel
from glasshouse.inference.request import Delta, Event, Finish, PromptRead, QueueFullError, Request, TokenScore
from glasshouse.inference.sampling import row_key
from glasshouse.inference.text_stream import TextStream


class EngineSettings(Config):
    """Limits of one engine."""

    queue_limit: int = Field(256, ge=0, description="requests that may wait")


@dataclass(frozen=True)
class EngineStats:
    """A moment of the engine's life; counters run from its start."""

    running: int
    waiting: int
    pages_in_use: int  # pages that some request holds; those kept for reuse only do not count
    pages_total: int
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int


class Ticket:
    """A submitted request."""

    def __init__(self, request: Request, deliver: Callable[[Event], None]) -> None:
        self.request, self.deliver = request, deliver
        self.cancelled = False

    def cancel(self) -> None:
        """Stop as soon as the current step ends; every open choice finishes with "cancelled"."""
        self.cancelled = True


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
        self._waiting: queue.Queue[Ticket | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._running = self._prompt_tokens = self._new_tokens = 0
        self._thread.start()

    def submit(self, request: Request, deliver: Callable[[Event], None]) -> Ticket:
        """Queue a request. `deliver` gets its events in the engine's thread and must not block.

        Raises UsageError for a prompt that the model cannot read, QueueFullError where too many wait.
        """
        model = self.model.model
        check_prompts([request.prompt], model.config.context, model.config.vocab_size)
        if self._waiting.qsize() >= self.settings.queue_limit:
            raise QueueFullError(self._waiting.qsize(), 1.0)
        ticket = Ticket(request, deliver)
        self._waiting.put(ticket)
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
        """The mean of each prompt's last hidden states, float32 (prompts, hidden)."""
        model = self.model.model
        check_prompts(prompts, model.config.context, model.config.vocab_size)
        with torch.inference_mode():
            means = [model.hidden(torch.tensor([list(prompt)]))[0].float().mean(0) for prompt in prompts]
        return torch.stack(means)

    def stats(self) -> EngineStats:
        return EngineStats(
            self._running, self._waiting.qsize(), 0, 0, self._prompt_tokens, 0, self._new_tokens
        )

    def close(self, drain: float = 0.0) -> None:
        """Take no more requests; give running ones `drain` seconds, then cancel them."""
        self._waiting.put(None)
        self._thread.join(drain)

    def _work(self) -> None:
        while (ticket := self._waiting.get()) is not None:
            self._running = 1
            ticket.deliver(PromptRead(0))
            for choice in range(ticket.request.n):
                self._choice(ticket, choice)
            self._running = 0

    def _choice(self, ticket: Ticket, choice: int) -> None:
        request = ticket.request
        text = TextStream(self.model.tokenizer.token_bytes, request.stop)
        self._prompt_tokens += len(request.prompt)
        limit = request.max_new_tokens or self.model.context
        key = row_key(request.sampling.seed, choice, request.prompt)
        steps = decode(
            self.model.model,
            [list(request.prompt)],
            limit,
            request.sampling,
            keys=[key],
            stop_ids=request.stop_ids,
        )
        for step in itertools.islice(steps, limit):
            token = step.tokens[0]
            if ticket.cancelled:
                ticket.deliver(Delta(choice, "", (), (), Finish("cancelled")))
                return
            if token in request.stop_ids:
                ticket.deliver(Delta(choice, text.finish(), (), (), Finish("stop", token)))
                return
            self._new_tokens += 1
            scores: tuple[TokenScore, ...] = ()
            if request.logprobs is not None:
                logprobs = step.logits[0].float().log_softmax(-1)
                top = logprobs.topk(request.logprobs)
                scores = (
                    TokenScore(
                        token,
                        float(logprobs[token]),
                        tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)),
                    ),
                )
            piece = text.feed(token)
            finish = Finish("stop", request.stop[0]) if text.stopped else None
            ticket.deliver(Delta(choice, piece, (token,), scores, finish))
            if finish:
                return
        ticket.deliver(Delta(choice, text.finish(), (), (), Finish("length")))
