"""An LLM that answers by a script, in this process: for what a layer does, whatever the wire looks like.

How the wire looks is tested against real servers and real SDKs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from glasshouse.llm import Chunk, Completion, Request, Usage
from glasshouse.llm.interface import Capabilities

Outcome = str | Completion | Exception


class Scripted:
    """Gives its outcomes one after the other, the last one for ever; `asked` keeps every request.

    An outcome is a text, a completion, an error to be raised, or a function of the request that gives one.
    `most_at_once` is how many calls were ever open together. A stream whose outcome is an error lets `begun`
    out before it.
    """

    def __init__(
        self,
        outcomes: Iterable[Outcome | Callable[[Request], Outcome]] = ("Yes.",),
        *,
        name: str = "scripted",
        seconds: float = 0.0,
        context: int | None = None,
        can: Capabilities | None = None,
        begun: str = "",
    ) -> None:
        self.outcomes, self.name, self.seconds, self.context = list(outcomes), name, seconds, context
        self.can = can or Capabilities(embeddings=True, counts_tokens=True)
        self.begun, self.asked, self.closed = begun, [], False
        self.open = self.most_at_once = 0

    async def _next(self, request: Request) -> Completion | Exception:
        self.asked.append(request)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        self.open += 1
        self.most_at_once = max(self.most_at_once, self.open)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.open -= 1
        if callable(outcome) and not isinstance(outcome, Exception):
            outcome = outcome(request)
        if isinstance(outcome, str):
            usage = Usage(await self.count_tokens(request), len(outcome.split()))
            outcome = Completion(outcome, "stop", usage, self.name, seconds=self.seconds)
        return outcome

    async def complete(self, request: Request) -> Completion:
        outcome = await self._next(request)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def stream(self, request: Request):
        outcome = await self._next(request)
        if isinstance(outcome, Exception):
            if self.begun:
                yield Chunk(self.begun)
            raise outcome
        for piece in outcome.text.split(" "):
            yield Chunk(piece + " ")
        yield Chunk(completion=outcome)

    async def embed(self, texts):
        return [[float(len(text))] for text in texts]

    async def count_tokens(self, request: Request) -> int:
        """One for each word."""
        return sum(len(str(message["content"]).split()) for message in request.messages)

    async def close(self) -> None:
        self.closed = True
