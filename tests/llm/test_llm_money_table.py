"""What each layer that counts or remembers makes of each thing that can happen: the same request, twice.

Told for each: how often the model was asked, and the dollars that were counted, in millionths (a token of
the prompt costs one, a new one ten). "prompt" is the prompt's bound, which is all that is known of a call
that died.
"""

import asyncio

import pytest

from glasshouse.llm import Completion, Usage
from glasshouse.llm.budget import Budget
from glasshouse.llm.cache import Cache
from glasshouse.llm.errors import (
    BrokenStreamError,
    BudgetExceededError,
    GarbledReplyError,
    LLMError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
)
from glasshouse.llm.prices import Prices, prompt_bound
from glasshouse.llm.spending import Limits, Spending

REPLY, REFUSAL = 40 + 10 * 3, 40 + 10 * 2

OUTCOMES = {
    "reply": Completion("Yes it is", "stop", Usage(40, 3), "scripted"),
    "refusal": Completion("I cannot", "refusal", Usage(40, 2), "scripted", refusal="I cannot"),
    "429": RateLimitedError("slow down", status=429, retry_after=1.0),
    "500": ServerFaultError("oops", status=500),
    "timeout": TimedOutError("no answer in time"),
    "half a stream": BrokenStreamError("the stream stopped"),
    "invalid JSON": GarbledReplyError("not JSON"),
    "no price": Completion("Yes it is", "stop", Usage(40, 3), "unpriced"),
}

BUDGET = {
    "reply": (2, 2 * REPLY),
    "refusal": (2, 2 * REFUSAL),
    "429": (2, 0),
    "500": (2, "prompts"),
    "timeout": (2, "prompts"),
    "half a stream": (2, "prompts"),
    "invalid JSON": (2, "prompts"),
    "no price": (0, 0),
}
CACHED = BUDGET | {"reply": (1, REPLY)}
TABLE = {
    "budget": BUDGET,
    "cache": {outcome: (calls, None) for outcome, (calls, _) in CACHED.items()} | {"no price": (1, None)},
    "cache > budget": CACHED,
    "budget > cache": CACHED,
}


def build(layers, inner, spending, file):
    prices = Prices({"scripted": {"input": 1.0, "output": 10.0}})
    llm = inner
    for layer in reversed(layers.split(" > ")):
        llm = Cache(llm, file) if layer == "cache" else Budget(llm, spending, prices)
    return llm


async def call(llm, request, streamed):
    """The reply's text, or the error."""
    try:
        if not streamed:
            return (await llm.complete(request)).text
        return "".join([chunk.text async for chunk in llm.stream(request)]).strip()
    except LLMError as error:
        return error


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("layers", TABLE)
def test_calls_made_and_money_counted(scripted, ask, tmp_path, layers, outcome, streamed):
    told = OUTCOMES[outcome]
    begun = "Yes " if outcome == "half a stream" else ""
    inner = scripted([told], name="unpriced" if outcome == "no price" else "scripted", begun=begun)
    spending, request = Spending(Limits(dollars=1.0)), ask()
    llm = build(layers, inner, spending, tmp_path / "cache.db")
    results = [asyncio.run(call(llm, request, streamed)) for _ in range(2)]

    calls, money = TABLE[layers][outcome]
    assert len(inner.asked) == calls
    if money == "prompts":
        money = 2 * prompt_bound(request) + (2 * 10 * len(begun) if streamed else 0)
    if money is not None:
        assert round(spending.dollars * 1e6) == money
        assert spending.open_dollars == 0
    if outcome == "no price" and "budget" in layers:
        assert [type(result) for result in results] == [BudgetExceededError] * 2
    elif isinstance(told, LLMError):
        assert [type(result) for result in results] == [type(told)] * 2
    else:
        assert results == [told.text] * 2
    asyncio.run(llm.close())
    assert inner.closed


@pytest.mark.parametrize("layers", ["cache > budget", "budget > cache"])
def test_costs_told_and_costs_counted_are_the_same(scripted, ask, tmp_path, layers):
    """In either order, hits and waiting calls included."""
    spending = Spending(Limits(dollars=1.0))
    llm = build(layers, scripted([OUTCOMES["reply"]], seconds=0.005), spending, tmp_path / "cache.db")

    async def main():
        requests = [ask(f"Is it {n % 7}?") for n in range(50)]
        return await asyncio.gather(*map(llm.complete, requests), *map(llm.complete, requests))

    done = asyncio.run(main())
    assert (
        sum(reply.cost for reply in done) == pytest.approx(spending.dollars) == pytest.approx(7 * REPLY / 1e6)
    )
    asyncio.run(llm.close())
