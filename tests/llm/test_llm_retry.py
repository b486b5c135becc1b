"""What is asked again, when, how often, and what it costs."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.core.errors import ConfigError
from glasshouse.llm import Chunk, Completion, Usage
from glasshouse.llm.budget import Budget
from glasshouse.llm.errors import (
    BadRequestError,
    BrokenStreamError,
    BudgetExceededError,
    ContextTooLongError,
    GarbledReplyError,
    InvalidOutputError,
    LLMError,
    NotAbleError,
    NotAllowedError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
    UnreachableError,
)
from glasshouse.llm.interface import Capabilities
from glasshouse.llm.prices import Prices
from glasshouse.llm.retry import Retry
from glasshouse.llm.spending import Limits, Spending


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def retrying(llm, **rules):
    clock = Clock()
    retry = Retry(llm, **{"clock": clock, "sleep": clock.sleep, "chance": lambda: 0.5} | rules)
    return retry, clock


def run(work):
    return asyncio.run(work)


async def read(llm, request):
    return [chunk async for chunk in llm.stream(request)]


@pytest.mark.parametrize(
    "error",
    [
        RateLimitedError,
        ServerFaultError,
        TimedOutError,
        UnreachableError,
        BrokenStreamError,
        GarbledReplyError,
    ],
)
def test_what_may_pass_is_asked_again(scripted, ask, error):
    llm = scripted([error("no"), error("no"), "Yes."])
    retry, clock = retrying(llm)
    done = run(retry.complete(ask()))
    assert (done.text, len(llm.asked)) == ("Yes.", 3)
    assert llm.asked == [ask()] * 3  # the very same request
    (note,) = done.notes
    assert (note.layer, note.details["tries"], note.details["waits"]) == ("retry", 3, tuple(clock.slept))
    assert note.details["reasons"] == ("no", "no")


@pytest.mark.parametrize(
    "error", [BadRequestError, ContextTooLongError, NotAllowedError, NotAbleError, BudgetExceededError]
)
def test_what_cannot_pass_is_asked_once(scripted, ask, error):
    llm = scripted([error("no")])
    retry, clock = retrying(llm)
    with pytest.raises(error) as caught:
        run(retry.complete(ask()))
    assert caught.value is llm.outcomes[0]
    assert (len(llm.asked), clock.slept) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 403])
def test_some_statuses_are_never_asked_again(scripted, ask, status):
    llm = scripted([ServerFaultError("odd", status=status)])
    with pytest.raises(ServerFaultError):
        run(retrying(llm)[0].complete(ask()))
    assert len(llm.asked) == 1


def test_a_first_try_that_succeeds_is_handed_on_untouched(scripted, ask):
    done = Completion("Yes.", "stop")
    assert run(retrying(scripted([done]))[0].complete(ask())) is done


def test_waits_double_up_to_the_longest(scripted, ask):
    retry, clock = retrying(scripted([ServerFaultError("no")]), tries=6, first_wait=1, longest_wait=5)
    with pytest.raises(ServerFaultError):
        run(retry.complete(ask()))
    assert clock.slept == [0.5, 1.0, 2.0, 2.5, 2.5]  # half of 1, 2, 4, 5, 5


@given(
    failures=st.integers(1, 2000),
    pause=st.none() | st.floats(-10, 1e9),
    chance=st.floats(0, 1, exclude_max=True),
    first=st.floats(0, 100),
    longest=st.floats(0, 1000),
)
def test_a_wait_lies_between_the_pause_asked_for_and_the_longest(failures, pause, chance, first, longest):
    rules = {"first_wait": first, "longest_wait": longest, "longest_pause": 60, "chance": lambda: chance}
    wait = Retry(None, **rules).wait(failures, pause)  # pyright: ignore[reportArgumentType]
    least = min(max(pause or 0, 0), 60)
    assert least <= wait <= least + min(longest, first * 2.0 ** min(failures - 1, 1000))


def test_full_jitter_is_uniform(scripted):
    retry = Retry(scripted(), first_wait=4, longest_wait=4)
    waits = sorted(retry.wait(1, None) for _ in range(4000))
    assert (
        max(abs(wait - 4 * place / 4000) for place, wait in enumerate(waits)) < 4 * 0.04
    )  # Kolmogorov: p < 1e-5


def test_retry_after_is_waited_for(scripted, ask):
    """And no longer than allowed: a server may ask for an hour."""
    errors = [RateLimitedError("slow", retry_after=7.0), RateLimitedError("slow", retry_after=3600.0), "Yes."]
    retry, clock = retrying(scripted(errors), first_wait=1, longest_pause=30)
    run(retry.complete(ask()))
    assert clock.slept == [7.5, 31.0]


def test_no_try_begins_after_the_time_allowed(scripted, ask):
    llm = scripted([RateLimitedError("slow", retry_after=4.0)])
    retry, clock = retrying(llm, tries=100, seconds=10.0, first_wait=0)
    with pytest.raises(
        RateLimitedError, match=r"given up after 3 tries: the next would begin after the 10 s"
    ):
        run(retry.complete(ask()))
    assert (len(llm.asked), clock.slept) == (3, [4.0, 4.0])


def test_the_last_error_tells_the_tries_and_what_they_used(scripted, ask):
    error = ServerFaultError("down", where="scripted", fix="wait", status=503, usage=Usage(10, 5), cost=0.25)
    llm = scripted([error])
    for _ in range(2):  # the script's error is raised again and again, and keeps its words
        with pytest.raises(ServerFaultError) as caught:
            run(retrying(llm, tries=3)[0].complete(ask()))
        told = caught.value
        assert str(told) == "down; given up after 3 tries: no more are allowed (scripted). Fix: wait."
        assert (told.usage, told.cost, told.status) == (Usage(30, 15), 0.75, 503)
    assert str(error) == "down (scripted). Fix: wait."


def test_an_error_that_ends_the_tries_tells_those_before_it(scripted, ask):
    llm = scripted([ServerFaultError("down", usage=Usage(10, 0), cost=0.5), BudgetExceededError("too dear")])
    with pytest.raises(BudgetExceededError, match=r"too dear; given up after 2 tries") as caught:
        run(retrying(llm)[0].complete(ask()))
    assert (caught.value.usage, caught.value.cost) == (Usage(10, 0), 0.5)


def test_failed_tries_count_into_usage_and_cost(scripted, ask):
    good = Completion("Yes.", "stop", Usage(10, 2), cost=1.0)
    llm = scripted([ServerFaultError("no", usage=Usage(10, 7), cost=0.5), TimedOutError("late"), good])
    done = run(retrying(llm)[0].complete(ask()))
    assert (done.usage, done.cost) == (Usage(20, 9), 1.5)
    assert done.notes[0].details["usage_untold"] == 1
    assert done.notes[0].details["last_usage"] == Usage(10, 2)


def test_a_reply_without_a_price_has_none_after_priced_failures_either(scripted, ask):
    llm = scripted([ServerFaultError("no", cost=0.5), "Yes."])
    assert run(retrying(llm)[0].complete(ask())).cost is None


@pytest.mark.parametrize(("tokens", "calls"), [(139, 1), (140, 2), (259, 2), (260, 3), (1000, 4)])
def test_the_cap_on_tokens_stops_before_the_try_that_might_overrun(scripted, ask, tokens, calls):
    """Each failed try used 120 tokens; the next may need 10 for the prompt and 10 for the reply."""
    error = BrokenStreamError("half", usage=Usage(10, 110))
    llm = scripted([error])
    with pytest.raises(BrokenStreamError, match="tokens are used" if calls < 4 else "no more"):
        run(retrying(llm, tokens=tokens)[0].complete(ask(max_new_tokens=10)))
    assert len(llm.asked) == calls


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=12, max_size=12),
    cap=st.integers(70, 500),
)
def test_tokens_never_exceed_their_cap_where_the_prompt_stays(sizes, cap):
    prompt = sizes[0][0]
    used = []

    class Failing:
        name = "failing"

        async def complete(self, request):
            used.append(prompt + sizes[len(used)][1])
            raise BrokenStreamError("half", usage=Usage(prompt, used[-1] - prompt))

    from glasshouse.llm import Request

    request = Request.parse({"messages": [{"role": "user", "content": "x"}], "max_new_tokens": 20})
    with pytest.raises(LLMError):
        run(retrying(Failing(), tokens=cap, tries=12, first_wait=0)[0].complete(request))
    assert sum(used) <= cap
    assert len(used) == 12 or sum(used) + prompt + 20 > cap


def whole(completion):
    return None if completion.text.endswith(".") else "it does not end with a full stop"


def test_a_wrong_reply_is_asked_for_again_with_what_is_wrong(scripted, ask):
    llm = scripted(["Yes", "Ye", "Yes."])
    retry, clock = retrying(llm, validate=whole)
    done = run(retry.complete(ask(seed=7)))
    assert (done.text, clock.slept) == ("Yes.", [])
    first, second, third = llm.asked
    assert second.messages[:1] == third.messages[:1] == first.messages
    assert [message["role"] for message in second.messages] == ["user", "assistant", "user"]
    assert second.messages[1]["content"] == "Yes"
    assert "it does not end with a full stop" in second.messages[2]["content"]
    assert [message["content"] for message in third.messages[1:2]] == ["Ye"]  # only the newest wrong reply
    assert len({first.seed, second.seed, third.seed}) == 3
    assert (second.max_new_tokens, second.temperature) == (first.max_new_tokens, first.temperature)
    assert done.usage.prompt_tokens == sum([await_count(llm, asked) for asked in llm.asked])


def await_count(llm, request):
    return run(llm.count_tokens(request))


def test_seeds_of_second_tries_are_the_same_each_time(scripted, ask):
    seeds = []
    for _ in range(2):
        llm = scripted(["Yes", "Yes."])
        run(retrying(llm, validate=whole)[0].complete(ask(seed=7)))
        seeds.append(llm.asked[1].seed)
    assert seeds[0] == seeds[1] != 7


def test_no_seed_is_made_up_for_a_model_that_has_none(scripted, ask):
    llm = scripted(["Yes", "Yes."], can=Capabilities(seed=False))
    run(retrying(llm, validate=whole)[0].complete(ask()))
    assert llm.asked[1].seed is None


def test_replies_that_stay_wrong_are_an_error_with_the_last_of_them(scripted, ask):
    llm = scripted(["Yes"])
    with pytest.raises(InvalidOutputError, match="given up after 2 tries") as caught:
        run(retrying(llm, validate=whole, tries=2)[0].complete(ask()))
    assert (caught.value.text, caught.value.problem) == ("Yes", "it does not end with a full stop")
    assert caught.value.usage == Usage(3 + await_count(llm, llm.asked[1]), 2)


def test_a_validator_may_raise_and_so_may_the_model_below(scripted, ask):
    def strict(completion):
        if completion.text != "Yes.":
            raise InvalidOutputError("wrong", text=completion.text, problem="say Yes.")

    below = InvalidOutputError("wrong", text="Nope", problem="say Yes.", usage=Usage(1, 1))
    for outcomes, rules in ((["No.", "Yes."], {"validate": strict}), ([below, "Yes."], {})):
        llm = scripted(outcomes)
        assert run(retrying(llm, **rules)[0].complete(ask())).text == "Yes."
        assert llm.asked[1].messages[1]["content"] in ("No.", "Nope")
        assert "say Yes." in llm.asked[1].messages[2]["content"]


def test_a_wrong_tool_call_is_answered_by_the_tools_message(scripted, ask):
    """OpenAI and Anthropic refuse conversations in which a call stays without its result."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    llm = scripted([Completion("", "tool_calls", tool_calls=(call,)), "Yes."])
    run(retrying(llm, validate=lambda c: "no such tool" if c.tool_calls else None)[0].complete(ask()))
    _, assistant, tool = llm.asked[1].messages
    assert assistant["tool_calls"] == [call]
    assert (tool["role"], tool["tool_call_id"]) == ("tool", "c1")
    assert "no such tool" in tool["content"]


def test_a_refusal_is_not_argued_with(scripted, ask):
    llm = scripted([Completion("", "refusal")])
    assert run(retrying(llm, validate=whole)[0].complete(ask())).finish == "refusal"
    assert len(llm.asked) == 1


def test_the_cap_on_tokens_holds_for_wrong_replies(scripted, ask):
    llm = scripted([Completion("No", "stop", Usage(50, 40))])
    with pytest.raises(InvalidOutputError, match="90 of 200 tokens are used"):
        run(retrying(llm, validate=whole, tokens=200)[0].complete(ask(max_new_tokens=40)))
    assert len(llm.asked) == 1


def test_a_stream_is_asked_for_again_before_its_first_piece(scripted, ask):
    llm = scripted([ServerFaultError("no", usage=Usage(3, 0)), "One two."])
    pieces = run(read(retrying(llm)[0], ask()))
    assert "".join(piece.text for piece in pieces).strip() == "One two."
    done = pieces[-1].completion
    assert (done.notes[0].details["tries"], done.usage) == (2, Usage(6, 2))


def test_a_stream_that_broke_later_is_an_error_with_its_text(scripted, ask):
    llm = scripted([TimedOutError("late", usage=Usage(3, 1), cost=0.1), "Yes."], begun="One")
    got = []

    async def reader():
        async for chunk in retrying(llm)[0].stream(ask()):
            got.append(chunk.text)

    with pytest.raises(BrokenStreamError, match="broke after 3 characters: late") as caught:
        run(reader())
    assert (got, caught.value.text, len(llm.asked)) == (["One"], "One", 1)
    assert (caught.value.usage, caught.value.cost) == (Usage(3, 1), 0.1)


def test_a_stream_without_an_end_is_broken(scripted, ask):
    class Endless(scripted):
        async def stream(self, request):
            self.asked.append(request)
            if len(self.asked) > 1:
                yield Chunk("Yes.", completion=Completion("Yes.", "stop"))

    llm = Endless()
    assert run(read(retrying(llm)[0], ask()))[-1].completion.notes[0].details["tries"] == 2


def test_a_stream_with_a_validator_is_one_piece(scripted, ask):
    (piece,) = run(read(retrying(scripted(["Yes", "Yes."]), validate=whole)[0], ask()))
    assert (piece.text, piece.completion.text) == ("Yes.", "Yes.")


def test_whoever_stops_reading_stops_the_stream_below(scripted, ask):
    closed = []

    class Watched(scripted):
        async def stream(self, request):
            try:
                yield Chunk("One ")
                yield Chunk("two")
            finally:
                closed.append(True)

    async def leave():
        pieces = Retry(Watched()).stream(ask())
        await anext(pieces)
        await pieces.aclose()
        assert closed == [True]

    run(leave())


def test_another_programs_error_is_not_swallowed(scripted, ask):
    llm = scripted([KeyError("bug"), "Yes."])
    with pytest.raises(KeyError):
        run(retrying(llm)[0].complete(ask()))


def test_rules_that_contradict_themselves_are_refused(scripted):
    with pytest.raises(ConfigError, match="tries must be 1 or more"):
        Retry(scripted(), tries=0)


def test_notes_of_layers_below_stay(scripted, ask):
    from glasshouse.llm import Note

    good = replace(Completion("Yes.", "stop"), notes=(Note("fit", "x"),))
    done = run(retrying(scripted([ServerFaultError("no"), good]))[0].complete(ask()))
    assert [note.layer for note in done.notes] == ["fit", "retry"]


def test_vectors_and_counts_are_asked_for_again_too(scripted, ask):
    class Shaky(scripted):
        async def embed(self, texts):
            if self.outcomes:
                raise self.outcomes.pop()
            return await super().embed(texts)

        async def count_tokens(self, request):
            if self.outcomes:
                raise self.outcomes.pop()
            return await super().count_tokens(request)

    retry, clock = retrying(Shaky([ServerFaultError("no")] * 2))
    assert run(retry.embed(["abc"])) == [[3.0]]
    retry.inner.outcomes = [ServerFaultError("no")]
    assert run(retry.count_tokens(ask("a b"))) == 2
    assert len(clock.slept) == 3
    retry.inner.outcomes = [NotAbleError("never")]
    with pytest.raises(NotAbleError):
        run(retry.embed(["abc"]))


@pytest.mark.parametrize("outside", [False, True])
def test_a_budget_counts_the_same_inside_and_outside(scripted, ask, outside):
    spending = Spending(Limits(dollars=1.0))
    prices = Prices({"scripted": {"input": 1.0, "output": 10.0}})  # a millionth of a dollar a token, and ten
    outcomes = [
        ServerFaultError("down", usage=Usage(100, 5)),
        "Yes",
        Completion("Yes.", "stop", Usage(50, 7)),
    ]
    llm = scripted(outcomes)
    if outside:
        layers = Budget(retrying(llm, validate=whole)[0], spending, prices)
    else:
        layers = retrying(Budget(llm, spending, prices), validate=whole)[0]
    done = run(layers.complete(ask()))
    assert done.usage == Usage(153, 13)
    assert done.cost == pytest.approx((153 + 10 * 13) / 1e6) == pytest.approx(spending.dollars)
    assert (spending.tokens, len(llm.asked)) == (166, 3)
