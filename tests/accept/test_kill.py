"""Twenty kills at random moments of pocket-mini: the same command again ends with the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.accept

KILLS = 20


def start(out: Path) -> subprocess.Popen:
    settings = ["--set=pretrain.checkpoint_every_seconds=1", "--set=sft.checkpoint_every_seconds=0.2"]
    line = ["run", "pocket-mini", "--out", str(out), "--set=name=killed", *settings]
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def numbers(run: Path) -> dict[str, object]:
    """All weights, corpora, probes and replies, and all metrics without their timing fields."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            timing = ("seconds", "tokens_per_second")
            found[name] = [{k: v for k, v in row.items() if k not in timing} for row in rows]
        elif path.is_file() and (
            path.suffix in (".safetensors", ".zst", ".bin")
            or (name.startswith(("evaluation/", "tokenizer/")) and path.name != "stage.json")
        ):
            found[name] = path.read_bytes()
    return found


def finish(out: Path) -> float:
    """Run to the end; returns the seconds it took."""
    began = time.monotonic()
    process = start(out)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    return time.monotonic() - began


def test_twenty_kills_change_no_bit(tmp_path):
    """Each attempt may work for a random part of what a whole run needs, then dies by SIGKILL.

    Two folders apart, so that neither run can take stages from the other.
    """
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    needed = finish(whole)
    rng = random.Random(20261120)
    kills = 0
    while kills < KILLS:
        process = start(killed)
        try:
            error = process.communicate(timeout=rng.uniform(1.0, max(4.0, needed / 6)))[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        # It finished early: the remaining kills hit a run that begins anew.
        assert process.returncode == 0, error
        assert numbers(killed) == numbers(whole)
        killed = tmp_path / f"killed{kills}" / "run"
    finish(killed)
    assert numbers(killed).keys() == numbers(whole).keys()
    assert [name for name, value in numbers(killed).items() if value != numbers(whole)[name]] == []
