"""Monitor: tells those who watch what every call took, cost and came to. It changes no reply.

It stands outermost, so that it sees what the user sees: waiting, tries and hits of the cache included.
Beside the watchers it opens a span around each call, so that spans of clients underneath hang below it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glasshouse.core.errors import UsageError
from glasshouse.llm import genai
from glasshouse.llm.interface import LLM, Chunk, Completion, Request
from glasshouse.llm.layer import Layer
from glasshouse.llm.monitoring.call import Call, Watcher, next_id, without_credentials
from glasshouse.llm.monitoring.judge import Judge
from glasshouse.llm.monitoring.spans import Spans

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MOST_JUDGED_AT_ONCE = 16
"""Replies that a judge reads at the same time; more are not judged, so that a slow judge holds nobody up."""

log = logging.getLogger("glasshouse.llm")


class Monitor(Layer):
    """Watchers: CallLog, PrometheusMetrics, OtelMetrics, DriftAlerts, or anything with their three methods.

    A `judge` reads `judged_share` of the replies after they have gone out. Content (messages and replies) is
    given to spans and to the log only with `content=True`. `spans` defaults to OpenTelemetry's global
    provider, which records nothing unless the program has set one up.
    """

    def __init__(
        self,
        inner: LLM,
        *watchers: Watcher,
        judge: Judge | None = None,
        judged_share: float = 0.1,
        content: bool = False,
        spans: Spans | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inner)
        if not 0 <= judged_share <= 1:
            raise UsageError(f"a judged share of {judged_share}", fix="give a share from 0 to 1")
        self._watchers, self._content = watchers, content
        self._judge, self._share, self._random = judge, judged_share, random.Random(seed)
        self._spans = spans or Spans()
        self._judging: set[asyncio.Task[None]] = set()
        self._told: set[tuple[str, str]] = set()

    async def complete(self, request: Request) -> Completion:
        with self._watched(request) as (call, span):
            with self._spans.current(span):
                completion = await self.inner.complete(request)
            call.first_token_seconds = completion.first_token_seconds
            self._completed(call, completion)
        self._perhaps_judge(call, request, completion)
        return completion

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        completion, chunks = None, self.inner.stream(request)
        with self._watched(request, streamed=True) as (call, span):
            began = time.perf_counter()
            try:
                while True:
                    # The span is current only while the inner stream works: between two pieces the context
                    # is the reader's.
                    try:
                        with self._spans.current(span):
                            chunk = await anext(chunks)
                    except StopAsyncIteration:
                        break
                    if call.first_token_seconds is None and (chunk.text or chunk.reasoning):
                        call.first_token_seconds = time.perf_counter() - began
                    if chunk.completion is not None:
                        completion = chunk.completion
                        self._completed(call, completion)
                    yield chunk
            finally:
                close = getattr(chunks, "aclose", None)  # iterators need not have it, generators do
                if close is not None:
                    await close()
                if completion is not None and self._judge is not None:
                    asyncio.get_running_loop().call_soon(self._perhaps_judge, call, request, completion)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        with self._watched(None) as (call, span):
            with self._spans.current(span):
                vectors = await self.inner.embed(texts)
            call.model = call.asked
        return vectors

    async def close(self) -> None:
        """Close what is inside and have watchers write down what they know; they stay open for others."""
        if self._judging:
            await asyncio.gather(*self._judging, return_exceptions=True)
        try:
            await self.inner.close()
        finally:
            for watcher in self._watchers:
                watcher.flush()

    @contextmanager
    def _watched(
        self, request: Request | None, *, streamed: bool = False
    ) -> Iterator[tuple[Call, Span | None]]:
        operation = genai.EMBEDDINGS if request is None else genai.CHAT
        call = Call(next_id(), time.time(), without_credentials(self.inner.name), operation, streamed)
        if request is not None and (labels := request.labels):
            call.prompt, call.version = labels.get("prompt", ""), labels.get("version", "")
            call.experiment, call.arm = labels.get("experiment", ""), labels.get("arm", "")
        if self._content:
            call.request = request
        span = self._spans.begin(call, request)
        began = time.perf_counter()
        try:
            yield call, span
        except BaseException as error:
            # Who stops reading after the end of a reply has had all of it.
            if call.finish is None or isinstance(error, Exception):
                call.broke(error)
            raise
        finally:
            call.seconds = time.perf_counter() - began
            if span is not None:
                self._spans.end(span, call)
            for watcher in self._watchers:
                try:
                    watcher.record(call)
                except Exception as error:  # a watcher must not break what it watches
                    self._tell(watcher, error)

    def _completed(self, call: Call, completion: Completion) -> None:
        call.completed(completion)
        if self._content:
            call.reply = completion.text

    def _perhaps_judge(self, call: Call, request: Request, completion: Completion) -> None:
        if self._judge is None or call.refused or self._random.random() >= self._share:
            return
        if len(self._judging) < MOST_JUDGED_AT_ONCE:
            task = asyncio.get_running_loop().create_task(
                self._judged(self._judge, call, request, completion)
            )
            self._judging.add(task)
            task.add_done_callback(self._judging.discard)

    async def _judged(self, judge: Judge, call: Call, request: Request, completion: Completion) -> None:
        try:
            verdict = await judge.verdict(request, completion)
        except Exception as error:
            self._tell(judge, error)
            return
        for watcher in self._watchers:
            try:
                watcher.judged(call, verdict)
            except Exception as error:
                self._tell(watcher, error)

    def _tell(self, who: object, error: Exception) -> None:
        """Once for each kind: its message may hold anything, so only its kind is told."""
        kind = (type(who).__name__, type(error).__name__)
        if kind not in self._told:
            self._told.add(kind)
            log.warning("%s failed with %s; calls go on without it", *kind)
