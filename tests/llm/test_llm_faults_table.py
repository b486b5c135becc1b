"""What each layer makes of each fault, over a real socket; and a thousand requests while every tenth call
fails: each gets its own reply, once, and every call is counted."""

import asyncio
import random
import re

import pytest
from tests.llm.scripted_server import (
    Reply,
    half,
    not_json,
    rate_limited,
    refused,
    reset,
    server_fault,
    slow,
    too_long,
    unauthorized,
    unknown_tool,
)

from glasshouse.core.seeds import derive
from glasshouse.llm import Request
from glasshouse.llm.batch import Batch
from glasshouse.llm.errors import (
    BrokenStreamError,
    GarbledReplyError,
    LLMError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
    UnreachableError,
)
from glasshouse.llm.fallback import Fallback
from glasshouse.llm.fit import Fit
from glasshouse.llm.openai_backend import OpenAILLM
from glasshouse.llm.retry import Retry
from glasshouse.llm.vote import Vote

NUMBER = 1000
HANDBOOK = "You answer from this handbook. " + "It says what it says. " * 60
"""Longer than what Batch finds worth waiting for: a third of the requests begin with it, and are grouped."""

PATIENCE = {"tries": 8, "first_wait": 0.001, "longest_wait": 0.01, "longest_pause": 0.01}


def requests():
    for number in range(NUMBER):
        user = {"role": "user", "content": f"What is number {number} ?"}
        system = [{"role": "system", "content": HANDBOOK}] if number % 3 == 0 else []
        yield Request.parse({"messages": [*system, user], "max_new_tokens": 16})


class Faults:
    """One call in ten fails; which ones and how is decided by the seed, the request and its try alone."""

    def __init__(self, seed, kinds):
        self.seed, self.kinds, self.calls, self.failed = seed, kinds, {}, []

    def __call__(self, messages):
        """(the request's number, the fault or None)."""
        number = int(
            re.search(r"number (\d+)", next(m["content"] for m in messages if m["role"] == "user"))[1]
        )
        self.calls[number] = self.calls.get(number, 0) + 1
        chance = random.Random(derive(self.seed, number, self.calls[number]))
        if chance.random() >= 0.1:
            return number, None
        kind = chance.randrange(len(self.kinds))
        self.failed.append(kind)
        return number, self.kinds[kind]


async def ask_all(batch):
    return [outcome async for outcome in batch.complete_many(requests())]


def check(outcomes, faults):
    assert [outcome.place for outcome in outcomes] == list(range(NUMBER))
    assert [outcome.error for outcome in outcomes] == [None] * NUMBER
    texts = [outcome.completion.text for outcome in outcomes]
    assert texts == [f"Reply to {number} ." for number in range(NUMBER)]
    assert outcomes[-1].finished == NUMBER
    assert sorted(faults.calls) == list(range(NUMBER))
    assert 70 <= len(faults.failed) <= 150  # 1,100 calls or so, a tenth of them: 110 ± 4 standard deviations
    assert set(faults.failed) == set(range(len(faults.kinds)))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("inner", [None, 4])
def test_none_is_lost_and_none_doubled_in_process(scripted, seed, inner):
    kinds = [
        RateLimitedError("slow down", status=429, retry_after=3600.0),
        ServerFaultError("down", status=500),
        TimedOutError("late"),
        UnreachableError("gone"),
        GarbledReplyError("what?"),
        BrokenStreamError("half"),
        "Nonsense",
    ]
    faults = Faults(seed, kinds)

    def answer(request):
        number, fault = faults(request.messages)
        return fault or f"Reply to {number} ."

    llm = scripted([answer], begun="Rep")
    below = llm if inner is None else Batch(llm, inner)

    def whole(completion):
        return None if completion.text.startswith("Reply to") else "it does not begin with 'Reply to'"

    outcomes = asyncio.run(ask_all(Batch(Retry(below, validate=whole, **PATIENCE), 16)))
    check(outcomes, faults)
    assert llm.most_at_once <= (inner or 16)
    assert len(llm.asked) == NUMBER + len(faults.failed) == sum(map(tried, outcomes))


def tried(outcome):
    """Calls that the notes own up to."""
    return sum(note.details["tries"] for note in outcome.completion.notes) or 1


@pytest.mark.parametrize("inner", [None, 8])
def test_none_is_lost_and_none_doubled_over_a_socket(wire, inner):
    """OpenAI's SDK against a server that fails in all the ways a network has, streams included."""
    kinds = [
        rate_limited("3600"),
        server_fault(500),
        server_fault(503),
        reset(),
        not_json(),
        half(),
        half(2, "error"),
    ]
    kinds += [slow(60.0)]
    faults = Faults(7, kinds)

    def answer(asked):
        number, fault = faults(asked.body["messages"])
        return fault or Reply(f"Reply to {number} .")

    wire.script(answer)

    async def go():
        llm = OpenAILLM("m", base_url=wire.url + "/v1", api_key="sk-scripted", timeout=2.0)
        below = llm if inner is None else Batch(llm, inner)
        outcomes = await ask_all(Batch(Retry(below, **PATIENCE), 24))
        await llm.close()
        return outcomes

    outcomes = asyncio.run(go())
    check(outcomes, faults)
    streamed = sum(asked.streamed for asked in wire.chats())
    assert 0 < streamed < 100  # those that went ahead of their group
    # every call is owned up to, by Retry or as a stream of Batch's that broke and was asked whole
    assert len(wire.chats()) == sum(faults.calls.values())
    extra = len(wire.chats()) - sum(map(tried, outcomes))
    assert extra <= streamed  # less than none: on a busy machine a try may give up before it is connected
    for outcome in outcomes:
        number, done = outcome.place, outcome.completion
        prompt = (len(HANDBOOK.split()) if number % 3 == 0 else 0) + 5
        assert done.usage.new_tokens == 4, done
        assert done.usage.prompt_tokens == prompt


FAULTS = {
    "429": rate_limited("0.01"),
    "500": server_fault(),
    "timeout": slow(60.0),
    "reset": reset(),
    "half": half(),
    "invalid JSON": not_json(),
    "401": unauthorized(),
    "too long": too_long(),
    "refusal": refused(),
    "wrong tool": unknown_tool(),
}
PASSING = ("429", "500", "timeout", "reset", "half", "invalid JSON")

LAYERS = {
    "retry": lambda llms: Retry(llms[0], validate=no_tools, **PATIENCE),
    "fallback": lambda llms: Fallback(llms, refusals=True),
    "fit": lambda llms: Fit(llms[0], context=8192),
    "batch": lambda llms: Batch(llms[0]),
    "vote": lambda llms: Vote(llms[0], 3),
}

ERRORS = {
    "429": "RateLimitedError",
    "500": "ServerFaultError",
    "timeout": "TimedOutError",
    "reset": "UnreachableError",
    "half": "BrokenStreamError",
    "invalid JSON": "GarbledReplyError",
    "401": "NotAllowedError",
    "too long": "ContextTooLongError",
}
"""What comes through a layer that is not about failures, after one call that told no usage."""

AS_IT_IS = {fault: (error, 1, 0) for fault, error in ERRORS.items()}
AS_IT_IS |= {"refusal": ("refusal", 1, 1), "wrong tool": ("tool_calls", 1, 1)}

TABLE = {  # layer -> fault -> (how it ends, calls made, calls whose tokens are counted)
    "retry": AS_IT_IS | dict.fromkeys(PASSING, ("Yes.", 2, 1)) | {"wrong tool": ("Yes.", 2, 2)},
    "fallback": dict.fromkeys(FAULTS, ("Yes.", 2, 1))
    | {"refusal": ("Yes.", 2, 2), "wrong tool": ("tool_calls", 1, 1)},
    "fit": AS_IT_IS,
    "batch": AS_IT_IS,
    "vote": dict.fromkeys(FAULTS, ("Yes.", 3, 2)) | {"refusal": ("Yes.", 3, 3), "wrong tool": ("Yes.", 3, 3)},
}


def no_tools(completion):
    return "there is no such tool" if completion.tool_calls else None


async def ending(llm, request):
    try:
        return await llm.complete(request)
    except LLMError as error:
        return error


@pytest.mark.parametrize("layer", LAYERS)
def test_what_each_layer_makes_of_each_fault(wire, ask, layer):
    """The first call fails, all later ones succeed."""

    async def go():
        made = [OpenAILLM(name, base_url=wire.url + "/v1", api_key="sk-secret", timeout=1.0) for name in "ab"]
        llm, table = LAYERS[layer](made), {}
        for name, fault in FAULTS.items():
            wire.script(fault, Reply("Yes."))
            before = len(wire.chats())
            end = await ending(llm, ask("Is it so?"))
            calls = len(wire.chats()) - before
            counted = 0 if end.usage is None else end.usage.new_tokens  # each reply is one word
            how = type(end).__name__ if isinstance(end, LLMError) else end.text or end.finish
            table[name] = (how, calls, counted)
            assert "sk-secret" not in f"{end!r} {end}"
        for llm in made:
            await llm.close()
        return table

    assert asyncio.run(go()) == TABLE[layer]


BROKEN = {  # the same of streams, for the layers that hand on pieces as they come
    "retry": ("BrokenStreamError", "One ", 1),
    "fallback": ("BrokenStreamError", "One ", 1),
    "fit": ("BrokenStreamError", "One ", 1),
    "batch": ("BrokenStreamError", "One ", 1),
    "vote": ("Yes.", "Yes.", 3),  # one piece, when all samples are there
}


@pytest.mark.parametrize("how", ["broken", "closed", "error", "not json"])
@pytest.mark.parametrize("layer", LAYERS)
def test_half_a_stream_is_never_begun_again(wire, ask, layer, how):
    """What a reader has seen cannot be taken back: the error has it."""

    async def go():
        made = [OpenAILLM(name, base_url=wire.url + "/v1", api_key="sk-secret") for name in "ab"]
        llm = LAYERS[layer](made) if layer != "retry" else Retry(made[0], **PATIENCE)
        wire.script(half(1, how), Reply("Yes."))
        got, kind, left = "", None, None
        try:
            async for chunk in llm.stream(ask("Is it so?")):
                got += chunk.text
                kind = chunk.completion and chunk.completion.text
        except LLMError as error:
            kind, left = type(error).__name__, getattr(error, "text", None)
        for llm in made:
            await llm.close()
        return kind, got, len(wire.chats()), left

    kind, got, calls, left = asyncio.run(go())
    assert left == got or layer != "retry"
    if how in ("error", "not json") and layer in ("fallback", "fit", "batch"):
        assert kind in (
            "BrokenStreamError",
            "ServerFaultError",
            "GarbledReplyError",
        )  # as the backend calls it
        kind = "BrokenStreamError"
    assert (kind, got, calls) == BROKEN[layer]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_stream_that_fails_before_its_first_piece_ends_as_a_call_does(wire, ask, layer):
    async def go():
        made = [OpenAILLM(name, base_url=wire.url + "/v1", api_key="sk-secret") for name in "ab"]
        llm = LAYERS[layer](made) if layer != "retry" else Retry(made[0], **PATIENCE)
        wire.script(server_fault(), Reply("Yes."))
        try:
            end = [chunk.completion for chunk in [chunk async for chunk in llm.stream(ask())]][-1].text
        except LLMError as error:
            end = type(error).__name__
        for llm in made:
            await llm.close()
        return end, len(wire.chats())

    assert asyncio.run(go()) == TABLE[layer]["500"][:2]
