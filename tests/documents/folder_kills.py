"""A folder of reports whose analysis is killed again and again; a model on a socket counts the calls."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.llm.scripted_server import Asked, Reply, Wire

VOTES = 2
"""Calls for each document: some are half done when a kill comes."""

AT_ONCE = 4
SCHEMA = {"type": "object", "properties": {"revenue": {"type": "integer"}, "town": {"type": "string"}}}
TOWNS = ("Ostby", "Marn", "Tull", "Quay")

_REVENUE = re.compile(r"Revenue was \$(\d+) million")
_TOWN = re.compile(r"The seat is in (\w+)")


def write_reports(folder: Path, number: int) -> dict[str, dict[str, object]]:
    """What each document says, by its name."""
    truth: dict[str, dict[str, object]] = {}
    for n in range(number):
        name = f"{n % 10}/report-{n:04d}.txt"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        town = TOWNS[n % len(TOWNS)]
        path.write_text(f"Report {n}.\n\nRevenue was ${n + 7} million.\n\nThe seat is in {town}.\n")
        truth[name] = {"revenue": n + 7, "town": town}
    return truth


def say(asked: Asked) -> str:
    """What the document in a call says, as it was asked for."""
    text = json.dumps(asked.body["messages"])
    revenue, town = _REVENUE.findall(text)[-1], _TOWN.findall(text)[-1]  # examples stand before it
    value = {
        "revenue": {"quote": f"Revenue was ${revenue} million", "value": int(revenue)},
        "town": {"quote": f"The seat is in {town}", "value": town},
    }
    return json.dumps(value)


def model(wire: Wire, seconds: float = 0.02) -> None:
    """Replies as the documents say, after some time in which a kill may come."""
    wire.script(lambda asked: Reply(say(asked), seconds=seconds))


def start(tmp_path: Path, wire: Wire, *options: str) -> subprocess.Popen[str]:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    # Whoever runs the tests in the background has them ignore Ctrl-C, and children inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from glasshouse.cli import main; main(sys.argv[1:])"
    )
    line = ["analyze", "reports", "--task", "extraction", "--schema", "schema.json", "--domain", "general"]
    line += ["--votes", str(VOTES), "--at-once", str(AT_ONCE), "--model", f"{wire.url}/v1#m", *options]
    return subprocess.Popen(
        [sys.executable, "-c", code, *line],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_at_random(process: subprocess.Popen[str], wire: Wire, rng: random.Random, most: int) -> bool:
    """SIGKILL when the model has been asked some number of times more, or at a random moment before. False
    where it finished first."""
    until = len(wire.asked) + rng.randint(1, most)
    asked = rng.random() < 0.75
    moment = time.monotonic() + rng.uniform(0.0, 3.0)
    while len(wire.asked) < until and (asked or time.monotonic() < moment):
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.03))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def killed_and_restarted(tmp_path: Path, wire: Wire, reports: int, kills: int, seed: int) -> None:
    """After `kills` kills and a last run each document has its one result, and no reply was paid for twice
    that was not on its way when a kill came."""
    truth = write_reports(tmp_path / "reports", reports)
    model(wire)
    rng = random.Random(seed)
    most = max(2 * VOTES * reports // (kills + 1) - 1, 1)
    killed = 0
    for _ in range(kills):
        killed += kill_at_random(start(tmp_path, wire), wire, rng, most)
    last = start(tmp_path, wire)
    error = last.communicate()[1]
    assert last.returncode == 0, error
    assert killed >= kills * 3 // 4, f"only {killed} of {kills} kills came before the end"

    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    results = {row["document"]: row for row in map(json.loads, lines)}
    assert len(lines) == len(results) == reports, "each document once"
    assert {name: row["value"] for name, row in results.items()} == truth
    assert all(quote["status"] == "verbatim" for row in results.values() for quote in quotes(row))

    calls = Counter(json.dumps(asked.body, sort_keys=True) for asked in wire.chats())
    assert len(calls) == VOTES * reports, "every call is one that was needed"
    twice = sum(calls.values()) - len(calls)
    print(f"{reports} documents, {killed} kills, {sum(calls.values())} calls, {twice} of them again")
    assert twice <= killed * AT_ONCE, "more was paid twice than was open at the kills"

    before = len(wire.asked)
    again = start(tmp_path, wire)
    assert again.wait() == 0
    assert len(wire.asked) == before, "what is done is not asked again"


def quotes(row: dict) -> list[dict]:
    return [quote for field in row["fields"] for quote in field["quotes"]]
