"""A model folder as an `LLM`: the engine of this package, in this process."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from glasshouse.core.errors import GlasshouseError
from glasshouse.inference import LanguageModel, Sampling
from glasshouse.inference import request as engine_request
from glasshouse.inference.chat import fit
from glasshouse.inference.engine import Engine, EngineSettings
from glasshouse.llm.interface import Completion, Request

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

    async def complete(self, request: Request) -> Completion:
        """Turns of the user and their answers go, oldest first, from what the context cannot hold.

        Raises UsageError where the last message alone is too long.
        """
        model = self._engine.model
        limit = request.max_new_tokens
        prompt, _, _ = fit(model.tokenizer, request.messages, model.context, limit)
        asked = engine_request.Request(
            prompt=tuple(prompt),
            max_new_tokens=limit,
            sampling=Sampling.parse(request.model_dump(include={"temperature", "top_p", "seed"})),
            stop=request.stop,
            stop_ids=model.stop_ids,
        )
        text, tokens, finish = "", 0, None
        async for event in self._engine.stream(asked):
            if isinstance(event, engine_request.Delta):
                text += event.text
                tokens += len(event.ids)
                finish = event.finish
        if finish is None or finish.reason not in ("stop", "length"):
            reason = "nothing" if finish is None else finish.reason
            raise GlasshouseError(f"a reply ended with {reason}", where=self.name, fix="ask again")
        return Completion(text, finish.reason, len(prompt), tokens)

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
