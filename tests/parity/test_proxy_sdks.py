"""The real SDKs of OpenAI and Anthropic before a proxy, which stands before a real server of ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

from tests.server.conftest import Running, make_model, serving  # noqa: E402
from tests.server.test_server_proxy import Scripted, failing, in_front, piece, streaming  # noqa: E402

from glasshouse.inference.engine import EngineSettings  # noqa: E402
from glasshouse.server.keys import VARIABLE, Keys  # noqa: E402

pytestmark = pytest.mark.parity

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Tarnhaven", "Ünterwald"]}},
    "required": ["city"],
    "additionalProperties": False,
}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
ANTHROPIC_TOOL: Any = {"name": "weather", "input_schema": SCHEMA}
THEIRS, OURS = "the-key-of-the-server-behind", "the-key-of-the-client"


@pytest.fixture(scope="module")
def behind() -> Iterator[Running]:
    with serving(make_model(context=2048), Keys.load(None, {VARIABLE: THEIRS})) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(behind: Running) -> Iterator[Running]:
    with in_front(f"{behind.url}/v1", keys=Keys.load(None, {VARIABLE: OURS}), key=THEIRS) as running:
        yield running


def openai_of(server: Running, key: str, kind: Any = openai.OpenAI) -> Any:
    return kind(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


def anthropic_of(server: Running, key: str, kind: Any = anthropic.Anthropic) -> Any:
    return kind(base_url=server.url, api_key=key, max_retries=0, timeout=60)


def told(reply: Any) -> dict[str, Any]:
    """What two answers to one question share."""
    left = reply.model_dump(exclude={"id", "created", "model", "usage"})
    for choice in left.get("choices", ()):
        for call in choice["message"].get("tool_calls") or ():
            call.pop("id")
    for block in left.get("content") or ():
        if isinstance(block, dict):
            block.pop("id", None)
            block.pop("caller", None)
    return left


@pytest.mark.parametrize(
    "asked",
    [
        {"logprobs": True, "top_logprobs": 2, "n": 2},
        {"tools": [OPENAI_TOOL], "tool_choice": "required", "max_tokens": 80},
        {
            "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}},
            "max_tokens": 80,
        },
    ],
)
def test_openais_sdk_gets_what_it_gets_from_the_server_behind(behind, proxy, asked):
    asked = {"messages": HELLO, "max_tokens": 10, "seed": 4, **asked}
    direct = openai_of(behind, THEIRS).chat.completions.create(model="tiny", **asked)
    through = openai_of(proxy, OURS).chat.completions.create(model="near", **asked)
    assert told(through) == told(direct)
    assert through.usage.completion_tokens == direct.usage.completion_tokens


def test_openais_sdk_streams_and_embeds_and_lists(behind, proxy):
    client = openai_of(proxy, OURS)
    asked = {"messages": HELLO, "max_tokens": 10, "seed": 4}
    whole = client.chat.completions.create(model="near", **asked)
    chunks = list(
        client.chat.completions.create(
            model="near", **asked, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    vectors = client.embeddings.create(model="near", input=["a", "b"])
    direct = openai_of(behind, THEIRS).embeddings.create(model="tiny", input=["a", "b"])
    assert vectors.data[1].embedding == direct.data[1].embedding
    assert [model.id for model in client.models.list()] == ["near"]


@pytest.mark.parametrize(
    "asked",
    [
        {"system": "Be brief."},
        {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}, "max_tokens": 80},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}, "max_tokens": 80},
        {"messages": [*HELLO, {"role": "assistant", "content": "I"}]},
    ],
)
def test_anthropics_sdk_gets_what_it_gets_from_the_server_behind(behind, proxy, asked):
    asked = {"messages": HELLO, "max_tokens": 10, "extra_body": {"seed": 4}, **asked}
    direct = anthropic_of(behind, THEIRS).messages.create(model="tiny", **asked)
    client = anthropic_of(proxy, OURS)
    through = client.messages.create(model="near", **asked)
    assert told(through) == told(direct)
    with client.messages.stream(model="near", **asked) as stream:
        assert told(stream.get_final_message()) == told(through)
    assert [model.id for model in client.models.list()] == ["near"]


def test_wrong_keys_and_names_raise_the_sdks_own_exceptions(proxy):
    with pytest.raises(openai.AuthenticationError):
        openai_of(proxy, THEIRS).chat.completions.create(model="near", messages=HELLO)
    with pytest.raises(openai.NotFoundError):
        openai_of(proxy, OURS).chat.completions.create(model="tiny", messages=HELLO)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic_of(proxy, THEIRS).messages.create(model="near", messages=HELLO, max_tokens=1)
    with pytest.raises(anthropic.NotFoundError):
        anthropic_of(proxy, OURS).messages.create(model="tiny", messages=HELLO, max_tokens=1)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        openai_of(proxy, OURS).chat.completions.create(
            model="near", messages=[{"role": "user", "content": "owl " * 9000}]
        )


def test_faults_of_the_server_behind_raise_the_sdks_own_exceptions():
    scripted = Scripted()
    try:
        with in_front(scripted.url) as server:
            first, second = openai_of(server, "x"), anthropic_of(server, "x")
            scripted.reply = failing(429, {"error": {"message": "slow"}}, retry_after="3")
            with pytest.raises(openai.RateLimitError) as limited:
                first.chat.completions.create(model="near", messages=HELLO)
            assert limited.value.response.headers["retry-after"] == "3"
            with pytest.raises(anthropic.RateLimitError) as limited:
                second.messages.create(model="near", messages=HELLO, max_tokens=5)
            assert limited.value.response.headers["retry-after"] == "3"
            scripted.reply = streaming(piece({"content": "Hi"}), None)
            with pytest.raises(openai.APIError):
                list(first.chat.completions.create(model="near", messages=HELLO, stream=True))
            with (
                pytest.raises(anthropic.APIError),
                second.messages.stream(model="near", messages=HELLO, max_tokens=5) as stream,
            ):
                stream.get_final_message()
    finally:
        scripted.stop()


def test_a_client_that_closes_its_stream_frees_the_engine_behind(behind):
    with (
        serving(make_model(context=2048), engine=EngineSettings()) as real,
        in_front(f"{real.url}/v1") as server,
    ):

        async def leave() -> None:
            client = openai_of(server, "x", openai.AsyncOpenAI)
            more = {"extra_body": {"ignore_eos": True}, "max_tokens": 2000, "stream": True}
            stream = await client.chat.completions.create(model="near", messages=HELLO, **more)
            await anext(aiter(stream))
            await stream.close()
            await client.close()

        asyncio.run(leave())
        waited = threading.Event()
        for _ in range(1000):
            if not real.service.engine.stats().running:
                break
            waited.wait(0.01)
        stats = real.service.engine.stats()
        assert stats.running == 0
        assert stats.new_tokens < 1900
