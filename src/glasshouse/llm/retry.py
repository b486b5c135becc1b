"""Asks again: after a failure that may pass, and after a reply that does not hold.

The loop is our own, because stamina's (and tenacity's below it) sees only exceptions: it can change no
request between tries, count no tokens, and its jitter is added to the wait in place of spreading it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from glasshouse.core.errors import ConfigError
from glasshouse.llm.errors import BrokenStreamError, InvalidOutputError, LLMError
from glasshouse.llm.interface import LLM, Chunk, Completion, Message, Note, Request
from glasshouse.llm.layer import Layer, at_once, noted
from glasshouse.llm.reading import reading
from glasshouse.llm.reseed import other_seed
from glasshouse.llm.spent import Spent

T = TypeVar("T")

Validator = Callable[[Completion], str | None]
"""What is wrong with a reply, as a sentence for whoever writes it anew; None: nothing. May raise
InvalidOutputError in its place."""

NEVER = (400, 401, 403)
"""Statuses after which the same request fails again, whatever class of error a backend made of them."""

WORDLESS = Request.parse({"messages": [{"role": "user", "content": ""}], "max_new_tokens": 1})
"""Stands for what is asked where no words are: the caps count a token for it."""


class Retry(Layer):
    """Up to `tries` tries in all, the first one included.

    A `retryable` error is followed by a wait of random length between 0 and min(longest_wait, first_wait ·
    2^n) seconds ("full jitter": Brooker, "Exponential backoff and jitter", AWS 2015). Where the server
    asked for a pause (Retry-After), that pause, at most `longest_pause`, comes before it.

    A reply that `validate` finds wrong, and InvalidOutputError from below, is followed at once by the same
    conversation with the reply, the problem and another seed. Only the newest wrong reply is shown, so that
    a prompt does not grow with every try.

    Neither begins once `seconds` since the first try would have passed (a try that is under way ends by its
    backend's own timeout), nor where it might need more than what is left of `tokens`: prompt and reply of
    all tries together, failed and wrong ones included, as far as backends tell.

    The reply's usage and cost are those of all tries; so are the last error's. A stream is asked for again
    only before its first piece went out; later it ends with BrokenStreamError. With `validate` a stream is
    one piece.
    """

    def __init__(
        self,
        inner: LLM,
        *,
        tries: int = 4,
        seconds: float = 120.0,
        tokens: int | None = None,
        first_wait: float = 0.5,
        longest_wait: float = 20.0,
        longest_pause: float = 60.0,
        validate: Validator | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if tries < 1:
            raise ConfigError(f"tries must be 1 or more, got {tries}", where="Retry")
        super().__init__(inner)
        self.tries, self.seconds, self.tokens, self.validate = tries, seconds, tokens, validate
        self.first_wait, self.longest_wait, self.longest_pause = first_wait, longest_wait, longest_pause
        self.clock, self.sleep, self.chance = clock, sleep, chance

    async def complete(self, request: Request) -> Completion:
        tries = _Tries(self, request)
        while True:
            try:
                completion = await self.inner.complete(tries.request)
            except LLMError as error:
                await tries.failed(error, error)
                continue
            invalid = self._invalid(completion)
            if invalid is None:
                return tries.done(completion)
            await tries.failed(invalid, completion)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        if self.validate is not None:
            async for chunk in at_once(self, request):
                yield chunk
            return
        tries = _Tries(self, request)
        while True:
            text, begun = "", False
            try:
                async with reading(self.inner, tries.request) as chunks:
                    async for chunk in chunks:
                        text += chunk.text
                        begun = begun or bool(chunk.text or chunk.reasoning)
                        if chunk.completion is not None:
                            yield Chunk(chunk.text, chunk.reasoning, tries.done(chunk.completion))
                            return
                        yield chunk
                raise BrokenStreamError("the stream stopped before its end", where=self.name)
            except LLMError as error:
                if begun:
                    raise tries.broken(error, text) from error
                await tries.failed(error, error)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return await self._until_it_passes(WORDLESS, lambda: self.inner.embed(texts))

    async def count_tokens(self, request: Request) -> int:
        return await self._until_it_passes(request, lambda: self.inner.count_tokens(request))

    async def _until_it_passes(self, request: Request, ask: Callable[[], Awaitable[T]]) -> T:
        """The same rules for what has neither a reply nor a note."""
        tries = _Tries(self, request)
        while True:
            try:
                return await ask()
            except LLMError as error:
                await tries.failed(error, error)

    def wait(self, failures: int, pause: float | None) -> float:
        """Seconds to wait after so many failures (from 1), where the server asked for `pause` or for
        nothing."""
        # beyond 2^60 nothing changes but the number of digits
        longest = min(self.longest_wait, self.first_wait * 2 ** min(failures - 1, 60))
        return min(max(pause or 0.0, 0.0), self.longest_pause) + self.chance() * longest

    def _invalid(self, completion: Completion) -> InvalidOutputError | None:
        if self.validate is None or completion.finish == "refusal":  # words cannot mend that
            return None
        try:
            problem = self.validate(completion)
        except InvalidOutputError as error:
            return error
        if problem is None:
            return None
        what = f"the reply does not hold: {problem}"
        return InvalidOutputError(what, text=completion.text, problem=problem, where=self.name)


class _Tries:
    """One call: what was tried, why it failed, what is asked next."""

    def __init__(self, rules: Retry, request: Request) -> None:
        self.rules, self.first, self.request = rules, request, request
        self.began = rules.clock()
        self.spent = Spent()
        self.tried = 0
        self.waits: list[float] = []
        self.reasons: list[str] = []
        self.invalid = 0
        self.prompt_tokens = 0  # of the last try that told

    def done(self, completion: Completion) -> Completion:
        if not self.reasons:
            return completion
        self.spent.add(completion)
        what = f"try {self.tried + 1} succeeded, after {sum(self.waits):.1f} s of waiting; before: "
        details = {
            "tries": self.tried + 1,
            "waits": tuple(self.waits),
            "reasons": tuple(self.reasons),
            "validation_failures": self.invalid,
            "usage_untold": self.spent.untold,
            "last_usage": completion.usage,
        }
        return noted(self.spent.reply(completion), Note("retry", what + "; ".join(self.reasons), details))

    async def failed(self, error: LLMError, outcome: Completion | LLMError) -> None:
        """Waits until the next try is due and says what it asks, or raises the error."""
        rules = self.rules
        self.tried += 1
        self.spent.add(outcome)
        invalid = isinstance(error, InvalidOutputError)
        self.invalid += invalid
        if not invalid and (not error.retryable or error.status in NEVER):
            if self.tried == 1:
                raise error
            raise self._last(error, "it cannot pass") from error
        self.reasons.append(error.what)
        if outcome.usage is not None and outcome.usage.prompt_tokens:
            self.prompt_tokens = outcome.usage.prompt_tokens
        wait = 0.0 if invalid else rules.wait(len(self.waits) + 1, error.retry_after)
        if self.tried >= rules.tries:
            raise self._last(error, "no more are allowed") from error
        if rules.clock() - self.began + wait > rules.seconds:
            raise self._last(error, f"the next would begin after the {rules.seconds:g} s allowed") from error
        if invalid:
            self._ask_again(error, outcome)
        if rules.tokens is not None and self.spent.tokens + self._most_tokens(error) > rules.tokens:
            used = f"{self.spent.tokens} of {rules.tokens} tokens are used"
            raise self._last(error, f"{used}, the next might need more than the rest") from error
        if not invalid:
            self.waits.append(wait)
            await rules.sleep(wait)

    def broken(self, error: LLMError, text: str) -> LLMError:
        """Of a stream whose beginning is with the reader already: nobody can take it back."""
        self.spent.add(error)
        if not error.retryable:
            return self.spent.error(error, error.what)
        told = BrokenStreamError(
            f"the stream broke after {len(text)} characters: {error.what}",
            where=error.where or self.rules.name,
            fix="ask again, or use what came: it is the error's text",
            status=error.status,
            retry_after=error.retry_after,
            usage=self.spent.usage,
            cost=self.spent.cost,
        )
        told.text = text
        return told

    def _last(self, error: LLMError, why: str) -> LLMError:
        tries = "1 try" if self.tried == 1 else f"{self.tried} tries"
        last = self.spent.error(error, f"{error.what.rstrip('.')}; given up after {tries}: {why}")
        last.tries = self.tried
        return last

    def _ask_again(self, error: InvalidOutputError, outcome: Completion | LLMError) -> None:
        changes: dict[str, Any] = {"messages": (*self.first.messages, *_correction(error, outcome))}
        if self.first.seed is not None or self.rules.can.seed:
            changes["seed"] = other_seed(self.first, "retry", self.tried)
        self.request = self.first.model_copy(update=changes)

    def _most_tokens(self, error: LLMError) -> int:
        """That the next try may use, by what the last one told of its prompt."""
        more = 0
        if isinstance(error, InvalidOutputError):
            added = self.request.messages[len(self.first.messages) :]
            more = sum(len(str(message).encode()) for message in added)  # a token has a byte or more
        return self.prompt_tokens + more + self.first.max_new_tokens


def _correction(error: InvalidOutputError, outcome: Completion | LLMError) -> list[Message]:
    """The wrong reply and what is wrong with it. A called tool is answered by a tool's message."""
    problem = error.problem.rstrip(".")
    say = f"That reply cannot be used: {problem}. Write the whole reply again without this mistake."
    calls = outcome.tool_calls if isinstance(outcome, Completion) else ()
    if calls:
        reply = {"role": "assistant", "content": error.text, "tool_calls": list(calls)}
        return [reply, *({"role": "tool", "tool_call_id": call["id"], "content": say} for call in calls)]
    asked = {"role": "user", "content": say}
    if not error.text.strip():  # providers refuse empty turns
        return [asked]
    return [{"role": "assistant", "content": error.text}, asked]
