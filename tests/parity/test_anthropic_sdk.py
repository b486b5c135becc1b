"""The real `anthropic` SDK against a real server over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

anthropic = pytest.importorskip("anthropic")

from tests.parity.test_openai_sdk import CLOCK, KEY, READER, WEATHER  # noqa: E402
from tests.server.conftest import Running, make_model, serving  # noqa: E402

from glasshouse.inference.engine import EngineSettings  # noqa: E402
from glasshouse.server.keys import VARIABLE, Keys  # noqa: E402

pytestmark = pytest.mark.parity

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TOOLS: list[Any] = [
    {"name": "weather", "description": "Forecast", "input_schema": WEATHER},
    {"name": "clock", "input_schema": CLOCK},
]
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(make_model(context=2048)) as running:
        yield running


def client_of(server: Running, key: str = "none-needed", retries: int = 0) -> Any:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=retries, timeout=60)


@pytest.fixture(scope="module")
def client(server: Running) -> Any:
    return client_of(server)


def ask(client: Any, **more: Any) -> Any:
    return client.messages.create(**{"model": "tiny", "messages": HELLO, "max_tokens": 16, **more})


def test_a_message(client):
    # The SDK has no arguments for these any more; the field's other clients still send them.
    sampling = {"temperature": 0.5, "top_k": 20, "top_p": 0.9}
    message = ask(client, system="Be brief", extra_body=sampling)
    assert (message.type, message.role, message.model) == ("message", "assistant", "tiny")
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.output_tokens <= 16
    assert message._request_id.startswith("req_")


def test_a_stream_has_its_events_in_order_and_adds_up_to_the_message(client):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 16, "extra_body": {"seed": 3}}
    kinds = [event.type for event in client.messages.create(**asked, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == client.messages.create(**asked).content[0].text
    assert final.usage.output_tokens == client.messages.create(**asked).usage.output_tokens


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_a_forced_tool_is_used_with_an_input_of_its_schema(client, choice):
    for seed in range(3):
        message = ask(
            client,
            tools=TOOLS,
            tool_choice={**choice, "disable_parallel_tool_use": True},
            max_tokens=300,
            extra_body={"seed": seed},
        )
        (block,) = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use"
        assert block.id.startswith("toolu_")
        assert block.name == "weather" or choice["type"] == "any"
        expected = {"weather": {"city", "days"}, "clock": {"zone"}}[block.name]
        assert set(block.input) == expected


def test_a_tools_input_streams_as_json_that_adds_up(client):
    asked = {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "weather"}, "max_tokens": 300}
    with client.messages.stream(model="tiny", messages=HELLO, **asked, extra_body={"seed": 1}) as stream:
        events = list(stream)
        final = stream.get_final_message()
    block = final.content[-1]
    pieces = [event.partial_json for event in events if event.type == "input_json"]
    assert "".join(pieces)
    assert set(block.input) == {"city", "days"}
    starts = [event for event in events if event.type == "content_block_start"]
    assert starts[-1].content_block.input == {}


def test_parallel_uses_are_blocks_of_their_own(client):
    for seed in range(30):
        message = ask(
            client, tools=TOOLS, tool_choice={"type": "any"}, max_tokens=1200, extra_body={"seed": seed}
        )
        uses = [block for block in message.content if block.type == "tool_use"]
        assert uses
        assert len({block.id for block in uses}) == len(uses)
        if len(uses) > 1:
            return
    pytest.fail("no reply of 30 had more than one call")


def test_results_of_tools_and_thinking_go_back(client):
    for seed in range(20):
        first = ask(
            client,
            tools=TOOLS,
            tool_choice={"type": "any"},
            max_tokens=400,
            thinking=THINKING,
            extra_body={"seed": seed},
        )
        if first.content[0].type == "thinking":
            break
    else:
        pytest.fail("no reply of 20 began with thinking")
    assert first.content[0].signature
    uses = [block for block in first.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"} for block in uses]
    said: Any = {"role": "assistant", "content": first.content}
    again = ask(client, messages=[*HELLO, said, {"role": "user", "content": results}], tools=TOOLS)
    assert again.usage.input_tokens + again.usage.cache_read_input_tokens > first.usage.input_tokens
    forged = {**first.content[0].to_dict(), "thinking": "something else"}
    said = {"role": "assistant", "content": [forged, *first.content[1:]]}
    with pytest.raises(anthropic.BadRequestError, match="signature"):
        ask(client, messages=[*HELLO, said, {"role": "user", "content": results}], tools=TOOLS)


def test_thinking_streams_with_its_signature_last(client):
    for seed in range(20):
        with client.messages.stream(
            model="tiny",
            messages=HELLO,
            tools=TOOLS,
            tool_choice={"type": "any"},
            max_tokens=400,
            thinking=THINKING,
            extra_body={"seed": seed},
        ) as stream:
            deltas = [event.delta.type for event in stream if event.type == "content_block_delta"]
            final = stream.get_final_message()
        if "thinking_delta" in deltas:
            assert deltas[deltas.index("signature_delta") - 1] == "thinking_delta"
            assert deltas.count("signature_delta") == 1
            assert final.content[0].type == "thinking"
            assert final.content[0].signature
            return
    pytest.fail("no reply of 20 began with thinking")


def test_no_thinking_is_told_unless_asked_for(client):
    for seed in range(8):
        message = ask(
            client, tools=TOOLS, tool_choice={"type": "any"}, max_tokens=400, extra_body={"seed": seed}
        )
        assert all(block.type != "thinking" for block in message.content)


def test_structured_output(client):
    schema = {"format": {"type": "json_schema", "schema": WEATHER}}
    message = ask(client, output_config=schema, max_tokens=120)
    import json

    assert set(json.loads(message.content[0].text)) == {"city", "days"}
    assert message.stop_reason == "end_turn"


def test_a_prefilled_reply_goes_on(client):
    beginning: list[Any] = [*HELLO, {"role": "assistant", "content": "Ada Moor"}]
    message = ask(client, messages=beginning)
    assert message.role == "assistant"
    plain = client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens
    assert client.messages.count_tokens(model="tiny", messages=beginning).input_tokens > plain


def test_stop_reasons(client):
    whole = ask(client, max_tokens=40, extra_body={"seed": 1})
    assert whole.stop_reason == "max_tokens"
    stop = whole.content[0].text[8:10]
    cut = ask(client, max_tokens=40, stop_sequences=[stop], extra_body={"seed": 1})
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
    nearly = [{"role": "user", "content": "x " * 1014}]
    full = ask(client, messages=nearly, max_tokens=4000, extra_body={"temperature": 0})
    assert full.stop_reason == "model_context_window_exceeded"


def test_count_tokens_counts_the_tools_too(client):
    plain = client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens
    usage = ask(client, max_tokens=1).usage
    assert plain == usage.input_tokens + usage.cache_read_input_tokens
    assert client.messages.count_tokens(model="tiny", messages=HELLO, tools=TOOLS).input_tokens > plain


def test_models(client):
    (model,) = client.models.list()
    assert (model.id, model.type, model.max_input_tokens) == ("tiny", "model", 2048)
    assert client.models.retrieve("tiny").display_name == "tiny"


@pytest.mark.parametrize(
    ("change", "error", "kind"),
    [
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error"),
        ({"extra_body": {"temperature": 2}}, anthropic.BadRequestError, "invalid_request_error"),
        ({"model": "other"}, anthropic.NotFoundError, "not_found_error"),
        (
            {"messages": [{"role": "user", "content": "owl " * 3000}]},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
        ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "invalid_request_error"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "none"}},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
    ],
)
def test_mistakes_raise_the_sdks_own_exceptions(client, change, error, kind):
    with pytest.raises(error) as caught:
        ask(client, **change)
    assert caught.value.type == kind
    assert caught.value.request_id.startswith("req_")


def test_keys_and_scopes_raise_the_sdks_own_exceptions(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys: [{{name: reader, key: {READER}, scopes: [embed]}}]")
    with serving(make_model(), Keys.load(file, {VARIABLE: KEY})) as server:
        assert ask(client_of(server, KEY)).role == "assistant"
        with pytest.raises(anthropic.AuthenticationError):
            ask(client_of(server, "a-key-that-is-unknown"))
        with pytest.raises(anthropic.PermissionDeniedError):
            ask(client_of(server, READER))


def test_limits_raise_the_sdks_own_exceptions():
    with serving(make_model(), body_limit=2000) as server, pytest.raises(anthropic.RequestTooLargeError):
        ask(client_of(server), messages=[{"role": "user", "content": "x" * 4000}])
    with serving(make_model(), request_timeout=0.001) as server:
        with pytest.raises(anthropic.APIStatusError) as caught:
            ask(client_of(server, retries=3), max_tokens=200)
        assert (caught.value.status_code, caught.value.type) == (504, "timeout_error")
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(client_of(server).messages.create(model="tiny", messages=HELLO, max_tokens=200, stream=True))
        assert caught.value.type == "timeout_error"
    with serving(make_model(), engine=EngineSettings(queue_limit=0)) as server:
        server.service.draining = True
        with pytest.raises(anthropic.InternalServerError) as caught:
            ask(client_of(server))
        assert caught.value.type == "overloaded_error"


def test_signs_of_life_before_the_message_do_not_disturb_a_stream():
    with serving(make_model(), engine=EngineSettings(max_rows=1), ping=0.02) as server:
        busy = {"prompt": [30], "n": 64, "max_tokens": 100, "ignore_eos": True}
        crowd = Thread(target=server.post, args=("/v1/completions",), kwargs=busy)
        crowd.start()
        while not server.service.engine.stats().running:
            crowd.join(0.001)
        stream = client_of(server).messages.create(model="tiny", messages=HELLO, max_tokens=5, stream=True)
        kinds = [event.type for event in stream]
        crowd.join()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
