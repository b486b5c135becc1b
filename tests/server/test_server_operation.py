"""Health, metrics, logs, spans, documentation, draining."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.server.conftest import serving

from glasshouse.core.errors import ConfigError
from glasshouse.model import save

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "a secret question"}]


def test_readiness_turns_while_draining_and_new_work_is_refused(model):
    with serving(model) as server:
        assert server.get("/readyz").json == {"status": "ok"}
        server.service.draining = True
        assert server.get("/readyz").status == 503
        assert server.get("/healthz").status == 200
        told = server.post(CHAT, messages=HELLO)
        assert (told.status, told.error["code"]) == (503, "shutting_down")
        assert "retry-after" in told.headers
        told = server.post("/v1/messages", messages=HELLO, max_tokens=1)
        assert told.error["type"] == "overloaded_error"


def test_sigterm_lets_a_running_stream_end_and_the_process_leave_with_0(model, tmp_path):
    save(model.model, model.tokenizer, tmp_path / "model")
    command = [sys.executable, "-c", "from glasshouse.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "serve", str(tmp_path / "model"), "--port", "0", "--name", "tiny"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[0].rsplit(":", 1)[1])
        from http.client import HTTPConnection

        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        body = {"model": "tiny", "prompt": [30], "max_tokens": 250, "stream": True, "ignore_eos": True}
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        response.readline()
        process.send_signal(signal.SIGTERM)
        assert response.read().endswith(b"data: [DONE]\n\n")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_metrics_count_requests_by_their_route_and_the_engines_tokens(model):
    with serving(model) as server:
        before = figures(server)
        server.post(CHAT, messages=HELLO, max_tokens=7, ignore_eos=True)
        server.get("/a/path/of/a/stranger")
        for _ in range(200):  # the engine counts a token after it was told
            after = figures(server)
            if after["glasshouse_new_tokens_total"] == before["glasshouse_new_tokens_total"] + 7:
                break
    label = 'glasshouse_requests_total{route="/v1/chat/completions",status="200"}'
    assert after[label] == before.get(label, 0) + 1
    assert after["glasshouse_new_tokens_total"] == before["glasshouse_new_tokens_total"] + 7
    assert after['glasshouse_requests_total{route="other",status="404"}'] == 1
    assert not any("stranger" in name for name in after)
    assert after['glasshouse_first_token_seconds_count{route="/v1/chat/completions"}'] == 1


def figures(server) -> dict[str, float]:
    lines = server.get("/metrics").body.decode().splitlines()
    return {name: float(value) for name, value in (ln.rsplit(" ", 1) for ln in lines if ln[:1] != "#")}


def test_a_line_of_the_log_says_what_was_done_and_not_what_was_said(server):
    answer = server.post(CHAT, messages=HELLO, max_tokens=3, ignore_eos=True)
    line = server.logged(answer.headers["x-request-id"])
    assert line["new_tokens"] == 3
    assert line["finish_reasons"] == ["length"]
    assert line["status"] == 200
    assert line["prompt_tokens"] == answer.json["usage"]["prompt_tokens"]
    assert "secret" not in json.dumps(line)


def test_what_was_said_is_logged_where_asked_for(model):
    with serving(model, log_content=True) as server:
        answer = server.post(CHAT, messages=HELLO, max_tokens=3)
        line = server.logged(answer.headers["x-request-id"])
        assert line["messages"] == HELLO
        assert line["replies"] == [answer.json["choices"][0]["message"]["content"]]
        answer = server.post("/v1/messages", messages=HELLO, max_tokens=3)
        assert server.logged(answer.headers["x-request-id"])["messages"] == HELLO


def test_a_failure_of_our_own_is_a_500_that_tells_no_more_than_its_id(model, caplog):
    with serving(model) as server:
        server.service.engine.close()
        told = server.post(CHAT, messages=HELLO)
        assert told.status == 500
        assert told.error["type"] == "server_error"
        assert told.headers["x-request-id"] in told.error["message"]
        assert "engine" not in told.error["message"]
        assert server.post("/v1/messages", messages=HELLO, max_tokens=1).error["type"] == "api_error"
    (record, _) = caplog.records
    assert "the engine is closed" in str(record.exc_info[1])


def test_a_client_that_left_is_a_499_in_the_log(server):
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", server.port)
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "n": 8, "ignore_eos": True}
    connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
    connection.close()
    for _ in range(1000):
        if '"status": 499' in server.log.getvalue():
            return
        server.get("/healthz")
    raise AssertionError("no line says that a client left")


def test_spans_have_the_names_of_the_genai_conventions(model, tmp_path):
    file = tmp_path / "spans.jsonl"
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with serving(model, traces=str(file)) as server:
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 4, "temperature": 0.5, "ignore_eos": True}
        server.ask("POST", CHAT, body, {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        server.ask("POST", "/v1/embeddings", {"model": "tiny", "input": "x"})
    chat, embeddings = (json.loads(line) for line in file.read_text().splitlines())
    assert chat["name"] == "chat tiny"
    assert chat["context"]["trace_id"] == f"0x{trace}"
    assert chat["parent_id"] == "0x00f067aa0ba902b7"
    told = chat["attributes"]
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "tiny"
    assert told["gen_ai.request.temperature"] == 0.5
    assert told["gen_ai.usage.output_tokens"] == 4
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert embeddings["name"] == "embeddings tiny"
    assert "secret" not in file.read_text()


def test_a_file_for_spans_that_cannot_be_written_is_a_clear_error(model, tmp_path):
    with pytest.raises(ConfigError, match="spans"), serving(model, traces=str(tmp_path / "no" / "file")):
        pass


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "action") and value]


def test_the_documentation_loads_nothing_from_elsewhere(server):
    page = server.get("/docs")
    links = _Links()
    links.feed(page.body.decode())
    assert [link for link in links.found if not link.startswith("#")] == ["openapi.json"]
    for link in links.found[1:]:
        assert f'id="{link[1:]}"' in page.body.decode(), link
    assert "script" not in links.tags
    assert "@import" not in page.body.decode()
    assert server.get("/redoc").status == 404


def test_the_openapi_document_names_models_limits_and_failures(server):
    document = server.get("/openapi.json").json
    schemas = document["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"]["model"]["enum"] == ["tiny"]
    assert "HTTPValidationError" not in schemas
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            assert "422" not in operation["responses"]
            if verb == "post":
                assert {"400", "401", "403", "413", "429", "503"} <= set(operation["responses"]), path
    tokens = schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]
    assert (tokens["minimum"], tokens["maximum"]) == (0, 319)
    assert "security" not in document["paths"]["/v1/messages"]["post"]  # this server has no keys
    assert "text/event-stream" in document["paths"]["/v1/messages"]["post"]["responses"]["200"]["content"]


def test_importing_the_server_needs_no_model():
    code = "import sys, glasshouse.cli; glasshouse.cli.main(['serve', '--help'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0
    assert "glasshouse serve runs/pocket" in told.stdout


def test_an_open_address_without_keys_is_refused_before_the_model_is_read(tmp_path):
    command = [sys.executable, "-c", "from glasshouse.cli import main; main()"]
    env = {name: value for name, value in os.environ.items() if name != "GLASSHOUSE_API_KEYS"}
    told = subprocess.run(
        [*command, "serve", str(Path(tmp_path)), "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert told.returncode == 2
    assert "no API key is set" in told.stderr
