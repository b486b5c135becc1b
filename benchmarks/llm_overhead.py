"""What our layers add to a call, beside the bare SDK and LiteLLM's: a local server that answers at once.

    python benchmarks/llm_overhead.py [--litellm PYTHON] [--rounds 5] [--calls 300] [--at-once 32]

One after the other in every round: OpenAI's own asynchronous SDK; our backend alone; our backend in all
layers (Monitor with its log and Prometheus, Cache without a hit, Fallback, Fit, Retry, Budget, Batch); and
LiteLLM's SDK where `--litellm` names the Python of an environment that has it. Of each the median time of one
call after the other, and calls a second with many at once. Medians over the rounds, and the time of
`import glasshouse` in processes of its own. Writes results/llm_overhead.json.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from glasshouse.core.devices import machine

HERE = Path(__file__).parent
WORDS = "Is it so? " * 20
MESSAGES = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": WORDS}]

SERVER = """
import asyncio, json
reply = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
         "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 60, "completion_tokens": 2, "total_tokens": 62}}
body = json.dumps(reply).encode()
head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n"
answer = head % len(body) + body

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\\r\\n")
                          if line.startswith(b"content-length"))
            await reader.readexactly(length)
            writer.write(answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

LITELLM = """
import asyncio, json, os, statistics, sys, time
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
began = time.perf_counter()
import litellm
imported = time.perf_counter() - began
url, calls, at_once, messages = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])

async def one(number):
    await litellm.acompletion(model="openai/m", api_base=url, api_key="x", messages=messages, max_tokens=16,
                              seed=number)

async def main():
    for number in range(20):
        await one(number)
    times = []
    for number in range(calls):
        began = time.perf_counter()
        await one(number)
        times.append(time.perf_counter() - began)
    places = asyncio.Semaphore(at_once)
    async def placed(number):
        async with places:
            await one(number)
    began = time.perf_counter()
    await asyncio.gather(*(placed(number) for number in range(3 * calls)))
    rate = 3 * calls / (time.perf_counter() - began)
    print(json.dumps({"ms": 1000 * statistics.median(times), "per_second": rate, "import_s": imported}))

asyncio.run(main())
"""


async def measure(ask: Callable[[int], Awaitable[object]], calls: int, at_once: int) -> dict[str, float]:
    """The median of one call after the other, in ms, and calls a second with `at_once` of them open."""
    for number in range(20):
        await ask(number)
    times = []
    for number in range(calls):
        began = time.perf_counter()
        await ask(1000 + number)
        times.append(time.perf_counter() - began)
    places = asyncio.Semaphore(at_once)

    async def placed(number: int) -> None:
        async with places:
            await ask(number)

    began = time.perf_counter()
    await asyncio.gather(*(placed(10_000 + number) for number in range(3 * calls)))
    return {"ms": 1000 * statistics.median(times), "per_second": 3 * calls / (time.perf_counter() - began)}


async def bare(url: str, calls: int, at_once: int) -> dict[str, float]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key="x", max_retries=0)

    async def ask(number: int) -> object:
        return await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=16, seed=number)  # pyright: ignore[reportArgumentType, reportCallIssue]

    found = await measure(ask, calls, at_once)
    await client.close()
    return found


async def ours(url: str, calls: int, at_once: int, layers: bool) -> dict[str, float]:
    from glasshouse.llm import Request, open_llm

    llm = open_llm(f"{url}#m")
    with tempfile.TemporaryDirectory() as folder:
        if layers:
            llm = wrapped(llm, Path(folder), at_once)

        async def ask(number: int) -> object:
            return await llm.complete(Request(messages=tuple(MESSAGES), max_new_tokens=16, seed=number))

        found = await measure(ask, calls, at_once)
        await llm.close()
    return found


def wrapped(llm, folder: Path, at_once: int):
    """All layers in their default order."""
    from glasshouse.llm import (
        Batch,
        Budget,
        Cache,
        CallLog,
        Fallback,
        Fit,
        Limits,
        Monitor,
        Prices,
        Retry,
        Spending,
    )
    from glasshouse.llm.monitoring.prometheus import PrometheusMetrics

    prices = Prices({"m": {"input": 0.1, "output": 0.2}})
    llm = Budget(Batch(llm, at_once), Spending(Limits(dollars=1000.0)), prices)
    llm = Cache(Fallback([Fit(Retry(llm), context=8192)]), folder / "cache.sqlite")
    return Monitor(llm, CallLog(folder / "calls.sqlite"), PrometheusMetrics())


def imports() -> float:
    """Seconds of `import glasshouse`, the median of seven processes, Python's own start apart."""
    code = "import time; t = time.perf_counter(); import glasshouse; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(7)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--litellm", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=32)
    given = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    rounds: dict[str, list[dict[str, float]]] = {}
    try:
        for _ in range(given.rounds):
            for name, work in {
                "bare SDK": lambda: bare(url, given.calls, given.at_once),
                "backend": lambda: ours(url, given.calls, given.at_once, layers=False),
                "all layers": lambda: ours(url, given.calls, given.at_once, layers=True),
            }.items():
                rounds.setdefault(name, []).append(asyncio.run(work()))
            if given.litellm:
                line = [
                    given.litellm,
                    "-c",
                    LITELLM,
                    url,
                    str(given.calls),
                    str(given.at_once),
                    json.dumps(MESSAGES),
                ]
                done = subprocess.run(line, capture_output=True, text=True, check=True)
                rounds.setdefault("LiteLLM", []).append(json.loads(done.stdout.splitlines()[-1]))
    finally:
        server.terminate()
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("openai", "glasshouse-lm")},
        "rounds": rounds,
        "import_glasshouse_s": imports(),
    }
    for name, figures in rounds.items():
        for key in ("ms", "per_second"):
            against = [mine[key] / base[key] for mine, base in zip(figures, rounds["bare SDK"], strict=True)]
            values = [each[key] for each in figures]
            print(
                f"{name:12} {key:10} {statistics.median(values):9.2f}  x bare "
                f"{statistics.median(against):.3f} ({min(against):.3f} to {max(against):.3f})"
            )
    added = [
        all_["ms"] - base["ms"] for all_, base in zip(rounds["all layers"], rounds["bare SDK"], strict=True)
    ]
    print(f"all layers add {statistics.median(added):.2f} ms a call ({min(added):.2f} to {max(added):.2f})")
    print(f"import glasshouse {result['import_glasshouse_s']:.3f} s")
    (HERE / "results" / "llm_overhead.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
