"""Clients that mean no good, or leave: no 5xx, nothing held, and the next one is answered."""

from __future__ import annotations

import json
import socket
import time

import pytest
from tests.server.conftest import serving

from glasshouse.inference.engine import EngineSettings

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def strict(model):
    """Small limits, one text at a time, one that waits."""
    engine = EngineSettings(queue_limit=1, max_rows=1)
    with serving(model, engine=engine, body_limit=4096, body_timeout=1.0) as running:
        yield running


def at_rest(server) -> bool:
    """Whether nothing runs, waits or holds a page, within a moment."""

    def idle() -> bool:
        stats = server.service.engine.stats()
        return not (stats.running or stats.waiting or stats.pages_in_use or server.service.in_flight)

    return within(idle)


def within(condition) -> bool:
    """Whether it comes true before we lose patience."""
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.005)
    return False


def half(server, path: str, body: bytes, said: int | None = None) -> socket.socket:
    """A connection on which a request was begun."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    length = len(body) if said is None else said
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
    return connection


def long_request(**more) -> bytes:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "ignore_eos": True, **more}
    return json.dumps(body).encode()


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"model": "\xff"}',
    "half of a surrogate pair": b'{"model":"tiny","messages":[{"role":"user","content":"\\ud83e"}]}',
    "half of one in an unknown field": b'{"model":"tiny","messages":[],"\\udc00": 1}',
    "NaN": b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    "infinity": b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
    "thousands of digits": b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"n":'
    + b"9" * 5000
    + b"}",
    "a deep list": b"[" * 100_000,
    "a deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a deep schema": b'{"model":"tiny","messages":[],"tools":' + b"[" * 500 + b"]" * 500 + b"}",
    "a list": b"[]",
    "a text": b'"hello"',
    "null": b"null",
}


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/completions", "/v1/embeddings", "/tokenize"])
def test_a_bad_body_is_a_400_with_a_message(server, path, name):
    answer = server.ask("POST", path, BAD_BODIES[name])
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert len(answer.error["message"]) < 500


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [{"type": {}}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": []}, 5]}]}),
        (CHAT, {"messages": HELLO, "stop": {"a": 1}}),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function", "function": {"name": "a b"}}]}),
        (CHAT, {"messages": HELLO, "tool_choice": {"type": "function"}}),
        (CHAT, {"messages": HELLO, "logit_bias": {"-1": 1}}),
        (CHAT, {"messages": HELLO, "guided_json": "not json"}),
        (CHAT, {"messages": HELLO, "guided_grammar": "start: \x00"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "image"}]}], "max_tokens": 1}),
        ("/v1/messages", {"messages": [{"role": "assistant", "content": []}], "max_tokens": 1}),
        ("/v1/completions", {"prompt": [[]]}),
        ("/v1/completions", {"prompt": [1, "a"]}),
        ("/v1/completions", {"prompt": "x" * 1_000_000}),
        ("/v1/embeddings", {"input": "", "dimensions": 10**9}),
        ("/v1/embeddings", {"input": [True]}),
    ],
)
def test_a_body_of_the_wrong_shape_is_a_400(server, path, body):
    answer = server.post(path, **body)
    assert answer.status == 400
    assert answer.error["message"]


def test_whole_numbers_may_be_written_with_a_point(server):
    raw = b'{"model":"tiny","prompt":[30.0, 4e1],"max_tokens":2.0}'
    assert server.ask("POST", "/v1/completions", raw).status == 200


def test_a_message_without_content_is_read_as_empty(server):
    empty = [{"role": "user", "content": []}]
    assert server.post("/v1/messages", messages=empty, max_tokens=1).status == 200
    assert server.post(CHAT, messages=empty, max_tokens=1).status == 200


def test_a_body_of_another_type_is_a_400(server):
    answer = server.ask("POST", CHAT, b"model=tiny", {"content-type": "application/x-www-form-urlencoded"})
    assert answer.status == 400
    assert "application/json" in answer.error["message"]


def test_another_method_is_a_405_and_another_path_a_404(server):
    assert server.get(CHAT).status == 405
    assert server.ask("DELETE", "/v1/models").status == 405
    assert server.get("/v1/%2e%2e/etc").status == 404
    assert server.get("/v1/models/%00%ff").status == 404


def test_a_body_that_says_it_is_too_large_is_refused_unread(strict):
    connection = half(strict, CHAT, b"", said=10**9)
    assert b"413" in connection.recv(4096).split(b"\r\n")[0]


def test_a_body_that_turns_out_too_large_is_refused(strict):
    connection = socket.create_connection(("127.0.0.1", strict.port), timeout=20)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head.encode() + b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
    assert b"413" in connection.recv(4096).split(b"\r\n")[0]


def test_a_body_that_never_comes_is_a_408(strict):
    connection = half(strict, CHAT, b'{"model"', said=100)
    assert b"408" in connection.recv(4096).split(b"\r\n")[0]
    assert at_rest(strict)


def test_a_client_that_leaves_a_stream_frees_what_it_held(server):
    connection = half(server, CHAT, long_request(stream=True))
    assert b"200" in connection.recv(200)
    connection.close()
    assert at_rest(server)


def test_a_client_that_leaves_before_the_answer_frees_what_it_held(server):
    for path, body in [
        (CHAT, long_request()),
        ("/v1/messages", long_request()),
        ("/v1/completions", json.dumps({"model": "tiny", "prompt": ["x"] * 20, "max_tokens": 200}).encode()),
    ]:
        connection = half(server, path, body)
        time.sleep(0.05)
        connection.close()
        assert at_rest(server)


def test_many_who_leave_at_once_leave_a_server_that_answers(server):
    connections = [half(server, CHAT, long_request(stream=bool(i % 2))) for i in range(40)]
    connections += [half(server, CHAT, b'{"mod', said=1000) for _ in range(40)]
    for connection in connections:
        connection.close()
    assert at_rest(server)
    assert server.post(CHAT, messages=HELLO, max_tokens=2).status == 200


def test_a_full_queue_is_a_429_that_says_when_to_come_back(strict):
    connections = []
    for path, kind in ((CHAT, "rate_limit_error"), ("/v1/messages", "rate_limit_error")):
        connections += [half(strict, CHAT, long_request(stream=True, n=128)) for _ in range(3)]
        assert within(lambda: (stats := strict.service.engine.stats()).running and stats.waiting)
        answer = strict.post(path, messages=HELLO, max_tokens=200)
        assert (answer.status, answer.error["type"]) == (429, kind)
        assert int(answer.headers["retry-after"]) >= 1
    for connection in connections:
        connection.close()
    assert at_rest(strict)


def test_a_reply_that_takes_too_long_is_a_504_that_is_not_tried_again(model):
    with serving(model, request_timeout=0.001) as slow:
        answer = slow.ask("POST", CHAT, long_request(n=8))
        assert answer.status == 504
        assert answer.headers["x-should-retry"] == "false"
        told = slow.ask("POST", "/v1/messages", long_request(stream=True))
        assert told.status == 200
        name, data = told.events[-1]
        assert name == "error"
        assert data["error"]["type"] == "timeout_error"
        streamed = slow.ask("POST", CHAT, long_request(stream=True, n=8))
        assert "error" in streamed.events[-1][1]
        assert at_rest(slow)


def test_a_stream_that_must_wait_says_that_it_lives(model):
    with serving(model, engine=EngineSettings(max_rows=1), ping=0.05) as slow:
        first = half(slow, CHAT, long_request(stream=True, n=128))
        assert within(lambda: slow.service.engine.stats().running == 1)
        for path, sign in ((CHAT, b": ping"), ("/v1/messages", b"event: ping")):
            waiting = half(slow, path, long_request(stream=True))
            told = b""
            while told.count(sign) < 2:
                piece = waiting.recv(4096)
                assert piece, told
                told += piece
            assert b"content" not in told.split(b"\r\n\r\n", 1)[1]
            waiting.close()
        first.close()
        assert at_rest(slow)


def test_what_still_runs_when_the_time_to_drain_is_over_ends_with_an_error(model):
    with serving(model, engine=EngineSettings(max_rows=1)) as server:
        connection = half(server, CHAT, long_request(stream=True, n=128))
        assert b"200" in connection.recv(512)
        server.service.draining = True
        server.service.engine.close()
        told = b""
        while b'"code":"shutting_down"' not in told:
            piece = connection.recv(65536)
            assert piece, "the stream ended without an error"
            told += piece
        assert b"[DONE]" not in told
        assert at_rest(server)
