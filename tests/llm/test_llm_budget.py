"""Money and tokens are counted, and no call is made that could pass a limit, however many come at once."""

import asyncio
import random
import subprocess
import sys

import pytest

from glasshouse.core.errors import ConfigError, StorageError
from glasshouse.llm import Completion, Request, Usage, blocking
from glasshouse.llm.budget import Budget
from glasshouse.llm.errors import (
    BadRequestError,
    BrokenStreamError,
    BudgetExceededError,
    GarbledReplyError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
)
from glasshouse.llm.interface import Capabilities
from glasshouse.llm.layer import Layer
from glasshouse.llm.prices import Machine, Prices, prompt_bound
from glasshouse.llm.spending import LEASE_SECONDS, Amount, Limits, Spending, amount

PRICES = Prices({"scripted": {"input": 1.0, "output": 10.0}})  # a millionth of a dollar a token, and ten
CAN = Capabilities(counts_tokens=False)


def reply(prompt, new, text="Yes."):
    return Completion(text, "stop", Usage(prompt, new), "scripted")


def dollars(prompt, new):
    return (prompt + 10 * new) / 1e6


def test_a_reply_tells_its_cost_and_the_budget_sums_them(scripted, ask):
    spending = Spending(Limits(dollars=1.0))
    llm = Budget(scripted([reply(100, 5), reply(50, 7)]), spending, PRICES)
    first, second = blocking.complete_all(llm, [ask(), ask()])
    assert first.cost == pytest.approx(dollars(100, 5))
    assert first.cost + second.cost == pytest.approx(spending.dollars) == pytest.approx(dollars(150, 12))
    assert (spending.tokens, spending.open_dollars) == (162, 0)


def test_it_stops_before_the_call_that_could_pass_the_limit(scripted, ask):
    """As many as fit when each costs all it may; and the error says what was spent, asked and allowed."""
    inner = scripted([reply(84, 100)], can=CAN)
    request = ask("x" * 4, max_new_tokens=100)
    most = dollars(prompt_bound(request), 100)
    spending = Spending(Limits(dollars=most * 3.5))
    llm = Budget(inner, spending, PRICES)
    for _ in range(3):
        asyncio.run(llm.complete(request))
    with pytest.raises(BudgetExceededError, match=r"up to \$0\.001088, \$0\.003252 of \$0\.003808 are spent"):
        asyncio.run(llm.complete(request))
    assert len(inner.asked) == 3
    assert asyncio.run(llm.complete(ask("x" * 4, max_new_tokens=1))).text == "Yes."


def test_tokens_have_a_limit_too_and_need_no_price(scripted, ask):
    inner = scripted([reply(60, 20)], name="unpriced", can=CAN)
    llm = Budget(inner, Spending(Limits(tokens=400)), Prices())
    request = ask("x" * 20, max_new_tokens=100)  # 204 at most
    assert asyncio.run(llm.complete(request)).cost is None
    asyncio.run(llm.complete(request))
    asyncio.run(llm.complete(request))
    with pytest.raises(BudgetExceededError, match="up to 204 tokens, 240 of 400 are spent"):
        asyncio.run(llm.complete(request))


def test_money_cannot_be_kept_without_a_price(scripted, ask):
    inner = scripted(name="runs/pocket")
    llm = Budget(inner, Spending(Limits(window_dollars=1.0)))
    with pytest.raises(
        BudgetExceededError, match=r'Prices\(\{"runs/pocket": \{"input": 0\.5, "output": 1\.5\}'
    ):
        asyncio.run(llm.complete(ask()))
    with pytest.raises(BudgetExceededError):
        asyncio.run(_read(llm, ask()))
    with pytest.raises(BudgetExceededError):
        asyncio.run(llm.embed(["a"]))
    assert not inner.asked


def test_the_exact_count_is_asked_only_where_the_bound_does_not_fit(scripted, ask):
    """Counting may be a call of its own over the network."""
    counted = []

    class Counting(scripted):
        async def count_tokens(self, request):
            counted.append(request)
            return 30

    request = ask("x" * 2000, max_new_tokens=10)
    spending = Spending(Limits(tokens=prompt_bound(request) + 15))
    llm = Budget(Counting([reply(30, 2)]), spending, PRICES)
    for _ in range(10):
        asyncio.run(llm.complete(request))
    assert (len(counted), spending.tokens) == (9, 320)


def test_what_an_inner_layer_told_of_its_cost_stands(scripted, ask):
    told = Completion("Yes.", "stop", Usage(), "scripted", cost=0.25)
    spending = Spending(Limits(dollars=1.0))
    assert asyncio.run(Budget(scripted([told]), spending, PRICES).complete(ask())).cost == 0.25
    assert spending.dollars == pytest.approx(0.25)


def test_no_server_gives_money_back(scripted, ask):
    spending = Spending(Limits(dollars=1.0))
    for usage in (Usage(-1000, -1000), Usage(10, 0, 500)):
        asyncio.run(Budget(scripted([Completion("a", "stop", usage)]), spending, PRICES).complete(ask()))
    assert (spending.tokens, spending.dollars >= 0) == (10, True)


def test_an_errors_cause_stays(scripted, ask):
    error, cause = ServerFaultError("oops"), ValueError("below")
    error.__cause__ = cause
    with pytest.raises(ServerFaultError) as raised:
        asyncio.run(Budget(scripted([error]), Spending(Limits())).complete(ask()))
    assert raised.value.__cause__ is cause


def test_a_server_that_counts_nothing_is_booked_at_its_bound(scripted, ask):
    spending = Spending(Limits(dollars=1.0))
    request = ask()
    llm = Budget(scripted([Completion("four", "stop")]), spending, PRICES)
    assert asyncio.run(llm.complete(request)).cost is None
    assert spending.dollars == pytest.approx(dollars(prompt_bound(request), 4))


@pytest.mark.parametrize(
    ("error", "prompt", "new"),
    [
        (RateLimitedError("slow down", status=429), 0, 0),
        (BadRequestError("no", status=400), 0, 0),
        (ServerFaultError("oops", status=500), "bound", 0),
        (TimedOutError("late"), "bound", 0),
        (GarbledReplyError("what?", usage=Usage(40, 3)), 40, 3),
        (ServerFaultError("oops", usage=Usage(7, 1)), 7, 1),
        (RuntimeError("a bug"), "bound", 0),
        (asyncio.CancelledError(), "bound", 0),
    ],
)
def test_failed_calls_count_with_what_is_known(scripted, ask, error, prompt, new):
    request = ask(max_new_tokens=50)
    prompt = prompt_bound(request) if prompt == "bound" else prompt
    spending = Spending(Limits(dollars=1.0))

    class Failing(scripted):
        async def complete(self, request):
            raise error

    with pytest.raises(type(error)) as raised:
        asyncio.run(Budget(Failing(), spending, PRICES).complete(request))
    assert spending.dollars == pytest.approx(dollars(prompt, new))
    assert (spending.tokens, spending.open_dollars) == (prompt + new, 0)
    known = getattr(raised.value, "usage", None) is not None or prompt == 0
    if hasattr(error, "cost"):
        assert raised.value.cost == (pytest.approx(dollars(prompt, new)) if known else None)


async def _read(llm, request, pieces=10**6):
    got = []
    stream = llm.stream(request)
    async for chunk in stream:
        got.append(chunk)
        if len(got) == pieces:
            break
    await stream.aclose()
    return got


def test_streams_are_counted_whole(scripted, ask):
    spending = Spending(Limits(dollars=1.0))
    got = asyncio.run(_read(Budget(scripted([reply(9, 2, "Yes it is")]), spending, PRICES), ask()))
    assert got[-1].completion.cost == pytest.approx(dollars(9, 2)) == pytest.approx(spending.dollars)


def test_who_stops_reading_pays_for_the_prompt_and_what_was_written(scripted, ask):
    spending, request = Spending(Limits(dollars=1.0)), ask(max_new_tokens=50)
    closed = []

    class Closing(scripted):
        async def stream(self, request):
            try:
                async for chunk in super().stream(request):
                    yield chunk
            finally:
                closed.append(True)

    asyncio.run(_read(Budget(Closing(["One two three"]), spending, PRICES), request, pieces=2))
    assert spending.dollars == pytest.approx(dollars(prompt_bound(request), len("One two ")))
    assert (spending.open_dollars, closed) == (0, [True])


def test_half_a_stream_counts_what_came(scripted, ask):
    spending, request = Spending(Limits(dollars=1.0)), ask(max_new_tokens=50)
    with pytest.raises(BrokenStreamError):
        asyncio.run(
            _read(Budget(scripted([BrokenStreamError("gone")], begun="One "), spending, PRICES), request)
        )
    assert spending.dollars == pytest.approx(dollars(prompt_bound(request), 4))


def test_a_stream_without_an_end_is_settled(scripted, ask):
    class Endless(scripted):
        async def stream(self, request):
            return
            yield

    spending, request = Spending(Limits(tokens=1000)), ask()
    asyncio.run(_read(Budget(Endless(), spending, PRICES), request))
    assert spending.tokens == prompt_bound(request)


def test_texts_for_vectors_are_booked_by_their_bytes(scripted):
    spending = Spending(Limits(dollars=1.0))
    assert asyncio.run(Budget(scripted(), spending, PRICES).embed(["ab", "ü"])) == [[2.0], [1.0]]
    assert spending.dollars == pytest.approx(dollars(4, 0))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_200_calls_at_once_never_overspend(scripted, ask, tmp_path, stored, seed):
    """Random usages and failures. At every moment spent and reserved stay below; at the end every call is
    either counted to the last token or refused, and a refused one did not fit: by adding up by hand."""
    chance, limit = random.Random(seed), 0.02
    spending = Spending(Limits(dollars=limit, tokens=9_000), file=tmp_path / "spent.db" if stored else None)
    true = {"nano": 0, "tokens": 0}
    refused, seen = [], []

    class Wild(scripted):
        async def complete(self, request):
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            spent = spending._spent()
            seen.append(spent.settled.nano + spent.open.nano <= limit * 1e9)
            seen.append(spent.settled.tokens + spent.open.tokens <= 9_000)
            usage = Usage(
                chance.randrange(prompt_bound(request)), chance.randrange(request.max_new_tokens + 1)
            )
            kind = chance.random()
            if kind < 0.2:
                raise RateLimitedError("slow", status=429)
            counted = usage if kind < 0.8 else Usage(prompt_bound(request), 0)
            used = amount(dollars(counted.prompt_tokens, counted.new_tokens), 0)
            true["nano"] += used.nano
            true["tokens"] += counted.prompt_tokens + counted.new_tokens
            if kind < 0.5:
                return Completion("Yes.", "stop", usage)
            raise ServerFaultError("oops", usage=usage if kind < 0.8 else None)

    async def all_at_once():
        llm = Budget(Wild(can=CAN), spending, PRICES)
        requests = [
            ask("x" * chance.randrange(40), max_new_tokens=chance.randrange(1, 60)) for _ in range(200)
        ]
        results = await asyncio.gather(*map(llm.complete, requests), return_exceptions=True)
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, BudgetExceededError):
                refused.append(request)

    asyncio.run(all_at_once())
    assert seen
    assert all(seen)
    assert spending.open_dollars == 0
    assert round(spending.dollars * 1e9) == true["nano"] <= limit * 1e9
    assert spending.tokens == true["tokens"] <= 9_000
    assert 0 < len(refused) < 200
    assert len(seen) // 2 + len(refused) == 200
    for request in refused:
        bound = prompt_bound(request) + request.max_new_tokens
        money = dollars(prompt_bound(request), request.max_new_tokens)
        assert spending.tokens + bound > 9_000 or spending.dollars + money > limit


def test_calls_wait_for_reservations_that_are_only_in_the_way(scripted, ask):
    """Far more is reserved than will be spent: all are served, a few at a time."""
    inner = scripted([reply(1, 1)], can=CAN, seconds=0.001)
    request = ask(max_new_tokens=100)
    most = prompt_bound(request) + 100
    llm = Budget(inner, Spending(Limits(tokens=most * 3)), PRICES)
    assert len(blocking.complete_all(llm, [request] * 50)) == 50
    assert inner.most_at_once == 3


def test_a_waiting_call_that_is_cancelled_takes_nothing(scripted, ask):
    async def main():
        request = ask(max_new_tokens=100)
        spending = Spending(Limits(tokens=prompt_bound(request) + 110))
        llm = Budget(scripted([reply(1, 1)], can=CAN, seconds=0.05), spending, PRICES)
        first = asyncio.create_task(llm.complete(request))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(llm.complete(request))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.wait([first, second])
        assert (spending.tokens, spending._spent().open.tokens) == (2, 0)
        assert (await llm.complete(request)).text == "Yes."

    asyncio.run(main())


def test_who_asks_in_the_middle_of_a_stream_is_not_left_hanging(scripted, ask):
    """The reservation in the way is its own."""

    async def main():
        request = ask(max_new_tokens=100)
        spending = Spending(Limits(tokens=prompt_bound(request) + 110), wait=0.02)
        llm = Budget(scripted([reply(1, 1)], can=CAN), spending, PRICES)
        async for _ in llm.stream(request):
            with pytest.raises(
                BudgetExceededError, match=r"reserved by calls that did not end within 0\.02 s"
            ):
                await llm.complete(request)
            break

    asyncio.run(main())


def test_a_window_ends_and_the_whole_does_not(scripted, ask):
    now = [86_400.0 * 100 + 10]
    limits = Limits(tokens=1000, window_tokens=300)
    spending = Spending(limits, clock=lambda: now[0])
    llm = Budget(scripted([reply(90, 10)], can=CAN), spending, PRICES)
    request = ask("x", max_new_tokens=100)  # 185 at most
    for _day in range(4):
        for _ in range(2):
            asyncio.run(llm.complete(request))
        with pytest.raises(BudgetExceededError, match="200 of 300 for a day are spent"):
            asyncio.run(llm.complete(request))
        now[0] += 86_400
    asyncio.run(llm.complete(request))
    with pytest.raises(BudgetExceededError, match="900 of 1000 are spent"):
        asyncio.run(llm.complete(request))


def test_a_call_is_booked_in_the_window_in_which_it_began(tmp_path):
    for file in (None, tmp_path / "spent.db"):
        now = [5.0]
        spending = Spending(Limits(window_tokens=100, window_seconds=10), file, clock=lambda now=now: now[0])
        held = asyncio.run(spending.reserve(Amount(0, 80)))
        now[0] = 15.0
        other = asyncio.run(spending.reserve(Amount(0, 90)))
        spending.settle(held, Amount(0, 80))
        spending.settle(other, Amount(0, 20))
        assert spending._spent().window_settled.tokens == 20
        assert spending.tokens == 100


def test_money_is_counted_in_whole_billionths():
    """A tenth of a dollar ten times is a dollar, not less: floats would leave room for an eleventh."""
    spending = Spending(Limits(dollars=1.0))
    for _ in range(10):
        spending.settle(asyncio.run(spending.reserve(amount(0.1, 0))), amount(0.1, 0))
    assert spending.dollars == 1.0
    assert asyncio.run(spending.reserve(amount(0.0, 1)))
    with pytest.raises(BudgetExceededError):
        asyncio.run(spending.reserve(amount(1e-9, 0)))


def test_a_machine_costs_its_time_and_no_call_outlasts_it(scripted, ask):
    now = [0.0]
    machine = Machine(3600.0, longest=0.05, clock=lambda: now[0])

    def later(request):
        now[0] += 2.0
        return reply(5, 5)

    spending = Spending(Limits(dollars=10.0))
    llm = Budget(scripted([later], name="runs/pocket"), spending, Prices({"runs/pocket": machine}))
    assert asyncio.run(llm.complete(ask())).cost == pytest.approx(2.0)
    assert spending.dollars == pytest.approx(2.0)
    slow = Budget(scripted(name="runs/pocket", seconds=5), spending, Prices({"runs/pocket": machine}))
    with pytest.raises(TimedOutError, match=r"longer than 0\.05 seconds"):
        asyncio.run(slow.complete(ask()))
    with pytest.raises(TimedOutError):
        asyncio.run(_read(slow, ask()))
    assert (machine._open, spending.open_dollars) == (0, 0)


def test_two_budgets_of_one_chain_cannot_draw_on_the_same(scripted):
    spending = Spending(Limits(tokens=10))
    with pytest.raises(ConfigError, match="same spending"):
        Budget(Layer(Budget(scripted(), spending)), spending)
    Budget(Budget(scripted(), spending), Spending(Limits(tokens=10)))


def test_the_file_keeps_what_was_spent_for_the_next_process(scripted, ask, tmp_path):
    file = tmp_path / "folder" / "spent.db"
    first = Spending(Limits(tokens=400), file)
    asyncio.run(Budget(scripted([reply(150, 50)]), first, PRICES).complete(ask()))
    first.close()
    again = Spending(Limits(tokens=400), file)
    assert again.tokens == 200
    with pytest.raises(BudgetExceededError, match="200 of 400"):
        asyncio.run(Budget(scripted(), again, PRICES).complete(ask(max_new_tokens=200)))
    assert Spending(Limits(tokens=400), file, name="other").tokens == 0


def test_a_reservation_of_a_process_that_died_counts_as_spent_after_a_while(tmp_path):
    now = [0.0]
    dead = Spending(Limits(tokens=100), tmp_path / "spent.db", clock=lambda: now[0])
    held = asyncio.run(dead.reserve(Amount(0, 60)))
    now[0] = LEASE_SECONDS
    other = Spending(Limits(tokens=100), tmp_path / "spent.db", clock=lambda: now[0])
    with pytest.raises(BudgetExceededError, match="60 of 100"):
        asyncio.run(other.reserve(Amount(0, 50)))
    dead.settle(held, Amount(0, 10))  # it was only slow
    assert other.tokens == 10
    assert asyncio.run(other.reserve(Amount(0, 90)))


def test_a_file_that_is_none_is_an_error(tmp_path):
    (tmp_path / "spent.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match=r"spent\.db"):
        Spending(Limits(tokens=1), tmp_path / "spent.db")


WORKER = """
import asyncio, random, sys
from glasshouse.llm.errors import BudgetExceededError
from glasshouse.llm.spending import Amount, Limits, Spending
spending, chance, mine = Spending(Limits(tokens=20_000), sys.argv[1]), random.Random(sys.argv[2]), 0
async def call():
    global mine
    held = await spending.reserve(Amount(0, 100))
    await asyncio.sleep(0)
    used = chance.randrange(101)
    spending.settle(held, Amount(0, used))
    mine += used
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    print("refused", sum(isinstance(r, BudgetExceededError)
        for r in await asyncio.gather(*(call() for _ in range(400)), return_exceptions=True)), mine)
asyncio.run(main())
"""


def test_two_processes_cannot_overspend_together(tmp_path):
    file = str(tmp_path / "spent.db")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, file, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [worker.communicate()[0].split() for worker in workers]
    assert all(line[0] == "refused" for line in told)
    total = sum(int(line[2]) for line in told)
    assert Spending(Limits(tokens=20_000), file).tokens == total
    assert 20_000 - 100 < total <= 20_000
    assert sum(int(line[1]) for line in told) > 0


def test_event_loops_of_two_threads_share_one_budget(scripted, ask):
    spending, request = Spending(Limits(tokens=2_000)), ask(max_new_tokens=50)
    llm = Budget(scripted([reply(2, 3)], can=CAN), spending, PRICES)

    async def here():
        there = asyncio.to_thread(asyncio.run, _many(llm, request))
        return await asyncio.gather(_many(llm, request), there)

    async def _many(llm, request):
        return await asyncio.gather(*(llm.complete(request) for _ in range(100)))

    asyncio.run(here())
    assert spending.tokens == 1_000


def test_errors_name_no_key(scripted):
    """Nor anything of the prompt."""
    request = Request.parse({"messages": [{"role": "user", "content": "sk-secret"}]})
    with pytest.raises(BudgetExceededError) as error:
        asyncio.run(Budget(scripted(name="openai:nobody"), Spending(Limits(dollars=1))).complete(request))
    assert "sk-secret" not in str(error.value)
