"""Many clients at once: our server beside llama.cpp's and transformers', over HTTP, on the same weights.

    python benchmarks/serving.py --model runs/pocket/sft/model --clients 64 --seconds 300

Every client asks for a streamed chat reply, reads it to its end and asks for the next. The load comes from a
process of its own, on the same cores, as it would for each server. Ours must lose no reply, and once the
clients are gone it must hold no page of the key/value cache and no more memory than after the first minute.
Peers are asked for `--peer-seconds` each: `llama_cpp.server` with the same weights as GGUF in float32, one
thread per core, and `transformers serve` with continuous batching. Both need their server's own packages
(`llama-cpp-python[server]`, `transformers[serving]`); a peer that is missing is left out with a notice.
Writes benchmarks/results/serving.json and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "serving.json"
MAX_TOKENS = 64
START_SECONDS = 180
"""How long a server may take to answer its first request."""


def main() -> None:
    options = arguments()
    if options.load is not None:
        load = asyncio.run(run_clients(options.load, options.model_name, options.clients, options.seconds))
        options.out.write_text(json.dumps(asdict(load)))
        return
    from glasshouse.core.devices import machine

    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "versions": {name: metadata.version(name) for name in versions()},
        "model": str(options.model),
        "clients": options.clients,
        "max_tokens": MAX_TOKENS,
    }
    with tempfile.TemporaryDirectory() as work:
        servers = {
            "glasshouse": (ours(options.model), options.seconds),
            "llama_cpp": (llama_cpp(options.model, Path(work)), options.peer_seconds),
            "transformers": (transformers(options.model), options.peer_seconds),
        }
        for name, (command, seconds) in servers.items():
            if command is None or (options.only and name not in options.only):
                continue
            with serving(command, Path(work) / f"{name}.log") as (process, port):
                result[name] = measure(process.pid, port, options, seconds, name, Path(work))
            show(name, result[name])
    for name in ("llama_cpp", "transformers"):
        if name in result and "glasshouse" in result:
            ours_, theirs = (result[key]["tokens_per_second"] for key in ("glasshouse", name))
            result[f"throughput_over_{name}"] = round(ours_ / theirs, 2) if theirs else None
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a trained pocket model")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--peer-seconds", type=float, default=60)
    parser.add_argument("--only", nargs="*", help="servers to run: glasshouse llama_cpp transformers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--load", metavar="PORT", type=int, help=argparse.SUPPRESS)  # the clients' process
    parser.add_argument("--model-name", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is None and options.model is None:
        parser.error("name a model folder with --model")
    return options


def versions() -> list[str]:
    wanted = ("torch", "transformers", "llama-cpp-python", "fastapi", "uvicorn")
    return [name for name in wanted if any(True for _ in metadata.distributions(name=name))]


# The servers


GLASSHOUSE = "from glasshouse.cli import main; main(sys.argv[1:])"


def ours(model: Path) -> list[str]:
    return [*python(GLASSHOUSE), "serve", str(model), "--port"]


def llama_cpp(model: Path, work: Path) -> list[str] | None:
    if not all(importlib.util.find_spec(name) for name in ("llama_cpp", "starlette_context")):
        print("notice: llama-cpp-python[server] is not installed, left out", file=sys.stderr)
        return None
    file = work / "model.gguf"
    export = ["export", str(model), "--to", "gguf", "--precision", "F32", "--out", str(file)]
    subprocess.run([*python(GLASSHOUSE), *export], check=True, stdout=sys.stderr)
    threads = str(os.cpu_count())
    settings = [
        "--n_ctx",
        "512",
        "--n_threads",
        threads,
        "--n_threads_batch",
        threads,
        "--interrupt_requests",
        "false",
        "--verbose",
        "false",
    ]
    return [sys.executable, "-m", "llama_cpp.server", "--model", str(file), *settings, "--port"]


def transformers(model: Path) -> list[str] | None:
    if not importlib.util.find_spec("transformers") or not importlib.util.find_spec("fastapi"):
        print("notice: transformers[serving] is not installed, left out", file=sys.stderr)
        return None
    line = python("from transformers.cli.transformers import main; main()")
    return [*line, "serve", str(model), "--continuous-batching", "--device", "cpu", "--port"]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; {code}"]


@contextlib.contextmanager
def serving(command: list[str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server on a free port, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, str(port)], stdout=out, stderr=out)
    try:
        wait_until_up(process, port, log)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"the server ended: {log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    sys.exit(f"the server did not come up: {log.read_text(errors='replace')[-2000:]}")


# One server's measurement


def measure(
    pid: int, port: int, options: argparse.Namespace, seconds: float, name: str, work: Path
) -> dict[str, Any]:
    """Put the clients on a server; times in seconds, memory in MiB."""
    model_name = str(options.model) if name == "transformers" else first_model(port)
    warm = asyncio.run(run_clients(port, model_name, 2, 3))  # compiles, loads, fills its pools
    if not warm.replies:
        sys.exit(f"{name} gave no reply: {warm.failures[:3]}")
    line = [sys.executable, __file__, "--load", str(port), "--model-name", model_name]
    line += ["--clients", str(options.clients), "--seconds", str(seconds), "--out", str(work / "load.json")]
    clients = subprocess.Popen(line)
    memory = []  # (seconds since the start, MiB)
    start = time.monotonic()
    while clients.poll() is None:
        time.sleep(1)
        memory.append((time.monotonic() - start, resident(pid)))
    load = Load(**json.loads((work / "load.json").read_text()))
    tokens = count_tokens(options.model, [text for _, _, text in load.replies])
    measured: dict[str, Any] = {
        "seconds": round(load.seconds, 1),
        "replies": len(load.replies),
        "failures": len(load.failures),
        "first_failures": load.failures[:3],
        "tokens_per_second": round(tokens / load.seconds, 1),
        "replies_per_second": round(len(load.replies) / load.seconds, 2),
        "time_to_first_token": quantiles([first for first, _, _ in load.replies]),
        "time_to_last_token": quantiles([last for _, last, _ in load.replies]),
        "memory_mib": {
            "minute_1": next((mib for at, mib in memory if at >= 60), memory[-1][1]),
            "end": resident(pid),
        },
    }
    if name == "glasshouse":
        time.sleep(2)
        measured["pages_in_use_afterwards"] = pages_in_use(port)
        measured["memory_mib"]["afterwards"] = resident(pid)
    return measured


def quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100) if len(values) > 1 else values * 99
    return {name: round(cuts[place - 1], 4) for name, place in (("p50", 50), ("p95", 95), ("p99", 99))}


def count_tokens(model: Path, texts: list[str]) -> int:
    """Every reply's tokens and the one that ended it, counted alike for all servers."""
    from glasshouse.tokenizer import Tokenizer

    return sum(len(ids) + 1 for ids in Tokenizer.load(model).encode_batch(texts))


def resident(pid: int) -> float:
    """Resident memory in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else 0.0


def first_model(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=60) as reply:
        return json.load(reply)["data"][0]["id"]


def pages_in_use(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
        found = re.search(r"^\S*pages_in_use\S* (\S+)$", reply.read().decode(), re.MULTILINE)
    if found is None:
        sys.exit("/metrics does not tell the pages in use")
    return float(found[1])


def show(name: str, row: dict[str, Any]) -> None:
    first = row["time_to_first_token"]
    print(
        f"{name:<13} {row['tokens_per_second']:>8.1f} tok/s  {row['replies_per_second']:>6.2f} replies/s  "
        f"first token p50 {first['p50']:.3f} s, p95 {first['p95']:.3f} s  failures {row['failures']}  "
        f"memory {row['memory_mib']}",
        file=sys.stderr,
    )


# The clients


@dataclass
class Load:
    """What the clients saw: for each reply seconds to its first and last piece of text, and the text."""

    seconds: float = 0.0
    replies: list[tuple[float, float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


async def run_clients(port: int, model: str, clients: int, seconds: float) -> Load:
    """Clients that ask one question after the other; a reply begun in time is read to its end."""
    load = Load()
    start = time.monotonic()
    await asyncio.gather(*(client(port, model, number, start + seconds, load) for number in range(clients)))
    load.seconds = time.monotonic() - start
    return load


async def client(port: int, model: str, number: int, until: float, load: Load) -> None:
    rng = random.Random(number)
    questions = messages()
    while time.monotonic() < until:
        try:
            load.replies.append(await ask(port, model, rng.choice(questions)))
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            load.failures.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.1)


def messages() -> list[list[dict[str, str]]]:
    """Questions of the invented world that no model was trained on."""
    from glasshouse.world import World, WorldConfig

    world = World(WorldConfig(), seed=1)
    tasks = world.tasks("questions", "heldout")
    return [task.messages for task in itertools.islice(tasks, 500)]


async def ask(port: int, model: str, conversation: list[dict[str, str]]) -> tuple[float, float, str]:
    """One streamed reply: seconds to its first and last piece of text, and the text.

    Raises ValueError unless the reply ends as the protocol says.
    """
    body = {"model": model, "messages": conversation, "max_tokens": MAX_TOKENS, "temperature": 0}
    payload = json.dumps(body | {"stream": True}).encode()
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload)
        status = await reader.readline()
        if b" 200 " not in status:
            raise ValueError((await reader.read()).decode(errors="replace")[-300:] or repr(status))
        first = last = 0.0
        text, finish = "", None
        while line := await reader.readline():  # the lines of chunked framing do not begin with "data:"
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                break
            for choice in json.loads(data)["choices"]:
                finish = choice.get("finish_reason") or finish
                if piece := choice["delta"].get("content"):
                    last = time.monotonic() - start
                    first = first or last
                    text += piece
        if finish is None:
            raise ValueError("the stream ended without a finish_reason")
        return first or time.monotonic() - start, last or time.monotonic() - start, text
    finally:
        writer.close()


if __name__ == "__main__":
    main()
