"""The base of every layer: an LLM around another one, which passes on what it does not change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from glasshouse.llm.interface import LLM, Capabilities, Chunk, Completion, Note, Request


class Layer:
    """An `LLM` itself. A layer overrides what it is about; whoever wraps several models overrides more."""

    def __init__(self, inner: LLM) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def can(self) -> Capabilities:
        return self.inner.can

    @property
    def context(self) -> int | None:
        return self.inner.context

    async def complete(self, request: Request) -> Completion:
        return await self.inner.complete(request)

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        return self.inner.stream(request)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return await self.inner.embed(texts)

    async def count_tokens(self, request: Request) -> int:
        return await self.inner.count_tokens(request)

    async def close(self) -> None:
        await self.inner.close()


def noted(completion: Completion, note: Note) -> Completion:
    """The completion with what a layer did to it."""
    return replace(completion, notes=(*completion.notes, note))


async def at_once(llm: LLM, request: Request) -> AsyncIterator[Chunk]:
    """A stream of one piece, for layers that must see the whole reply before they let any of it go."""
    completion = await llm.complete(request)
    yield Chunk(completion.text, completion.reasoning or "", completion)
