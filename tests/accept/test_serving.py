"""A thousand hostile clients against a server process: it answers before, meanwhile and afterwards as ever.

python -m pytest -m accept tests/accept/test_serving.py -s
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import psutil
import pytest
from tests.server.conftest import make_model

from glasshouse.model import save

pytestmark = pytest.mark.accept

CLIENTS = 1000
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[int, psutil.Process]]:
    folder = tmp_path_factory.mktemp("served")
    model = make_model(context=1024)
    save(model.model, model.tokenizer, folder / "model")
    command = [sys.executable, "-c", "from glasshouse.cli import main; main()"]
    options = ["--port", "0", "--name", "tiny", "--set", "body_timeout=20", "--set", "engine.queue_limit=32"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "serve", str(folder / "model"), *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[0].rsplit(":", 1)[1])
            yield port, psutil.Process(process.pid)
            failures = [
                line for line in Path(folder / "log").read_text().splitlines() if '"traceback"' in line
            ]
            assert not failures, failures[:3]
        finally:
            process.terminate()
            assert process.wait(60) == 0


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def head(length: int, path: str = "/v1/chat/completions") -> bytes:
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    )
    return "\r\n".join([*lines, "", ""]).encode()


def leave_a_stream(port: int) -> None:
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 900, "ignore_eos": True}).encode()
    with connect(port) as connection:
        connection.sendall(head(len(body)) + body)
        connection.recv(512)


def leave_half_a_body(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(head(10_000) + b'{"model": "tiny", "mess')


def send_a_hundred_megabytes(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(head(100 * 2**20))
        try:
            for _ in range(100):
                connection.sendall(b"x" * 2**20)
        except OSError:
            return  # refused and closed, as it should be


def ask_for_the_absurd(port: int) -> None:
    bodies = (
        {**HELLO, "max_tokens": 10**18},
        {**HELLO, "n": 10**9},
        {**HELLO, "messages": HELLO["messages"] * 20_000},
        {**HELLO, "messages": [{"role": "user", "content": "x" * 2_000_000}]},
        {**HELLO, "logit_bias": {str(10**8): 1}},
    )
    for body in bodies:
        assert ask(port, json.dumps(body).encode())[0] == 400
    assert ask(port, b"[" * 1_000_000)[0] == 400


def ask(port: int, body: bytes) -> tuple[int, float]:
    """Status, and seconds."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            response.read()
            return response.status, time.perf_counter() - start
    except urllib.error.HTTPError as error:
        return error.code, time.perf_counter() - start


def usual(port: int) -> float:
    """Median seconds of a short reply."""
    body = json.dumps({**HELLO, "max_tokens": 8, "temperature": 0}).encode()
    answers = [ask(port, body) for _ in range(30)]
    assert {status for status, _ in answers} == {200}
    return median(seconds for _, seconds in answers)


def figure(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


def test_a_thousand_hostile_clients_leave_a_server_that_answers(served):
    port, process = served
    before = usual(port)
    kinds = [leave_a_stream, leave_half_a_body, ask_for_the_absurd, send_a_hundred_megabytes]
    shares = (0.5, 0.38, 0.1, 0.02)
    work = [kind for kind, share in zip(kinds, shares, strict=True) for _ in range(int(CLIENTS * share))]
    for kind in kinds:  # warm: compiled grammars, thread stacks, caches
        kind(port)
    memory = process.memory_info().rss
    with ThreadPoolExecutor(32) as crowd:
        for done in [crowd.submit(kind, port) for kind in work]:
            done.result()
    for _ in range(600):
        if not any(figure(port, f"glasshouse_{name}") for name in ("running", "waiting", "pages_in_use")):
            break
        time.sleep(0.1)
    assert figure(port, "glasshouse_pages_in_use") == 0
    assert figure(port, "glasshouse_open_requests") == 1  # the one for these figures
    after = usual(port)
    grown = process.memory_info().rss - memory
    print(
        f"\na short reply: {before * 1e3:.1f} ms before, {after * 1e3:.1f} ms after; {grown / 2**20:+.0f} MiB"
    )
    assert grown < 100 * 2**20
