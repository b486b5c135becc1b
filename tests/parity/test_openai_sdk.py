"""The real `openai` SDK against a real server over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

openai = pytest.importorskip("openai")

from tests.server.conftest import Running, make_model, serving  # noqa: E402

from glasshouse.inference.engine import EngineSettings  # noqa: E402
from glasshouse.server.keys import VARIABLE, Keys  # noqa: E402

pytestmark = pytest.mark.parity

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Tarnhaven", "Ünterwald"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CLOCK = {
    "type": "object",
    "properties": {"zone": {"enum": ["north", "south"]}},
    "required": ["zone"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "Forecast", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "clock", "parameters": CLOCK}},
]
KEY, READER = "a-key-that-may-do-all", "a-key-that-may-embed"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(make_model(context=2048)) as running:
        yield running


def client_of(server: Running, key: str = "none-needed", **options: Any) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60, **options)


@pytest.fixture(scope="module")
def client(server: Running) -> Any:
    return client_of(server)


def test_chat(client):
    reply = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, seed=1)
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.role == "assistant"
    assert isinstance(reply.choices[0].message.content, str)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply._request_id.startswith("req_")


def test_streamed_chat_says_the_same_and_ends_with_usage(client):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 16, "seed": 4}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_the_streaming_helper_puts_the_reply_together(client):
    asked = {"model": "tiny", "messages": HELLO, "tools": TOOLS, "tool_choice": "required", "max_tokens": 300}
    with client.chat.completions.stream(**asked, seed=2) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.choices[0].message.tool_calls[0].function.name in ("weather", "clock")


@pytest.mark.parametrize("seed", range(4))
def test_a_forced_tool_is_called_with_arguments_of_its_schema(client, seed):
    reply = client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "weather"}},
        parallel_tool_calls=False,
        max_tokens=300,
        seed=seed,
    )
    (call,) = reply.choices[0].message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] in ("Tarnhaven", "Ünterwald")
    assert arguments["days"] in (1, 2, 3)
    assert reply.choices[0].finish_reason == "tool_calls"


def test_parallel_calls_stream_by_index_with_id_and_name_first(client):
    asked = {"model": "tiny", "messages": HELLO, "tools": TOOLS, "tool_choice": "required"}
    seen = 0
    for seed in range(30):
        stream = client.chat.completions.create(**asked, max_tokens=1200, seed=seed, stream=True)
        pieces = [c for chunk in stream for c in chunk.choices[0].delta.tool_calls or ()]
        calls: dict[int, Any] = {}
        for piece in pieces:
            if piece.index not in calls:
                assert piece.id
                assert piece.function.name in ("weather", "clock")
                calls[piece.index] = piece.function.arguments or ""
            else:
                assert piece.id is None
                calls[piece.index] += piece.function.arguments
        assert list(calls) == list(range(len(calls)))
        assert all(isinstance(json.loads(arguments), dict) for arguments in calls.values())
        seen = max(seen, len(calls))
        if seen > 1:
            return
    pytest.fail(f"no reply of 30 had more than {seen} calls")


def test_results_of_tools_go_back_to_the_model(client):
    first = client.chat.completions.create(
        model="tiny", messages=HELLO, tools=TOOLS, tool_choice="required", max_tokens=300, seed=1
    )
    message = first.choices[0].message
    results = [{"role": "tool", "tool_call_id": c.id, "content": "sunny"} for c in message.tool_calls]
    asked = [*HELLO, message.model_dump(exclude_none=True), *results]
    reply = client.chat.completions.create(model="tiny", messages=asked, tools=TOOLS, max_tokens=8)
    assert reply.usage.prompt_tokens > first.usage.prompt_tokens


class Person(BaseModel):
    name: str
    age: int


def test_structured_output_parses_into_the_callers_model(client):
    for seed in range(4):
        reply = client.chat.completions.parse(
            model="tiny", messages=HELLO, response_format=Person, max_tokens=120, seed=seed
        )
        assert reply.choices[0].finish_reason == "stop"
        assert isinstance(reply.choices[0].message.parsed, Person)


def test_json_mode_gives_an_object(client):
    reply = client.chat.completions.create(
        model="tiny", messages=HELLO, response_format={"type": "json_object"}, max_tokens=80, seed=0
    )
    assert isinstance(json.loads(reply.choices[0].message.content), dict)


def test_guided_extras_hold_the_text(client):
    for extra, allowed in [
        ({"guided_choice": ["yes", "no"]}, {"yes", "no"}),
        ({"structured_outputs": {"regex": "a{3}|b"}}, {"aaa", "b"}),
    ]:
        reply = client.chat.completions.create(
            model="tiny", messages=HELLO, extra_body=extra, max_tokens=20, seed=1
        )
        assert reply.choices[0].message.content in allowed
    source = "She keeps an owl."
    reply = client.chat.completions.create(
        model="tiny", messages=HELLO, extra_body={"structured_outputs": {"piece_of": source}}, seed=3
    )
    assert reply.choices[0].message.content
    assert reply.choices[0].message.content in source


def test_logprobs(client):
    reply = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=3, temperature=0
    )
    for token in reply.choices[0].logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob


def test_several_choices_and_a_seed(client):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "n": 3, "seed": 9}
    first, again = (client.chat.completions.create(**asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) == 3


def test_stop_and_length_are_the_reasons(client):
    whole = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=30, seed=6)
    assert whole.choices[0].finish_reason == "length"
    stop = whole.choices[0].message.content[5:7]
    cut = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=30, seed=6, stop=stop)
    assert cut.choices[0].finish_reason == "stop"
    assert stop not in cut.choices[0].message.content


def test_completions_echo_and_score(client):
    reply = client.completions.create(
        model="tiny", prompt=[30, 40, 50], echo=True, logprobs=2, max_tokens=1, temperature=0
    )
    logprobs = reply.choices[0].logprobs
    assert len(logprobs.tokens) == 4
    assert logprobs.token_logprobs[0] is None
    streamed = client.completions.create(model="tiny", prompt="Ada", max_tokens=5, seed=1, stream=True)
    whole = client.completions.create(model="tiny", prompt="Ada", max_tokens=5, seed=1)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text


def test_embeddings(client):
    # The SDK asks for base64 by itself and unpacks it.
    told = client.embeddings.create(model="tiny", input=["Ada", "Tarnhaven"])
    plain = client.embeddings.create(model="tiny", input=["Ada", "Tarnhaven"], encoding_format="float")
    assert len(told.data) == 2
    assert told.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"messages": []}, openai.BadRequestError, None),
        ({"temperature": 3}, openai.BadRequestError, None),
        ({"model": "other"}, openai.NotFoundError, "model_not_found"),
        (
            {"messages": [{"role": "user", "content": "owl " * 3000}]},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        ({"tool_choice": "required"}, openai.BadRequestError, None),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "wish"}},
                }
            },
            openai.BadRequestError,
            None,
        ),
        ({"extra_body": {"guided_regex": "(("}}, openai.BadRequestError, None),
    ],
)
def test_mistakes_raise_the_sdks_own_exceptions(client, change, error, code):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "max_tokens": 4, **change})
    assert caught.value.code == code
    assert caught.value.request_id.startswith("req_")
    assert caught.value.body["message"]


def test_keys_and_scopes_raise_the_sdks_own_exceptions(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys: [{{name: reader, key: {READER}, scopes: [embed]}}]")
    with serving(make_model(), Keys.load(file, {VARIABLE: KEY})) as server:
        assert client_of(server, KEY).models.list().data
        with pytest.raises(openai.AuthenticationError):
            client_of(server, "a-key-that-is-unknown").models.list()
        with pytest.raises(openai.PermissionDeniedError):
            client_of(server, READER).chat.completions.create(model="tiny", messages=HELLO)
        assert client_of(server, READER).embeddings.create(model="tiny", input="x").data


def test_a_full_queue_raises_rate_limit_error_and_the_sdk_tries_again():
    engine = EngineSettings(queue_limit=0, max_rows=1)

    async def crowd(server: Running) -> tuple[int, int]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            asked = {
                "model": "tiny",
                "messages": HELLO,
                "max_tokens": 150,
                "extra_body": {"ignore_eos": True},
            }
            tasks = [client.chat.completions.create(**asked, n=16) for _ in range(12)]
            done = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [error for error in done if isinstance(error, openai.RateLimitError)]
        assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)
        return len(refused), sum(not isinstance(answer, BaseException) for answer in done)

    with serving(make_model(), engine=engine) as server:
        refused, answered = asyncio.run(crowd(server))
        assert refused >= 1
        assert answered >= 1
        assert refused + answered == 12


def test_a_deadline_raises_internal_server_error_once():
    with serving(make_model(), request_timeout=0.001) as server:
        client = client_of(server).with_options(max_retries=3)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=100)
        assert caught.value.code == "deadline_exceeded"
        answered = server.get("/metrics").body.decode()
        assert 'glasshouse_requests_total{route="/v1/chat/completions",status="504"} 1.0' in answered
        with pytest.raises(openai.APIError, match="time"):
            list(client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=100, stream=True))


def test_the_asynchronous_client_streams_to_many_at_once(server):
    async def one(client: Any, seed: int) -> str:
        stream = await client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=20, seed=seed, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
            return await asyncio.gather(*(one(client, seed) for seed in range(24)))

    texts = asyncio.run(many())
    sync = client_of(server)
    for seed in (0, 23):
        whole = sync.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=seed)
        assert isinstance(whole.choices[0].message.content, str)
    assert len(set(texts)) > 20
