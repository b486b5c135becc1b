"""How many at once, in which order, who goes ahead of whom, and that nobody is lost."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import ConfigError
from glasshouse.inference import LanguageModel
from glasshouse.llm import Chunk, Completion, LocalLLM, Request, Usage
from glasshouse.llm.batch import AHEAD, Batch
from glasshouse.llm.errors import NotAllowedError, ServerFaultError, TimedOutError
from glasshouse.tokenizer import Tokenizer


def run(work):
    return asyncio.run(work)


async def collect(batch, requests):
    return [outcome async for outcome in batch.complete_many(requests)]


def asked(*texts):
    roles = ["system", "user", "assistant"]
    messages = [
        {"role": roles[min(n, 1)] if len(texts) > 1 else "user", "content": text}
        for n, text in enumerate(texts)
    ]
    return Request.parse({"messages": messages})


class Gate:
    """An LLM whose calls begin, give a first piece and end when the test says so; `log` keeps the order."""

    name, context = "gate", None

    def __init__(self):
        self.log, self.pieces, self.ends = [], {}, {}

    def _open(self, kind, request):
        key = request.messages[-1]["content"]
        self.log.append((kind, key))
        return key

    async def complete(self, request):
        key = self._open("complete", request)
        outcome = await self.ends.setdefault(key, asyncio.get_running_loop().create_future())
        return Completion(outcome, "stop")

    async def stream(self, request):
        key = self._open("stream", request)
        loop = asyncio.get_running_loop()
        await self.pieces.setdefault(key, loop.create_future())
        yield Chunk("piece")
        outcome = await self.ends.setdefault(key, loop.create_future())
        yield Chunk(completion=Completion(outcome, "stop"))

    def opened(self):
        return [key for _, key in self.log]


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_no_more_than_so_many_are_open_and_they_come_in_order(scripted, ask):
    llm = scripted([lambda request: request.messages[0]["content"]], seconds=0.001)
    batch = Batch(llm, 3)

    async def all_at_once():
        return await asyncio.gather(*(batch.complete(ask(str(n))) for n in range(20)))

    replies = run(all_at_once())
    assert [reply.text for reply in replies] == [str(n) for n in range(20)]
    assert llm.most_at_once == 3
    assert [request.messages[0]["content"] for request in llm.asked] == [str(n) for n in range(20)]
    assert run(all_at_once()) == replies  # in another event loop


def test_a_stream_holds_its_place_until_it_ends_or_is_left(scripted, ask):
    async def go():
        gate = Gate()
        batch = Batch(gate, 1)
        pieces = batch.stream(ask("first"))
        reader = asyncio.create_task(anext(pieces))
        await settle()
        gate.pieces["first"].set_result(None)
        await reader
        other = asyncio.create_task(batch.complete(ask("second")))
        await settle()
        assert gate.opened() == ["first"]
        await pieces.aclose()
        await settle()
        assert gate.opened() == ["first", "second"]
        gate.ends["second"].set_result("Yes.")
        assert (await other).text == "Yes."

    run(go())


def test_a_call_that_is_cancelled_frees_its_place(scripted, ask):
    async def go():
        gate = Gate()
        batch = Batch(gate, 1)
        calls = [asyncio.create_task(batch.complete(ask(name))) for name in "abc"]
        await settle()
        calls[0].cancel()
        calls[1].cancel()
        await settle()
        assert gate.opened() == ["a", "c"]
        calls[2].cancel()

    run(go())


def test_outcomes_keep_the_order_and_failures_their_place(scripted):
    def answer(request):
        number = int(request.messages[0]["content"])
        if number % 3 == 0:
            return NotAllowedError(f"no {number}")
        return str(number) if number != 4 else KeyError("bug")

    llm = scripted([answer])
    outcomes = run(collect(Batch(llm, 4), (asked(str(n)) for n in range(10))))
    assert [outcome.place for outcome in outcomes] == list(range(10))
    for number, outcome in enumerate(outcomes):
        if number == 4:
            assert isinstance(outcome.error, KeyError)
        elif number % 3 == 0:
            assert str(outcome.error) == f"no {number}"
            assert outcome.completion is None
        else:
            assert (outcome.completion.text, outcome.error) == (str(number), None)
    assert outcomes[-1].finished == 10
    assert run(collect(Batch(llm), [])) == []


def test_progress_counts_what_ended_behind_a_slow_one():
    async def go():
        gate = Gate()
        outcomes = Batch(gate, 4).complete_many([asked(str(n)) for n in range(4)])
        reader = asyncio.create_task(anext(outcomes))
        await settle()
        for name in "3210":
            gate.ends[name].set_result(name)
            await settle()
        first = await reader
        assert (first.place, first.finished) == (0, 4)
        await outcomes.aclose()

    run(go())


def test_a_long_iterable_is_read_as_it_is_needed(scripted):
    read = []

    def endless():
        for number in range(10**9):
            read.append(number)
            yield asked(str(number))

    async def go():
        batch, most = Batch(scripted([lambda request: request.messages[0]["content"]]), 2), 0
        async for outcome in batch.complete_many(endless()):
            most = max(most, len(read) - outcome.place)
            if outcome.place == 500:
                return most
        return None

    assert run(go()) <= 2 * AHEAD + 1


def test_what_an_iterable_raises_comes_after_the_outcomes_before_it(scripted):
    def broken():
        yield asked("a")
        yield asked("b")
        raise ValueError("row 3")

    got = []

    async def go():
        async for outcome in Batch(scripted()).complete_many(broken()):
            got.append(outcome.place)

    with pytest.raises(ValueError, match="row 3"):
        run(go())
    assert got == [0, 1]


def test_whoever_stops_reading_cancels_what_is_open():
    async def go():
        gate = Gate()
        outcomes = Batch(gate, 3).complete_many([asked(name) for name in "abcdef"])
        reader = asyncio.create_task(anext(outcomes))
        await settle()
        gate.ends["a"].set_result("a")
        await reader
        await settle()
        await outcomes.aclose()
        assert all(end.cancelled() for name, end in gate.ends.items() if name != "a")
        assert len(asyncio.all_tasks()) == 1

    run(go())


LONG = "You know this handbook: " + "every rule of it. " * 80
OTHER = "You know that handbook: " + "every rule of it. " * 80


def test_the_first_of_a_group_goes_ahead_until_its_first_piece():
    async def go():
        gate = Gate()
        batch = Batch(gate, 8)
        task = asyncio.create_task(
            collect(batch, [asked(LONG, f"q{n}") for n in range(4)] + [asked("short", "s")])
        )
        await settle()
        assert gate.log == [("stream", "q0"), ("complete", "s")]  # the short one waits for nobody
        gate.pieces["q0"].set_result(None)
        await settle()
        assert gate.log[2:] == [
            ("complete", f"q{n}") for n in (1, 2, 3)
        ]  # all at once, though q0 is not done
        for name, end in gate.ends.items():
            end.set_result(name)
        assert [outcome.completion.text for outcome in await task] == ["q0", "q1", "q2", "q3", "s"]

    run(go())


def test_several_groups_go_ahead_together_and_stay_together():
    async def go():
        gate = Gate()
        mixed = [
            asked(prefix, f"{name}{n}") for n in range(3) for prefix, name in ((LONG, "a"), (OTHER, "b"))
        ]
        task = asyncio.create_task(collect(Batch(gate, 2), mixed))
        await settle()
        assert gate.opened() == ["a0", "b0"]
        for name in ("a0", "b0"):
            gate.pieces[name].set_result(None)
        for _ in range(6):
            await settle()
            for name, end in gate.ends.items():
                if not end.done():
                    end.set_result(name)
        assert gate.opened() == ["a0", "b0", "a1", "a2", "b1", "b2"]  # neighbours in the cache, too
        assert [outcome.completion.text for outcome in await task] == ["a0", "b0", "a1", "b1", "a2", "b2"]

    run(go())


def test_the_longest_common_beginning_decides():
    """Of four with one system message, two share a document as well: its second waits for its first alone."""

    async def go():
        gate = Gate()
        requests = [asked(LONG, "doc " * 500, "d0"), asked(LONG, "q0"), asked(LONG, "doc " * 500, "d1")]
        requests.append(asked(LONG, "tract " * 500, "t0"))
        requests.append(asked(LONG, "tract " * 500, "t1"))
        task = asyncio.create_task(collect(Batch(gate, 8), requests))
        await settle()
        assert gate.opened() == ["d0"]
        gate.pieces["d0"].set_result(None)
        await settle()
        assert sorted(gate.opened()[1:]) == ["d1", "q0", "t0"]  # t1 waits for t0, which leads the tract
        assert {key: kind for kind, key in gate.log}["t0"] == "stream"
        gate.pieces["t0"].set_result(None)
        await settle()
        assert gate.opened()[-1] == "t1"
        for name, end in gate.ends.items():
            end.set_result(name)
        assert [outcome.completion.text for outcome in await task] == ["d0", "q0", "d1", "t0", "t1"]

    run(go())


def test_where_the_first_of_a_group_fails_the_next_goes_ahead():
    async def go():
        gate = Gate()
        task = asyncio.create_task(collect(Batch(gate, 8), [asked(LONG, f"q{n}") for n in range(3)]))
        await settle()
        gate.pieces["q0"].set_exception(ServerFaultError("down"))
        await settle()
        assert gate.log == [("stream", "q0"), ("stream", "q1")]
        gate.pieces["q1"].set_result(None)
        await settle()
        assert gate.log[2:] == [("complete", "q2")]
        for name, end in gate.ends.items():
            end.set_result(name)
        first, *rest = await task
        assert str(first.error) == "down"
        assert [outcome.completion.text for outcome in rest] == ["q1", "q2"]

    run(go())


def test_a_leader_whose_stream_breaks_is_asked_whole_and_both_are_counted(scripted):
    class Breaking(scripted):
        async def stream(self, request):
            yield Chunk("Ye")
            raise TimedOutError("late", usage=Usage(5, 1), cost=0.5)

    llm = Breaking([Completion("Yes.", "stop", Usage(5, 2), cost=1.0)])
    first, second = run(collect(Batch(llm, 2), [asked(LONG, "a"), asked(LONG, "b")]))
    assert (first.completion.text, first.completion.usage, first.completion.cost) == (
        "Yes.",
        Usage(10, 3),
        1.5,
    )
    assert second.completion.usage == Usage(5, 2)
    assert len(llm.asked) == 2


def test_equal_requests_and_tools_are_told_apart():
    async def go():
        gate = Gate()
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        with_tools = asked(LONG, "t").model_copy(update={"tools": (tool,)})
        task = asyncio.create_task(collect(Batch(gate, 8), [asked(LONG, "q"), with_tools, asked(LONG, "q")]))
        await settle()
        assert sorted(gate.opened()) == ["q", "t"]  # tools stand before the messages: nothing is shared
        gate.pieces["q"].set_result(None)
        await settle()
        for name, end in gate.ends.items():
            end.set_result(name)
        assert [outcome.completion.text for outcome in await task] == ["q", "t", "q"]

    run(go())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(0, 60), at_once=st.integers(1, 9))
def test_none_is_lost_or_doubled_whatever_ends_when(seed, number, at_once):
    chance = random.Random(seed)
    requests = [
        asked(
            *(["S" * 1100] * chance.randint(0, 2)),
            *(["D" * 1100 + str(chance.randint(0, 2))] * chance.randint(0, 1)),
            f"q{n}",
        )
        for n in range(number)
    ]
    answered, open_now, most = Counter(), 0, 0

    class Random:
        name = "random"

        async def complete(self, request):
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            try:
                for _ in range(chance.randint(0, 5)):
                    await asyncio.sleep(0)
                text = request.messages[-1]["content"]
                if chance.random() < 0.2:
                    raise ServerFaultError(text)
                answered[text] += 1
                return Completion(text, "stop")
            finally:
                open_now -= 1

        async def stream(self, request):
            if chance.random() < 0.3:
                yield Chunk("x")
            if chance.random() < 0.2:
                raise ServerFaultError(request.messages[-1]["content"])
            yield Chunk(completion=await self.complete(request))

    outcomes = run(asyncio.wait_for(collect(Batch(Random(), at_once), requests), 20))
    said = [outcome.completion.text if outcome.completion else outcome.error.what for outcome in outcomes]
    assert said == [f"q{n}" for n in range(number)]
    assert most <= at_once
    assert all(count == 1 for count in answered.values())
    assert sorted(answered) == sorted(outcome.completion.text for outcome in outcomes if outcome.completion)


def test_our_engine_reads_a_common_beginning_once(random_model):
    """All but the first of a group find it in the engine's prefix cache."""
    tokenizer = Tokenizer.train([], 265)
    shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 2048}
    with LocalLLM(LanguageModel(random_model(**shape), tokenizer)) as llm:
        requests = [asked(LONG, f"q{n}").model_copy(update={"max_new_tokens": 24}) for n in range(5)]
        outcomes = run(collect(Batch(llm, 8), requests))
        first, *rest = [outcome.completion.usage.cached_tokens for outcome in outcomes]
        assert first == 0
        assert all(cached >= 1024 for cached in rest)


def test_a_batch_of_none_is_refused(scripted):
    with pytest.raises(ConfigError, match="at_once must be 1 or more"):
        Batch(scripted(), 0)
