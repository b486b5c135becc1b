"""What all routes share: the engine, the names of its models, the limits, and whether it still takes work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from glasshouse.inference.engine import Engine
from glasshouse.inference.language_model import LanguageModel
from glasshouse.inference.request import Request
from glasshouse.model.lora import adapter_names
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError
from glasshouse.server.running import Mailbox, Running
from glasshouse.server.settings import ServerSettings
from glasshouse.server.signatures import Signer
from glasshouse.tokenizer import Tokenizer
from glasshouse.tools.formats import ReplyFormat, detect_format


class Front(Protocol):
    """What the layers of a server and its process need to know of whatever answers: a Service or a Proxy."""

    settings: ServerSettings
    draining: bool
    in_flight: int  # requests for text or vectors that are not answered yet

    @property
    def models(self) -> Sequence[str]:
        """Every name that a request may give; none where that is not for us to say."""
        ...

    @property
    def bounds(self) -> Mapping[str, int]:
        """Largest numbers that a request may hold, by their format in the OpenAPI document."""
        ...

    async def close(self) -> None:
        """End what still runs, each with an error."""
        ...


@dataclass
class Service:
    """One engine behind HTTP."""

    engine: Engine
    name: str  # what the model is called; "name:adapter" is the same one with an adapter
    settings: ServerSettings
    signer: Signer = field(default_factory=Signer)
    created: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    in_flight: int = 0  # requests for text or vectors that are not answered yet

    @property
    def model(self) -> LanguageModel:
        return self.engine.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.model.tokenizer

    @property
    def context(self) -> int:
        return self.model.context

    @cached_property
    def _mailbox(self) -> Mailbox:
        return Mailbox(asyncio.get_running_loop())

    @cached_property
    def adapters(self) -> Sequence[str]:
        """Names of the adapters that the model carries."""
        return sorted(adapter_names(self.model.model))

    @property
    def models(self) -> list[str]:
        """Every name that a request may give."""
        return [self.name, *(f"{self.name}:{adapter}" for adapter in self.adapters)]

    @cached_property
    def form(self) -> ReplyFormat:
        """What replies may hold beside text, as the chat template has it."""
        return detect_format(self.tokenizer.chat_template)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the token that stands for most: a text of b bytes has at least b / longest tokens."""
        tokenizer = self.tokenizer
        return max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))

    @property
    def bounds(self) -> Mapping[str, int]:
        return {"token-id": self.tokenizer.vocab_size - 1, "width": self.model.model.config.hidden_size}

    async def close(self) -> None:
        await asyncio.to_thread(self.engine.close)

    def adapter(self, model: str) -> str | None:
        """The adapter that a model's name asks for. Raises ApiError 404 for a name that is not served."""
        if model not in self.models:
            raise ApiError(
                404,
                f"the model '{model[:200]}' does not exist here; there is {', '.join(self.models)}",
                param="model",
                code="model_not_found",
            )
        return model.removeprefix(self.name).removeprefix(":") or None

    def new_tokens(self, prompt: int, asked: int | None) -> int:
        """How many tokens a choice may get: what is asked for, within the context and the server's limit."""
        limits = [self.context - prompt, asked, self.settings.max_new_tokens]
        return max(min(limit for limit in limits if limit is not None), 0)

    async def start(self, request: Request, call: Call) -> Running:
        """Give a request to the engine. Raises what `Engine.submit` raises: UsageError, QueueFullError."""
        call.prompt_tokens += len(request.prompt)
        running = Running(request, call, self._mailbox)
        if request.grammar is None:
            running.submit(self.engine)
            return running
        try:  # the grammar is compiled first; the others' streams go on meanwhile
            await asyncio.to_thread(running.submit, self.engine)
        except asyncio.CancelledError:
            running.abandon()
            raise
        return running
