"""What calls cost: held against genai-prices' own arithmetic, and against sums done by hand."""

import random
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.llm import Request, Usage
from glasshouse.llm.prices import IMAGE_TOKENS, Machine, Prices, Tariff, prompt_bound
from glasshouse.tokenizer import Tokenizer

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def listed():
    """Every model of both providers by a name that its provider knows."""
    from genai_prices.data_snapshot import get_snapshot

    for provider in get_snapshot().providers:
        if provider.id in ("openai", "anthropic"):
            yield from ((provider, model) for model in provider.models)


def test_costs_are_those_of_the_library_for_every_model_it_lists():
    """Cached tokens, writes to the cache, tiers by the prompt's length and dated prices included."""
    import genai_prices

    prices, chance, compared, tiered = Prices(now=lambda: NOW), random.Random(1), 0, 0
    for provider, model in listed():
        for length in (1_000, 150_000, 250_000, 900_000):
            cached, written = chance.randrange(length // 3), chance.randrange(length // 3)
            usage = Usage(length, chance.randrange(1, 5_000), cached, written)
            ours = prices.cost(f"{provider.id}:{model.id}", usage)
            try:
                theirs = genai_prices.calc_price(
                    genai_prices.Usage(
                        input_tokens=length,
                        output_tokens=usage.new_tokens,
                        cache_read_tokens=cached,
                        cache_write_tokens=written,
                    ),
                    model.id,
                    provider_id=provider.id,
                    genai_request_timestamp=NOW,
                )
            except LookupError:
                assert ours is None
                continue
            if theirs.model_price.input_mtok is None or theirs.model_price.output_mtok is None:
                assert ours is None  # they say 0 for what has no price
                continue
            assert ours == pytest.approx(float(theirs.total_price), rel=1e-9), model.id
            compared += 1
            tiered += bool(prices.find(f"{provider.id}:{model.id}").above)
    assert compared > 200
    assert tiered > 10


def test_no_call_costs_more_than_its_bound():
    prices, chance = Prices(now=lambda: NOW), random.Random(2)
    for provider, model in listed():
        tariff = prices.find(f"{provider.id}:{model.id}")
        for _ in range(20):
            prompt, new = chance.randrange(1, 400_000), chance.randrange(10_000)
            most = None if tariff is None else tariff.bound(prompt, new)
            if most is None:
                continue
            read = chance.randrange(prompt + 1)
            usage = Usage(
                read,
                chance.randrange(new + 1),
                chance.randrange(read // 2 + 1),
                chance.randrange(read // 2 + 1),
            )
            assert tariff.cost(usage) <= most + 1e-12


@pytest.mark.parametrize(
    "name",
    [
        "runs/pocket",
        "gpt-4o",
        "openai:nobody",
        "http://127.0.0.1:8000/v1#gpt-4o",
        "nobody:gpt-4o",
        "",
        "openai:",
    ],
)
def test_a_model_that_no_list_names_has_no_price(name):
    """A server of one's own does not cost what its model costs elsewhere."""
    assert Prices().cost(name, Usage(1000, 10)) is None


def test_a_provider_behind_an_address_has_its_own_prices():
    import genai_prices

    groq = Prices().cost("https://api.groq.com/openai/v1#llama-3.1-8b-instant", Usage(1_000_000, 0))
    usage = genai_prices.Usage(input_tokens=1_000_000)
    theirs = genai_prices.calc_price(usage, "llama-3.1-8b-instant", provider_id="groq")
    assert groq == pytest.approx(float(theirs.total_price))


def test_what_the_user_says_goes_first():
    own = Prices(
        {"openai:gpt-4o": {"input": 1, "output": 2, "cached": 0.5}, "mine": {"input": 3, "output": 4}}
    )
    assert own.cost("openai:gpt-4o", Usage(1_000_000, 1_000_000, 500_000)) == pytest.approx(0.5 + 0.25 + 2)
    assert own.cost("http://127.0.0.1:1/v1#mine", Usage(1_000_000, 1_000_000)) == pytest.approx(7)
    assert own.cost("openai:gpt-4o-mini", Usage(1_000_000, 0)) == pytest.approx(0.15)
    with pytest.raises(ConfigError, match="did you mean 'input'"):
        Prices({"mine": {"inputs": 3}})
    with pytest.raises(ConfigError, match="the price of mine"):
        Prices({"mine": {"input": -1}})


def test_what_has_no_price_makes_the_cost_unknown():
    only_input = Prices({"mine": {"input": 1}})
    assert only_input.cost("mine", Usage(10, 0)) == pytest.approx(1e-5)
    assert only_input.cost("mine", Usage(10, 1)) is None
    assert Prices({"free": {"input": 0, "output": 0}}).cost("free", Usage(10, 10)) == 0


def test_a_machines_time_is_shared_by_the_calls_that_are_open():
    """Against a sum over small steps of time: random calls, the price of all busy time, each its share."""
    chance, now = random.Random(3), [0.0]
    machine = Machine(3600.0, clock=lambda: now[0])
    spans = [(start := chance.uniform(0, 50), start + chance.uniform(0, 10)) for _ in range(40)]
    moments = sorted(
        [(a, 1, i) for i, (a, _) in enumerate(spans)] + [(b, -1, i) for i, (_, b) in enumerate(spans)]
    )
    begun, cost = {}, {}
    for now[0], change, i in moments:
        if change > 0:
            begun[i] = machine.begin()
        else:
            cost[i] = machine.end(begun[i])
    ticks = sorted({t for span in spans for t in span})
    shares = [0.0] * len(spans)
    for a, b in pairwise(ticks):
        open_ = [i for i, (start, end) in enumerate(spans) if start <= a and b <= end]
        for i in open_:
            shares[i] += (b - a) / len(open_)
    assert [cost[i] for i in range(len(spans))] == pytest.approx(shares)
    assert machine.bound() == pytest.approx(600.0)


def test_a_prompt_has_no_more_tokens_than_its_bound():
    """Our own tokenizer, with as many bytes a token as one can have: one."""
    tokenizer = Tokenizer.train([], 265)
    for messages in (
        [{"role": "user", "content": "Hello"}],
        [{"role": "system", "content": "Sé breve. 简短些。 🦉" * 50}, {"role": "user", "content": ""}],
        [{"role": r, "content": "x"} for r in ("user", "assistant") * 50]
        + [{"role": "user", "content": "y"}],
    ):
        exact = len(tokenizer.encode_chat(messages, add_generation_prompt=True).ids)
        assert exact <= prompt_bound(Request.parse({"messages": messages}))


def test_tools_schemas_calls_and_images_are_in_the_bound():
    def bound(**changes):
        return prompt_bound(Request.parse({"messages": [{"role": "user", "content": "Hi"}]} | changes))

    tool = {"type": "function", "function": {"name": "f", "description": "x" * 1000}}
    assert bound(tools=[tool]) > bound() + 1000
    assert bound(output_schema={"title": "x" * 1000}) > bound() + 1000
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 1000}}
    assert bound(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}]) > 1000
    picture = [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}},
        {"type": "text", "text": "?"},
    ]
    assert bound(messages=[{"role": "user", "content": picture}]) > IMAGE_TOKENS


def test_looking_up_prices_asks_nobody():
    """In a process of its own, where opening a socket or starting a thread is an error."""
    program = """
import socket, threading
def no(*_, **__): raise SystemExit("the network was touched")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = no
threading.Thread.start = no
from glasshouse.llm import Usage
from glasshouse.llm.prices import Prices
print(Prices().cost("openai:gpt-4o", Usage(1_000_000, 0)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2.5", done.stderr


def test_a_tariff_takes_the_tier_that_the_prompt_reaches():
    tariff = Prices(now=lambda: NOW).find("anthropic:claude-sonnet-4-5")
    assert isinstance(tariff, Tariff)
    assert tariff.cost(Usage(200_000, 0)) == pytest.approx(0.6)
    assert tariff.cost(Usage(200_001, 0)) == pytest.approx(200_001 * 6 / 1e6)
