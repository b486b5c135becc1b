"""A layer that counts money and tokens, and stops before the call that could pass a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import replace

from glasshouse.core.errors import ConfigError
from glasshouse.llm.errors import (
    BadRequestError,
    BudgetExceededError,
    LLMError,
    NotAbleError,
    NotAllowedError,
    RateLimitedError,
    TimedOutError,
)
from glasshouse.llm.interface import LLM, Chunk, Completion, Request, Usage
from glasshouse.llm.layer import Layer
from glasshouse.llm.prices import Machine, Prices, Tariff, prompt_bound, schema_bound, text_bound
from glasshouse.llm.spending import Amount, Held, Spending, amount

UNBILLED = (RateLimitedError, BadRequestError, NotAllowedError, NotAbleError, BudgetExceededError)
"""The server said that it did nothing: 429 and the other 4xx, and what was never sent."""


class Budget(Layer):
    """Every call reserves the most that it may cost, and settles by the usage that the backend tells.

    The most is the prompt's bound (its bytes; counted exactly only where that bound does not fit any more and
    the model can count) and `max_new_tokens`. A call that failed counts with its error's usage; where nobody
    knows it, with the reserved part of the prompt and what had come of a reply; nothing for `UNBILLED`.
    `Completion.cost` is set to the dollars of this try, where a price is known and no inner layer told a
    cost.

    Stand inside Retry, so that every try is counted. Where one inner call becomes several, the limit can be
    passed by all but one of them. Budgets of several models may share a `Spending`, but not one around the
    other.
    """

    def __init__(self, inner: LLM, spending: Spending, prices: Prices | None = None) -> None:
        """Raises ConfigError where a layer further in draws on the same spending."""
        super().__init__(inner)
        self.spending, self.prices = spending, prices or Prices()
        below: object = inner
        while below is not None:
            if isinstance(below, Budget) and below.spending is spending:
                raise ConfigError("two budgets around one model draw on the same spending", where=inner.name)
            below = getattr(below, "inner", None)

    async def complete(self, request: Request) -> Completion:
        """Raises BudgetExceededError before the call where too little is left, or its price is not known."""
        call = await self._begin(request)
        watch = asyncio.timeout(call.longest)
        try:
            async with watch:
                completion = await self.inner.complete(request)
        except BaseException as error:
            call.stopped(error, watch.expired())
            raise
        return call.done(completion)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        """Whoever stops reading pays for the prompt and for what was written until then."""
        call = await self._begin(request)
        pieces, expired = self.inner.stream(request), False
        try:
            while True:
                watch = asyncio.timeout(call.left())
                try:
                    async with watch:
                        chunk = await anext(pieces)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    expired = watch.expired()
                    raise
                if chunk.completion is None:
                    call.heard += text_bound(chunk.text) + text_bound(chunk.reasoning)
                else:
                    chunk = replace(chunk, completion=call.done(chunk.completion))
                yield chunk
        except BaseException as error:
            call.stopped(error, expired)
            raise
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
            call.failed(None)  # where it ended without a completion

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Booked with its bound, the bytes of the texts: vectors come without a count."""
        price = self._price()
        prompt = sum(map(text_bound, texts))
        held = await self.spending.reserve(self._asked(price, prompt, 0))
        call = _Call(self.spending, held, price, prompt, 0)
        watch = asyncio.timeout(call.longest)
        try:
            async with watch:
                vectors = await self.inner.embed(texts)
        except BaseException as error:
            call.stopped(error, watch.expired())
            raise
        call.failed(None)
        return vectors

    async def _begin(self, request: Request) -> _Call:
        price = self._price()
        prompt = min(prompt_bound(request), self.context or 2**62)
        held = self.spending.try_reserve(self._asked(price, prompt, request.max_new_tokens))
        if held is None:
            if self.can.counts_tokens:
                with suppress(LLMError):  # the call itself will tell what is wrong
                    schema = schema_bound(request)  # not every server counts it
                    prompt = min(prompt, await self.inner.count_tokens(request) + schema)
            held = await self.spending.reserve(self._asked(price, prompt, request.max_new_tokens))
        return _Call(self.spending, held, price, prompt, request.max_new_tokens)

    def _price(self) -> Tariff | Machine | None:
        return self.prices.find(self.name)

    def _asked(self, price: Tariff | Machine | None, prompt: int, new: int) -> Amount:
        dollars = _most(price, prompt, new)
        if dollars is None and self.spending.limits.money:
            raise BudgetExceededError(
                f"nobody told the price of {self.name}, so that no limit of money can be kept",
                fix=f'name it, in dollars for a million tokens: Prices({{"{self.name}": {{"input": 0.5, '
                '"output": 1.5}}), or 0 where it is free',
            )
        return amount(dollars, prompt + new)


class _Call:
    """One call, from its reservation to its settlement, which happens once."""

    def __init__(
        self, spending: Spending, held: Held, price: Tariff | Machine | None, prompt: int, new: int
    ) -> None:
        self.spending, self.held, self.price, self.prompt, self.new = spending, held, price, prompt, new
        self.heard, self.over = 0, False  # bytes of a stream
        self.machine = price if isinstance(price, Machine) else None
        self.longest = None if self.machine is None else self.machine.longest
        if self.machine is not None:
            self.began, self.share = time.monotonic(), self.machine.begin()

    def left(self) -> float | None:
        """Seconds of the longest time that a call may take."""
        return None if self.longest is None else max(self.began + self.longest - time.monotonic(), 0.0)

    def done(self, completion: Completion) -> Completion:
        usage, cost = completion.usage, completion.cost
        own = self._cost(usage)
        cost = own if cost is None else cost
        if (
            completion.cost is None and usage == Usage()
        ):  # a server that counts nothing did not work for nothing
            self.heard = text_bound(completion.text) + text_bound(completion.reasoning or "")
            self._settle(self._guess())
            return replace(completion, cost=own) if self.machine else completion
        self._settle(amount(cost, usage.prompt_tokens + usage.new_tokens))
        return completion if cost is None else replace(completion, cost=cost)

    def stopped(self, error: BaseException, expired: bool) -> None:
        """Settles. Raises TimedOutError where it was we who stopped it."""
        if expired:
            late = TimedOutError(
                f"the call took longer than {self.longest:g} seconds, for which its cost was reserved",
                fix="raise `longest` of the Machine, or ask for fewer tokens",
            )
            self.failed(late)
            raise late from error
        self.failed(error)

    def failed(self, error: BaseException | None) -> None:
        if self.over:
            return
        usage = cost = None
        if isinstance(error, LLMError):
            usage, cost = error.usage, error.cost
            self.heard = max(self.heard, text_bound(getattr(error, "text", "")))
            if usage is None and cost is None and isinstance(error, UNBILLED):
                usage, cost = Usage(), None if self.machine else 0.0
        if usage is None and cost is None:
            guess = self._guess()
        else:
            own = self._cost(usage or Usage())
            cost = own if cost is None else cost
            tokens = self._guess().tokens if usage is None else usage.prompt_tokens + usage.new_tokens
            guess = amount(cost, tokens)
            if isinstance(error, LLMError):
                error.cost = cost
        self._settle(guess)

    def _guess(self) -> Amount:
        """What was used at most, of a call of which only the words are known."""
        new = min(self.heard, self.new)
        dollars = self._cost(Usage()) if self.machine else _most(self.price, self.prompt, new)
        return amount(dollars, self.prompt + new)

    def _cost(self, usage: Usage) -> float | None:
        if self.machine is not None:
            if self.share is not None:
                self.spent, self.share = self.machine.end(self.share), None
            return self.spent
        return self.price.cost(usage) if isinstance(self.price, Tariff) else None

    def _settle(self, used: Amount) -> None:
        self.over = True
        self.spending.settle(self.held, used)


def _most(price: Tariff | Machine | None, prompt: int, new: int) -> float | None:
    if isinstance(price, Machine):
        return price.bound()
    return None if price is None else price.bound(prompt, new)
