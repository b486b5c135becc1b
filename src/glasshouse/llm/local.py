"""A model folder as an `LLM`: the engine of this package, in this process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from glasshouse.core.errors import UsageError
from glasshouse.inference import LanguageModel, Sampling
from glasshouse.inference import request as engine_request
from glasshouse.inference.chat import fit
from glasshouse.inference.engine import Engine, EngineSettings
from glasshouse.llm.errors import BadRequestError, ContextTooLongError, NotAbleError, ServerFaultError
from glasshouse.llm.interface import Capabilities, Chunk, Completion, Request, Usage

ROWS = 64
"""Texts that are written at once."""


class LocalLLM:
    """Replies of a model on this machine. What is asked beside a request cannot change its reply.

    Requests wait in the engine's queue as long as they must. Close it, or use it in a `with` block.
    """

    def __init__(self, model: LanguageModel, name: str = "local") -> None:
        self.name = name
        settings = EngineSettings(max_rows=ROWS, queue_limit=2**31, deterministic=True)
        self._engine = Engine(model, settings)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """Open a Hugging Face folder or a GGUF file; its path is the name."""
        return cls(LanguageModel.load(folder, device=device), str(folder))

    @property
    def can(self) -> Capabilities:
        return Capabilities(logprobs=False, output_schema=False, tools=False, counts_tokens=True)

    @property
    def context(self) -> int | None:
        return self._engine.model.context

    async def complete(self, request: Request) -> Completion:
        """Turns of the user and their answers go, oldest first, from what the context cannot hold.

        Raises ContextTooLongError where the last message alone is too long.
        """
        async for chunk in self.stream(request):
            if chunk.completion is not None:
                return chunk.completion
        raise ServerFaultError("the engine wrote no end of a reply", where=self.name, fix="ask again")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        if request.tools:
            raise BadRequestError("this model is not asked with tools yet", where=self.name)
        model, began, first = self._engine.model, time.perf_counter(), None
        prompt = self._prompt(request)
        given = request.model_dump(include={"temperature", "top_p", "seed"}, exclude_none=True)
        asked = engine_request.Request(
            prompt=tuple(prompt),
            max_new_tokens=request.max_new_tokens,
            sampling=Sampling.parse({"temperature": 0.0, "seed": 0} | given),
            stop=request.stop,
            stop_ids=model.stop_ids,
        )
        text, tokens, cached, finish = "", 0, 0, None
        async for event in self._engine.stream(asked):
            if isinstance(event, engine_request.PromptRead):
                cached = event.cached
                continue
            text += event.text
            tokens += len(event.ids)
            finish = event.finish
            if event.text:
                first = first or time.perf_counter() - began
                yield Chunk(event.text)
        if finish is None or finish.reason not in ("stop", "length"):
            reason = "nothing" if finish is None else finish.reason
            raise ServerFaultError(f"a reply ended with {reason}", where=self.name, fix="ask again")
        ignored = [name for name in ("logprobs", "output_schema") if getattr(request, name) is not None]
        yield Chunk(
            completion=Completion(
                text,
                finish.reason,
                Usage(len(prompt), tokens, cached),
                self.name,
                seconds=time.perf_counter() - began,
                first_token_seconds=first,
                ignored=tuple(ignored),
            )
        )

    def _prompt(self, request: Request) -> list[int]:
        model = self._engine.model
        try:
            return fit(model.tokenizer, request.messages, model.context, request.max_new_tokens)[0]
        except UsageError as error:
            raise ContextTooLongError(error.what, where=self.name, fix=error.fix) from None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise NotAbleError("this model is not asked for vectors yet", where=self.name)

    async def count_tokens(self, request: Request) -> int:
        """Of the whole prompt, whether or not the context can hold it."""
        tokenizer = self._engine.model.tokenizer
        return len(tokenizer.encode_chat(request.messages, add_generation_prompt=True).ids)

    async def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()
