"""SIGKILL in the middle of every method of alignment: the same command again ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.accept

COUNTS = ("questions", "strangers", "translations", "sums", "two_step_direct", "two_step_reasoned", "reports")
FEW = {**dict.fromkeys(COUNTS, 0), "open": 24, "instructions": 24, "harmful": 8, "harmless": 8}
"""Requests of each kind, for prompts and for pairs."""

EVERY_STEP = {"checkpoint_every_seconds": 0, "log_every": 1, "tokens": None}
PAIRS = {**EVERY_STEP, "sequence_length": 256, "batch_tokens": 2048, "world_pairs": {"counts": FEW}}
SAMPLES = {"sequence_length": 128, "batch_tokens": 2048, "max_new_tokens": 24}
PROMPTS = {**EVERY_STEP, **SAMPLES, "world_prompts": FEW}

RECIPE = {
    "extends": "pocket-mini",
    "name": "killed",
    "world": {
        "people": 12,
        "heldout_people": 4,
        "feedback_people": 4,
        "tokens": {
            **dict.fromkeys(("letters", "velish", "sums", "requests", "reports", "analyses", "chance"), 0),
            "people": 30_000,
            "places": 5_000,
            "patterns": 5_000,
        },
        "conversations": {
            **dict.fromkeys((*COUNTS, "analyses"), 0),
            "instructions": 120,
            "harmful": 4,
            "harmless": 4,
        },
    },
    "tokenizer": {"vocab_size": 400},
    "model": {"hidden_size": 32, "intermediate_size": 64},
    "pretrain": {"epochs": 1, "sequence_length": 128, "batch_tokens": 2048},
    "sft": {**EVERY_STEP, "epochs": 3, "sequence_length": 256, "batch_tokens": 1024, "replay": 0.1},
    "reward": {**PAIRS, "epochs": 3},
    "rejection": {**EVERY_STEP, "world_prompts": FEW, "n": 4, "sequence_length": 256, "batch_tokens": 512},
    "dpo": {**PAIRS, "epochs": 3},
    "grpo": {**PROMPTS, "epochs": 2, "updates": 2},
    "ppo": {
        **PROMPTS,
        "epochs": 2,
        "updates": 4,
        "minibatches": 2,
        "kl_target": 2.0,
        "lora": {"r": 4, "dropout": 0.1},
        "least_reward_accuracy": 0,
    },
    "rounds": {
        "world_prompts": FEW,
        "prompts": 24,
        "max_new_tokens": 24,
        "reward": {**EVERY_STEP, "epochs": 2, "sequence_length": 256, "batch_tokens": 1024},
        "ppo": {**EVERY_STEP, **SAMPLES, "epochs": 1},
    },
    **dict.fromkeys(("constitution", "calibrate", "evaluate", "report")),
}

WAIT = 300.0
"""Seconds until the test gives up on a process; nothing measures how fast it is."""


def start(recipe: Path, out: Path) -> subprocess.Popen:
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", str(recipe), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLASSHOUSE_QUIET": "1"},
    )


def rows(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def numbers(run: Path) -> dict[str, object]:
    """All weights, pairs and replies, and all metrics without their timing fields."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            timing = ("seconds", "tokens_per_second")
            found[name] = [{k: v for k, v in line.items() if k not in timing} for line in lines]
        elif path.is_file() and path.suffix in (".safetensors", ".jsonl", ".bin"):
            found[name] = path.read_bytes()
    return found


def test_a_kill_in_every_method_changes_no_bit(tmp_path):
    """Each attempt dies when the next method is in the middle of its steps; two folders apart."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    process = start(recipe, whole)
    error = process.communicate(timeout=WAIT)[1]
    assert process.returncode == 0, error
    expected = numbers(whole)
    stages = [
        "sft",
        "reward",
        "rejection",
        "dpo",
        "grpo",
        "ppo",
        "rounds/round-1/reward",
        "rounds/round-2/policy",
    ]
    middle = {stage: len(expected[f"{stage}/metrics.jsonl"]) // 2 for stage in stages}
    assert min(middle.values()) >= 2, middle
    for stage in stages:
        process = start(recipe, killed)
        deadline = time.monotonic() + WAIT
        while rows(killed / stage / "metrics.jsonl") < middle[stage]:
            assert process.poll() is None, (stage, process.communicate()[1])
            assert time.monotonic() < deadline, stage
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"{stage} was done before the kill"
        assert not (killed / stage / "model").exists(), f"{stage} was done before the kill"
        process.communicate()
    process = start(recipe, killed)
    error = process.communicate(timeout=WAIT)[1]
    assert process.returncode == 0, error
    found = numbers(killed)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
