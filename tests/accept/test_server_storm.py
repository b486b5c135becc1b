"""A thousand clients that behave badly, one server that goes on answering."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from glasshouse.model import ModelConfig, initialise, save
from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.accept

CLIENTS, AT_ONCE = 1000, 32
PATIENCE = 120
"""Seconds after which a client that got no answer counts as hanging: no limit on speed."""

CHAT = {"model": "model", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 200}
ABSURD = (
    {"max_tokens": 10**18},
    {"max_tokens": -1},
    {"n": 10**9},
    {"temperature": 1e308},
    {"top_logprobs": 10**9, "logprobs": True},
    {"logit_bias": {str(10**30): 5}},
    {"logit_bias": {str(i): 1 for i in range(100_000)}},
    {"stop": ["x"] * 100_000},
    {"seed": 10**300},
    {"messages": []},
    {"messages": [{"role": "user", "content": "word " * 300_000}]},
    {"messages": [{"role": "user", "content": ["x"] * 1000}]},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "nonsense"}},
        }
    },
    {"tools": [{"type": "function", "function": {"name": "x" * 100_000}}]},
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`glasshouse serve` on a small model that never says it is done: (process id, port)."""
    tokenizer = Tokenizer.train(["to be or not to be"] * 4, 300)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=128, num_hidden_layers=2
    )
    folder = tmp_path_factory.mktemp("storm") / "model"
    save(initialise(config, seed=0), tokenizer, folder)
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    line = [sys.executable, "-c", code, "serve", str(folder), "--port", "0"]
    log = folder.parent / "log"
    with log.open("w") as out:
        process = subprocess.Popen(line, stdout=out, stderr=out)
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield process.pid, int(found[1])
    process.terminate()
    assert process.wait(60) == 0
    assert "traceback" not in log.read_text().lower()


def request(path: str, body: bytes, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


async def status(reader: asyncio.StreamReader) -> int | None:
    """The answer's status; None where the server hung up without one."""
    line = await asyncio.wait_for(reader.readline(), PATIENCE)
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else None


async def leave_mid_stream(reader, writer, rng) -> int | None:
    writer.write(request("/v1/chat/completions", json.dumps(CHAT | {"stream": True}).encode()))
    answer = await status(reader)
    await asyncio.wait_for(reader.read(rng.randrange(1, 2000)), PATIENCE)
    return answer


async def leave_before_the_reply(reader, writer, rng) -> None:
    writer.write(request("/v1/chat/completions", json.dumps(CHAT).encode()))
    await writer.drain()
    await asyncio.sleep(rng.random() / 10)


async def send_half_a_body(reader, writer, rng) -> None:
    body = json.dumps(CHAT).encode()
    writer.write(request("/v1/messages", body[: rng.randrange(len(body))], len(body)))
    await writer.drain()


async def send_100_mb(reader, writer, rng) -> int | None:
    size, piece = 100_000_000, b" " * 2**16
    writer.write(request("/v1/chat/completions", b"", size))
    answer = asyncio.create_task(status(reader))
    for _ in range(size // len(piece)):
        if answer.done():
            break
        writer.write(piece)
        await writer.drain()
    return await answer


async def ask_for_absurd_sizes(reader, writer, rng) -> int | None:
    path = rng.choice(
        ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/embeddings", "/tokenize"]
    )
    writer.write(request(path, json.dumps(CHAT | rng.choice(ABSURD)).encode()))
    return await status(reader)


async def nest_deeply(reader, writer, rng) -> int | None:
    depth = rng.choice([1000, 100_000])
    writer.write(request("/v1/chat/completions", b'{"messages": ' + b"[" * depth + b"]" * depth + b"}"))
    return await status(reader)


async def send_noise(reader, writer, rng) -> int | None:
    writer.write(rng.choice([rng.randbytes(500) + b"\r\n\r\n", request("/v1/messages", rng.randbytes(500))]))
    return await status(reader)


BEHAVIOURS = (
    (leave_mid_stream, 30),
    (leave_before_the_reply, 25),
    (send_half_a_body, 20),
    (ask_for_absurd_sizes, 15),
    (nest_deeply, 4),
    (send_noise, 4),
    (send_100_mb, 2),
)


async def misbehave(port: int, number: int, gate: asyncio.Semaphore, answers: list[tuple[str, int]]) -> None:
    rng = random.Random(number)
    behaviour = rng.choices(*zip(*BEHAVIOURS, strict=True))[0]
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            answer = await behaviour(reader, writer, rng)
            if answer is not None:
                answers.append((behaviour.__name__, answer))
        except ConnectionError:
            pass  # the server may hang up on such clients
        finally:
            writer.transport.abort()


async def storm(port: int) -> list[tuple[str, int]]:
    gate, answers = asyncio.Semaphore(AT_ONCE), []
    await asyncio.gather(*(misbehave(port, number, gate, answers) for number in range(CLIENTS)))
    return answers


def fetch(port: int, path: str, body: dict | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
        return reply.read().decode()


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def pages_in_use(port: int) -> float:
    found = re.search(r"^\S*pages_in_use\S* (\S+)$", fetch(port, "/metrics"), re.MULTILINE)
    assert found is not None
    return float(found[1])


def timed_reply(port: int) -> float:
    start = time.perf_counter()
    reply = json.loads(fetch(port, "/v1/chat/completions", CHAT | {"max_tokens": 20}))
    assert reply["choices"][0]["finish_reason"] in {"length", "stop"}
    return time.perf_counter() - start


def test_a_thousand_bad_clients_leave_a_server_that_answers(server):
    pid, port = server
    before = [timed_reply(port) for _ in range(5)]
    memory = resident_mib(pid)
    answers = asyncio.run(storm(port))
    after = [timed_reply(port) for _ in range(5)]
    print(f"\na reply took {sorted(before)[2]:.3f} s before and {sorted(after)[2]:.3f} s after the storm")
    print(f"memory {memory:.0f} MiB before and {resident_mib(pid):.0f} MiB after")
    assert not [answer for answer in answers if answer[1] >= 500]
    assert {code for name, code in answers if name == "send_100_mb"} <= {413}
    assert pages_in_use(port) == 0
    assert resident_mib(pid) < memory + 200  # no 100 MB body was kept
