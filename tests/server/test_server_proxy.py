"""In front of another server: nothing is lost, nothing is added, and every failure arrives as what it is.

The server behind is ours with a tiny model, or one that answers by a script.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from io import StringIO
from typing import Any

import pytest
import uvicorn
from tests.server.conftest import Running

from glasshouse.cli import main
from glasshouse.core.errors import UsageError
from glasshouse.server.keys import VARIABLE, Keys
from glasshouse.server.proxy import Proxy
from glasshouse.server.settings import ServerSettings
from glasshouse.server.upstream import Upstream

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "a secret question"}]
SECRET = "the-upstreams-own-secret-key"
CLIENT = "a-key-of-the-client-itself"


@contextmanager
def in_front(
    address: str,
    model: str | None = "tiny",
    name: str | None = "near",
    keys: Keys | None = None,
    key: str | None = None,
    **settings: object,
) -> Iterator[Running]:
    proxy = Proxy(Upstream(address, key), model, name, ServerSettings.parse(settings))
    running = Running(proxy, StringIO(), keys or Keys())  # type: ignore[arg-type]
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def proxy(server: Running) -> Iterator[Running]:
    with in_front(f"{server.url}/v1") as running:
        yield running


def same(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs between two answers to one question."""
    return {name: value for name, value in answer.items() if name not in ("id", "created", "model")}


class Scripted:
    """A server that answers with `reply(path, body)`: (status, headers, pieces); a piece may be a function,
    which is waited for. `seen` keeps (path, headers, body); `left` is set when a client goes."""

    def __init__(self) -> None:
        self.reply: Callable[[str, Any], tuple[int, dict[str, str], list[Any]]] = lambda path, body: (
            200,
            {},
            [],
        )
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.left = threading.Event()
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()), daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/v1"

    async def _app(self, scope, receive, send) -> None:
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["path"], headers, json.loads(raw) if raw else None))
        status, told, pieces = self.reply(scope["path"], self.seen[-1][2])
        made = [(name.encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": status, "headers": made})
        watch = asyncio.ensure_future(self._watch(receive))
        for piece in pieces:
            if callable(piece):
                waiting = asyncio.ensure_future(asyncio.to_thread(piece))
                await asyncio.wait({waiting, watch}, return_when=asyncio.FIRST_COMPLETED)
                continue
            if piece is None:
                raise ConnectionError("half of it")
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        watch.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self, receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)


@pytest.fixture
def behind() -> Iterator[Scripted]:
    scripted = Scripted()
    try:
        yield scripted
    finally:
        scripted.stop()


def whole(**more: Any) -> Callable[..., Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": "Hi."}
    answer = {
        "id": "x-1",
        "object": "chat.completion",
        "created": 1,
        "model": "theirs",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }
    return lambda path, body: (
        200,
        {"content-type": "application/json"},
        [json.dumps(answer | more).encode()],
    )


def piece(delta: dict[str, Any] | None = None, **more: Any) -> bytes:
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": more.pop("reason", None)}]
    )
    return f"data: {json.dumps({'id': 'x-1', 'choices': choices, **more})}\n\n".encode()


def failing(status: int, body: Any, **headers: str) -> Callable[..., Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda path, asked: (
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        [raw],
    )


EVENTS = {"content-type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"


def streaming(*pieces: Any) -> Callable[..., Any]:
    return lambda path, body: (200, EVENTS, list(pieces))


# The same answers as from the server behind


@pytest.mark.parametrize(
    "asked",
    [
        {"max_tokens": 12, "temperature": 0},
        {"max_tokens": 12, "seed": 5, "n": 2, "logprobs": True, "top_logprobs": 3},
        {"max_tokens": 60, "response_format": {"type": "json_object"}, "seed": 1},
        {"max_tokens": 30, "seed": 1, "structured_outputs": {"choice": ["owl", "cat"]}},
    ],
)
def test_a_reply_equals_the_upstreams(server, proxy, asked):
    server.post(CHAT, messages=HELLO, **asked)  # from now on its prompt lies in the cache
    direct = server.post(CHAT, messages=HELLO, **asked)
    through = proxy.post(CHAT, messages=HELLO, **(asked | {"model": "near"}))
    assert (direct.status, through.status) == (200, 200)
    assert same(through.json) == same(direct.json)


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_equals_the_upstreams_event_by_event(server, proxy, usage):
    asked: dict[str, Any] = {"messages": HELLO, "max_tokens": 12, "seed": 3, "stream": True}
    if usage:
        asked["stream_options"] = {"include_usage": True}
    direct = server.post(CHAT, **asked).events
    through = proxy.post(CHAT, **asked, model="near").events
    assert through[-1] == direct[-1] == (None, "[DONE]")
    said = [[same(event) for _, event in events[:-1]] for events in (direct, through)]
    text = [
        "".join(e["choices"][0]["delta"].get("content", "") for e in each if e["choices"]) for each in said
    ]
    assert text[0] == text[1]
    assert said[1][0] == said[0][0]
    assert said[1][-1] == said[0][-1]
    assert all(("usage" in each) == usage for each in said[1])


def test_raw_completions_and_vectors_pass(server, proxy):
    for path, asked in (
        (
            "/v1/completions",
            {"prompt": "An owl", "max_tokens": 5, "echo": True, "logprobs": 1, "temperature": 0},
        ),
        ("/v1/embeddings", {"input": ["An owl", "a cat"]}),
    ):
        direct, through = server.post(path, **asked), proxy.post(path, **asked, model="near")
        assert (direct.status, through.status) == (200, 200)
        assert same(through.json) == same(direct.json)


def test_anthropics_format_gives_what_the_server_behind_gives(server, proxy):
    """The tiny model, asked directly in Anthropic's format and through the translation: the same message."""
    asked = {"messages": HELLO, "max_tokens": 12, "seed": 3, "system": "Be brief."}
    server.post("/v1/messages", **asked)
    direct = server.post("/v1/messages", **asked).json
    through = proxy.post("/v1/messages", **asked, model="near").json
    assert same(through) == same(direct)
    assert through["model"] == "near"


def test_an_anthropic_stream_adds_up_to_the_whole_message(proxy):
    asked = {"model": "near", "messages": HELLO, "max_tokens": 12, "seed": 3}
    message = proxy.post("/v1/messages", **asked).json
    events = proxy.post("/v1/messages", **asked, stream=True).events
    names = [name for name, _ in events]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(e["delta"]["text"] for name, e in events if name == "content_block_delta")
    assert text == message["content"][0]["text"]
    assert events[-2][1]["usage"] == message["usage"]
    assert events[-2][1]["delta"]["stop_reason"] == message["stop_reason"] == "max_tokens"


def test_models_are_told_in_both_dialects(server, proxy):
    (only,) = proxy.get("/v1/models").json["data"]
    assert (only["id"], only["max_model_len"]) == ("near", 256)
    (only,) = proxy.ask("GET", "/v1/models", None, {"anthropic-version": "2023-06-01"}).json["data"]
    assert (only["type"], only["id"], only["max_input_tokens"]) == ("model", "near", 256)
    assert proxy.get("/v1/models/near").json["id"] == "near"
    assert proxy.get("/v1/models/tiny").status == 404  # only our name for it
    with in_front(f"{server.url}/v1", None, None) as every:
        assert every.get("/v1/models").json == server.get("/v1/models").json
        assert every.post(CHAT, messages=HELLO, max_tokens=2).status == 200
        assert every.post(CHAT, messages=HELLO, model="none").error["code"] == "model_not_found"


# What is asked


def test_unknown_fields_survive_in_both_directions(behind):
    behind.reply = whole(
        service_tier="priority", choices=[{"index": 0, "message": {"content": "Hi", "odd": [1]}}]
    )
    asked = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}
    more = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": 1.5, "metadata": {"Ü": "🦉"}}
    with in_front(behind.url) as server:
        answer = server.post(CHAT, model="near", **asked, **more)
    assert answer.json["service_tier"] == "priority"
    assert answer.json["choices"][0]["message"]["odd"] == [1]
    ((path, _, body),) = behind.seen
    assert path == CHAT
    assert body == {"model": "tiny", **asked, **more}


def test_a_name_that_is_not_served_never_gets_there(behind):
    with in_front(behind.url) as server:
        assert server.post(CHAT, messages=HELLO).error["code"] == "model_not_found"
        twice = b'{"model": "other", "messages": [], "model": "near"}'
        server.ask("POST", CHAT, twice)
        assert server.post("/v1/messages", messages=HELLO, max_tokens=1).error["type"] == "not_found_error"
    assert [body["model"] for _, _, body in behind.seen] == ["tiny"]  # one meaning of the double name


def test_our_own_limit_of_new_tokens_holds(behind):
    behind.reply = whole()
    with in_front(behind.url, max_new_tokens=5) as server:
        server.post(CHAT, model="near", messages=HELLO)
        server.post(CHAT, model="near", messages=HELLO, max_tokens=3)
        server.post(CHAT, model="near", messages=HELLO, max_completion_tokens=30)
        server.post("/v1/messages", model="near", messages=HELLO, max_tokens=99)
    asked = [(body.get("max_tokens"), body.get("max_completion_tokens")) for _, _, body in behind.seen]
    assert asked == [(5, None), (3, None), (None, 5), (5, None)]


def test_a_conversation_of_anthropics_shape_is_translated_whole(behind):
    behind.reply = whole()
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "Rain.", "is_error": True}
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Tarnhaven"}}
    with in_front(behind.url) as server:
        server.post(
            "/v1/messages",
            model="near",
            max_tokens=50,
            system=[{"type": "text", "text": "Be brief."}],
            messages=[
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, call]},
                {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
                {"role": "assistant", "content": "It"},
            ],
            tools=[{"name": "weather", "input_schema": schema, "description": "Forecast"}],
            tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            stop_sequences=["."],
            temperature=0.5,
            top_k=7,
            output_config={"format": {"type": "json_schema", "schema": schema}},
        )
    ((path, _, body),) = behind.seen
    assert path == CHAT
    called = {"name": "weather", "arguments": '{"city": "Tarnhaven"}'}
    assert body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [{"id": "t1", "type": "function", "function": called}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "Error: Rain."},
            {"role": "user", "content": "And now?"},
            {"role": "assistant", "content": "It"},
        ],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "max_tokens": 50,
        "temperature": 0.5,
        "top_k": 7,
        "stop": ["."],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": schema, "strict": True},
        },
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Forecast", "parameters": schema},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
    }


CALLS = [
    {"reasoning_content": "Hm."},
    {"content": "Look:"},
    {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ' "T"}'}}]},
    {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "clock", "arguments": "{}"}}]},
]
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}


def test_tool_calls_and_thoughts_become_blocks_streamed_or_whole(behind):
    asked = {
        "model": "near",
        "messages": HELLO,
        "max_tokens": 50,
        "thinking": {"type": "enabled", "budget_tokens": 9},
    }
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "T"}'}},
        {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
    ]
    said = {"role": "assistant", "content": "Look:", "reasoning": "Hm.", "tool_calls": calls}
    with in_front(behind.url) as server:
        behind.reply = streaming(*map(piece, CALLS), piece({}, reason="tool_calls"), piece(usage=USAGE), DONE)
        events = server.post("/v1/messages", **asked, stream=True).events
        behind.reply = whole(
            choices=[{"index": 0, "message": said, "finish_reason": "tool_calls"}], usage=USAGE
        )
        message = server.post("/v1/messages", **asked).json
        (thought, *_) = message["content"]
        again = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [thought]}, HELLO[0]]
        assert server.post("/v1/messages", **(asked | {"messages": again})).status == 200
        thought["thinking"] = "Changed."
        assert server.post("/v1/messages", **(asked | {"messages": again})).status == 400
    assert behind.seen[-1][2]["messages"][1]["reasoning_content"] == "Hm."
    kinds = [event["content_block"] for name, event in events if name == "content_block_start"]
    assert [kind["type"] for kind in kinds] == ["thinking", "text", "tool_use", "tool_use"]
    blocks = message["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert blocks[2] == {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "T"}}
    arguments = "".join(
        event["delta"]["partial_json"]
        for name, event in events
        if name == "content_block_delta" and event["index"] == 2
    )
    assert json.loads(arguments) == {"city": "T"}
    assert message["stop_reason"] == events[-2][1]["delta"]["stop_reason"] == "tool_use"
    assert message["usage"] == events[-2][1]["usage"]
    assert (message["usage"]["input_tokens"], message["usage"]["cache_read_input_tokens"]) == (7, 2)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"finish_reason": "length"}, ("max_tokens", None)),
        ({"finish_reason": "content_filter"}, ("refusal", None)),
        ({"finish_reason": "stop", "stop_reason": "."}, ("stop_sequence", ".")),
        ({"finish_reason": "stop", "stop_reason": None}, ("end_turn", None)),
    ],
)
def test_why_a_reply_ended(behind, choice, told):
    behind.reply = whole(choices=[{"index": 0, "message": {"content": "Hi"}, **choice}])
    with in_front(behind.url) as server:
        message = server.post("/v1/messages", model="near", messages=HELLO, max_tokens=9).json
    assert (message["stop_reason"], message["stop_sequence"]) == told


def test_what_needs_the_engine_is_refused_clearly(proxy):
    for path in ("/tokenize", "/detokenize", "/v1/messages/count_tokens"):
        told = proxy.post(path, prompt="x")
        assert told.status == 501
        assert "in front of another" in told.error["message"]
        assert told.headers["x-should-retry"] == "false"
    assert proxy.get("/tokenizer_info").status == 501


# Streams


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_pieces_go_out_as_they_come_in(behind, path):
    """The server behind writes its second piece only after the client has read the first."""
    go = threading.Event()
    behind.reply = streaming(
        piece({"content": "Hi"}), lambda: go.wait(20), piece({"content": "you"}, reason="stop"), DONE
    )
    with in_front(behind.url) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        body = {"model": "near", "messages": HELLO, "max_tokens": 5, "stream": True}
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        read = b""
        while b"Hi" not in read:
            read += response.read1(1000)
        assert b"you" not in read
        go.set()
        rest = response.read()
        assert b"you" in rest
        assert rest.endswith((DONE, b'{"type":"message_stop"}\n\n'))
        connection.close()


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_ends_the_work_behind(behind, path, stream):
    begun = threading.Event()
    first = [piece({"content": "Hi"})] if stream else []
    behind.reply = streaming(*first, begun.set, lambda: behind.left.wait(20))
    with in_front(behind.url) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        body = {"model": "near", "messages": HELLO, "max_tokens": 5, "stream": stream}
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        assert begun.wait(20)
        if stream:
            connection.getresponse().read1(10)
        assert not behind.left.is_set()
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert behind.left.wait(20)


@pytest.mark.parametrize("cut", [None, b""])
def test_half_a_stream_ends_with_an_error(behind, cut):
    behind.reply = streaming(piece({"content": "Hi"}), *([] if cut == b"" else [cut]))
    with in_front(behind.url) as server:
        openai = server.post(CHAT, model="near", messages=HELLO, stream=True).events
        anthropic = server.post(
            "/v1/messages", model="near", messages=HELLO, max_tokens=5, stream=True
        ).events
    assert openai[0][1]["choices"][0]["delta"] == {"content": "Hi"}
    assert openai[-1][1]["error"]["code"] == "upstream_broken"
    assert openai[-1][1]["error"]["type"] == "server_error"
    name, last = anthropic[-1]
    assert (name, last["error"]["type"]) == ("error", "api_error")


def test_an_error_in_a_stream_is_passed_on(behind):
    failure = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
    behind.reply = streaming(piece({"content": "Hi"}), failure)
    with in_front(behind.url) as server:
        answer = server.post(CHAT, model="near", messages=HELLO, stream=True)
        assert [event for _, event in answer.events][1:] == [
            {"error": {"message": "out of memory", "code": 500}}
        ]
        assert server.logged(answer.headers["x-request-id"])["error"] == "out of memory"
        last = server.post("/v1/messages", model="near", messages=HELLO, max_tokens=5, stream=True).events[-1]
    assert last[1]["error"]["message"] == "out of memory"


def test_a_stream_in_odd_pieces_with_comments_and_carriage_returns(behind):
    whole_ = (
        b": hello\r\n\r\n"
        + piece({"content": "Hi"}).replace(b"\n", b"\r\n")
        + piece({}, reason="stop")
        + DONE
    )
    behind.reply = streaming(*(bytes([byte]) for byte in whole_))
    with in_front(behind.url) as server:
        answer = server.post(CHAT, model="near", messages=HELLO, stream=True)
    assert answer.events[0][1]["choices"][0]["delta"] == {"content": "Hi"}
    assert answer.events[-1] == (None, "[DONE]")
    assert answer.body.startswith(b": hello\n\n")


# Failures


def test_a_refusal_arrives_with_status_words_and_the_time_to_wait(behind):
    told = {
        "error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    }
    behind.reply = failing(429, told, retry_after="7", x_ratelimit_reset_tokens="6s", server="x")
    with in_front(behind.url) as server:
        for stream in (True, False):
            answer = server.post(CHAT, model="near", messages=HELLO, stream=stream)
            assert (answer.status, answer.json) == (429, told)
            assert (answer.headers["retry-after"], answer.headers["x-ratelimit-reset-tokens"]) == ("7", "6s")
            answer = server.post("/v1/messages", model="near", messages=HELLO, max_tokens=5, stream=stream)
            assert (answer.status, answer.headers["retry-after"]) == (429, "7")
            assert (answer.error["type"], answer.error["message"]) == ("rate_limit_error", "Slow down.")


@pytest.mark.parametrize(
    ("status", "body", "message", "kind"),
    [
        (400, {"object": "error", "message": "too long", "code": 400}, "too long", "invalid_request_error"),
        (500, b"<html>Oops</html>", "answered with status 500", "api_error"),
        (502, {"error": "down"}, "down", "api_error"),
        (503, {"detail": "starting"}, "answered with status 503", "overloaded_error"),
        (404, {"error": {"message": "no such model"}}, "no such model", "not_found_error"),
    ],
)
def test_refusals_of_every_shape(behind, status, body, message, kind):
    behind.reply = failing(status, body)
    with in_front(behind.url) as server:
        openai = server.post(CHAT, model="near", messages=HELLO)
        anthropic = server.post("/v1/messages", model="near", messages=HELLO, max_tokens=5)
    assert openai.status == anthropic.status == status
    assert message in openai.error["message"]
    assert message in anthropic.error["message"]
    assert anthropic.error["type"] == kind


def test_a_server_that_is_not_there_an_odd_one_and_a_redirect(behind):
    with in_front("http://127.0.0.1:9/v1") as server:
        for stream in (True, False):
            told = server.post(CHAT, model="near", messages=HELLO, stream=stream)
            assert (told.status, told.error["code"]) == (502, "upstream_unreachable")
            assert told.error["type"] == "server_error"
            assert ":9" not in told.error["message"]  # where it stands is not for strangers
    with in_front(behind.url) as server:
        behind.reply = failing(200, b"no JSON")
        assert server.post(CHAT, model="near", messages=HELLO).error["code"] == "upstream_odd"
        behind.reply = failing(200, {"choices": []})
        assert (
            server.post("/v1/messages", model="near", messages=HELLO, max_tokens=5).error["type"]
            == "api_error"
        )
        behind.reply = failing(307, b"", location="http://127.0.0.1:1/")
        assert server.post(CHAT, model="near", messages=HELLO).status == 502
        behind.reply = lambda path, body: (200, {"content-length": "100"}, [b"half", None])
        assert server.post(CHAT, model="near", messages=HELLO).error["code"] == "upstream_broken"


def test_our_own_time_limit_holds_before_and_within_a_reply(behind):
    go = threading.Event()
    with in_front(behind.url, request_timeout=0.3) as server:
        behind.reply = streaming(lambda: go.wait(20))
        told = server.post(CHAT, model="near", messages=HELLO)
        assert (told.status, told.error["code"], told.headers["x-should-retry"]) == (
            504,
            "deadline_exceeded",
            "false",
        )
        behind.reply = streaming(piece({"content": "Hi"}), lambda: go.wait(20))
        events = server.post(CHAT, model="near", messages=HELLO, stream=True).events
        assert events[-1][1]["error"]["code"] == "deadline_exceeded"
    go.set()


# Keys, limits, what is told


def test_the_keys_of_clients_and_of_the_server_behind_never_meet(behind):
    behind.reply = failing(401, {"error": {"message": f"bad key {SECRET}", "code": "invalid_api_key"}})
    keys = Keys.load(None, {VARIABLE: CLIENT})
    with in_front(behind.url, keys=keys, key=SECRET, log_content=True) as server:
        assert server.post(CHAT, model="near", messages=HELLO).status == 401  # no key of ours
        assert not behind.seen
        mine = {
            "authorization": f"Bearer {CLIENT}",
            "x-api-key": CLIENT,
            "cookie": "a=b",
            "openai-organization": "o",
        }
        answers = [
            server.ask("POST", CHAT, {"model": "near", "messages": HELLO, "stream": stream}, mine)
            for stream in (True, False)
        ]
        behind.reply = failing(400, {"error": {"message": f"cannot use {SECRET}"}})
        answers.append(server.ask("POST", CHAT, {"model": "near", "messages": HELLO}, mine))
        logged = server.log.getvalue()
        shown = repr(server.service)
    assert [answer.status for answer in answers] == [502, 502, 400]
    assert answers[0].error["code"] == "upstream_not_allowed"
    for answer in answers:
        assert SECRET not in answer.body.decode()
    assert SECRET not in logged + shown
    for _, headers, body in behind.seen:
        assert headers["authorization"] == f"Bearer {SECRET}"
        assert CLIENT not in json.dumps([headers, body])
        assert not {"x-api-key", "cookie", "openai-organization"} & set(headers)


def test_scopes_hold_in_front_of_the_server_behind(behind, tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys: [{{name: reader, key: {CLIENT}, scopes: [embed]}}]")
    with in_front(behind.url, keys=Keys.load(file, {})) as server:
        mine = {"x-api-key": CLIENT}
        assert server.ask("POST", CHAT, {"model": "near", "messages": HELLO}, mine).status == 403
        assert server.ask("POST", "/v1/embeddings", {"model": "near", "input": "x"}, mine).status == 502
    assert [path for path, _, _ in behind.seen] == ["/v1/embeddings"]


def test_one_clients_cookie_is_not_sent_for_another(behind):
    behind.reply = lambda path, body: (200, {"set-cookie": "node=3; Path=/"}, whole()(path, body)[2])
    with in_front(behind.url) as server:
        for _ in range(2):
            assert "set-cookie" not in server.post(CHAT, model="near", messages=HELLO).headers
    assert all("cookie" not in headers for _, headers, _ in behind.seen)


def test_a_body_that_is_too_large_stays_here(behind):
    with in_front(behind.url, body_limit=2000) as server:
        assert (
            server.post(CHAT, model="near", messages=[{"role": "user", "content": "x" * 3000}]).status == 413
        )
        assert server.ask("POST", CHAT, b'{"model": 7}').status == 400
        assert server.ask("POST", CHAT, b'{"model": "near", "x": NaN}').status == 400
    assert not behind.seen


def test_logs_metrics_and_spans_tell_what_passed(behind, tmp_path):
    spans = tmp_path / "spans.jsonl"
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with in_front(behind.url, traces=str(spans), log_content=True) as server:
        behind.reply = whole()
        body = {"model": "near", "messages": HELLO, "temperature": 0.5, "max_tokens": 3}
        answer = server.ask("POST", CHAT, body, {"traceparent": trace})
        line = server.logged(answer.headers["x-request-id"])
        assert (line["prompt_tokens"], line["new_tokens"], line["finish_reasons"]) == (7, 2, ["stop"])
        assert (line["messages"], line["replies"], line["model"]) == (HELLO, ["Hi."], "near")
        behind.reply = streaming(
            piece({"content": "H"}), piece({"content": "i"}, reason="stop"), piece(usage=USAGE), DONE
        )
        answer = server.post(CHAT, model="near", messages=HELLO, stream=True)
        line = server.logged(answer.headers["x-request-id"])
        assert (line["prompt_tokens"], line["cached_tokens"], line["new_tokens"]) == (9, 2, 4)
        assert line["first_token_ms"] > 0
        assert line["replies"] == ["Hi"]
        figures = server.get("/metrics").body.decode()
    assert behind.seen[0][1]["traceparent"] == trace
    assert "glasshouse_prompt_tokens_total 16.0" in figures
    assert "glasshouse_new_tokens_total 6.0" in figures
    assert 'glasshouse_requests_total{route="/v1/chat/completions",status="200"} 2.0' in figures
    told = json.loads(spans.read_text().splitlines()[0])
    assert told["parent_id"] == "0x00f067aa0ba902b7"
    assert told["attributes"]["gen_ai.usage.output_tokens"] == 2
    assert told["attributes"]["gen_ai.request.temperature"] == 0.5
    assert told["attributes"]["gen_ai.request.max_tokens"] == 3


def test_draining_refuses_new_work_and_the_end_breaks_off_what_runs(behind):
    begun, go = threading.Event(), threading.Event()
    behind.reply = streaming(piece({"content": "Hi"}), begun.set, lambda: go.wait(20))
    with in_front(behind.url) as server:
        answers: list[Any] = []
        ask = lambda: answers.append(server.post(CHAT, model="near", messages=HELLO, stream=True))  # noqa: E731
        thread = threading.Thread(target=ask)
        thread.start()
        assert begun.wait(20)
        server.service.draining = True
        assert server.get("/readyz").status == 503
        assert server.post(CHAT, model="near", messages=HELLO).status == 503
        asyncio.run_coroutine_threadsafe(server.service.close(), server._server.servers[0].get_loop()).result(
            20
        )
        thread.join(20)
        assert answers[0].events[-1][1]["error"]["code"] == "upstream_broken"
    go.set()


def test_the_documentation_names_the_model_and_leaves_out_what_is_not_there(proxy):
    document = proxy.get("/openapi.json").json
    assert document["components"]["schemas"]["PassedOn"]["properties"]["model"]["enum"] == ["near"]
    assert CHAT in document["paths"]
    assert "/tokenize" not in document["paths"]
    assert proxy.get("/docs").status == 200


@pytest.mark.parametrize(
    "address",
    ["ftp://host/v1", "http://", "http://user:hidden-word@host/v1", "http://[::1/v1", "http://h/v1?a=b"],
)
def test_addresses_that_cannot_be_asked(address):
    with pytest.raises(UsageError) as told:
        Upstream(address)
    assert "hidden-word" not in str(told.value)


# The command


def test_the_command_stands_in_front_and_ends_on_sigterm(server):
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "THEIR_KEY": SECRET}
    command = [sys.executable, "-c", "from glasshouse.cli import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, f"{server.url}/v1#tiny", "--port", "0", "--name", "near", "--upstream-key", "THEIR_KEY"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        assert f"serves near: in front of {server.url}/v1" in greeting
        connection = HTTPConnection("127.0.0.1", int(greeting.split()[0].rsplit(":", 1)[1]), timeout=60)
        body = json.dumps({"model": "near", "messages": HELLO, "max_tokens": 4, "ignore_eos": True})
        connection.request("POST", CHAT, body, {"content-type": "application/json"})
        assert json.loads(connection.getresponse().read())["usage"]["completion_tokens"] == 4
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert SECRET not in greeting + out + err
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("http://h/v1#m", "--upstream-key", SECRET), "names no environment variable"),
        (("http://h/v1#m", "--adapter", "a=b"), "a matter of the server that runs the model"),
        (("http://h/v1#m", "--set", "engine.queue_limit=3"), "a matter of the server"),
        (("http://h/v1", "--name", "x"), "say which"),
        (("somewhere", "--upstream-key", "KEY"), "--upstream-key is for another server's model"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments, "--port", "0"])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in " ".join(told.split())
    assert SECRET not in told
