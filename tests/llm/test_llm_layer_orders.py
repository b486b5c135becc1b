"""Layers are right in every order: the same answer, within the context, and every call counted once."""

import asyncio
import itertools

import pytest

from glasshouse.llm import Completion, Request, Usage
from glasshouse.llm.batch import Batch
from glasshouse.llm.budget import Budget
from glasshouse.llm.errors import ServerFaultError
from glasshouse.llm.fallback import Alternative, Fallback, changed
from glasshouse.llm.fit import Fit
from glasshouse.llm.prices import Prices
from glasshouse.llm.retry import Retry
from glasshouse.llm.spending import Limits, Spending
from glasshouse.llm.vote import Vote

CONTEXT = 100
PRICES = Prices({"scripted": {"input": 1.0, "output": 10.0}})


async def no_wait(seconds):
    pass


def layers(spending):
    return {
        "retry": lambda llm: Retry(llm, sleep=no_wait),
        "fallback": lambda llm: Fallback([llm, Alternative(change=changed(top_p=0.5))]),
        "fit": Fit,
        "batch": lambda llm: Batch(llm, 2),
        "vote": lambda llm: Vote(llm, 3),
        "budget": lambda llm: Budget(llm, spending, PRICES),
    }


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("outermost", layers(None))
def test_every_order_gives_the_answer_and_the_sums(scripted, outermost, streamed):
    rest = [name for name in layers(None) if name != outermost]
    for order in itertools.permutations(rest):
        check((outermost, *order), scripted, streamed)


def check(order, scripted, streamed):
    used, seen = [], set()

    def answer(request):
        """Each sampling's first call fails, after having cost something."""
        words = sum(len(message["content"].split()) for message in request.messages)
        assert words + request.max_new_tokens <= CONTEXT
        key = (request.seed, request.top_p)
        first = key not in seen
        seen.add(key)
        used.append(Usage(words, 2 if first else 1))
        if first:
            return ServerFaultError("down", status=500, usage=used[-1])
        return Completion("Yes.", "stop", used[-1], "scripted")

    spending = Spending(Limits(dollars=1.0))
    llm = scripted([answer], context=CONTEXT)
    for name in reversed(order):
        llm = layers(spending)[name](llm)
    turns = [{"role": role, "content": "word " * 30} for _ in range(4) for role in ("user", "assistant")]
    last = {"role": "user", "content": "Is it so?"}
    request = Request.parse({"messages": [*turns, last], "max_new_tokens": 10})

    async def go():
        if not streamed:
            return await llm.complete(request)
        text, completion = "", None
        async for chunk in llm.stream(request):
            text += chunk.text
            completion = chunk.completion or completion
        assert text.strip() == "Yes."
        return completion

    done = asyncio.run(go())
    assert done.text == "Yes."
    total = sum(used, Usage())
    assert done.usage == total
    assert spending.tokens == total.prompt_tokens + total.new_tokens
    assert done.cost == pytest.approx(spending.dollars)
    assert spending.dollars == pytest.approx((total.prompt_tokens + 10 * total.new_tokens) / 1e6)
    assert "fit" in [note.layer for note in done.notes]
