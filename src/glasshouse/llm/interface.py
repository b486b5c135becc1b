"""What every language model is asked, and what it answers, whoever runs it.

`complete` is asynchronous: whoever has many conversations asks them all at once, and the model decides how
many it reads together. `complete_all` is the way there for code without an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field

from glasshouse.core.config import Config

Message = dict[str, Any]


class Request(Config):
    """One conversation to be continued, and how. Equal requests to one local model get equal replies."""

    messages: tuple[Message, ...] = Field(min_length=1)
    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)  # 0: the likeliest token each time
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int = 0
    stop: tuple[str, ...] = ()  # texts before which a reply ends


@dataclass(frozen=True)
class Completion:
    """A reply. `finish`: "stop" where the model ended by itself or at a stop text, "length" where it was
    cut."""

    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int


class LLM(Protocol):
    """A language model. `name` tells it from others."""

    @property
    def name(self) -> str: ...

    async def complete(self, request: Request) -> Completion:
        """The assistant's next message. Raises GlasshouseError for a request that it cannot serve."""
        ...


def complete_all(llm: LLM, requests: Iterable[Request]) -> list[Completion]:
    """The replies to several conversations, asked at once, in their order; not from within an event loop."""

    async def ask() -> list[Completion]:
        return await asyncio.gather(*(llm.complete(request) for request in requests))

    return asyncio.run(ask())
