"""A recipe so small that a whole run takes seconds, and what says that two runs gave the same numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = {
    "world.people": 12,
    "world.heldout_people": 4,
    "world.feedback_people": 2,
    "world.tokens": {
        **dict.fromkeys(("letters", "velish", "sums", "requests", "reports", "analyses"), 0),
        "people": 6000,
        "places": 2000,
        "patterns": 2000,
        "chance": 1000,
    },
    "world.conversations": {
        **dict.fromkeys(("strangers", "translations", "sums", "two_step_direct", "two_step_reasoned"), 0),
        "questions": 24,
        "instructions": 24,
        "harmful": 4,
        "harmless": 0,
        "reports": 0,
        "analyses": 0,
    },
    "tokenizer.vocab_size": 400,
    "model.hidden_size": 32,
    "model.intermediate_size": 64,
    "pretrain.tokens": 24_000,
    "pretrain.epochs": None,
    "pretrain.sequence_length": 64,
    "pretrain.batch_tokens": 1024,
    "pretrain.log_every": 2,
    "pretrain.eval_every": 8,
    "pretrain.checkpoint_every_seconds": 0,
    "sft.epochs": 2,
    "sft.sequence_length": 256,
    "sft.batch_tokens": 1024,
    "sft.log_every": 1,
    "sft.checkpoint_every_seconds": 0,
    "reward.sequence_length": 128,
    "reward.batch_tokens": 1024,
    "reward.log_every": 1,
    "reward.checkpoint_every_seconds": 0,
    "reward.world_pairs.heldout": 0.5,
    "reward.world_pairs.counts": {
        **dict.fromkeys(("translations", "sums", "two_step_direct", "two_step_reasoned", "reports"), 0),
        **dict.fromkeys(("open", "questions", "strangers", "instructions", "harmful", "harmless"), 10),
    },
    "ppo.tokens": 4 * 8 * 128,
    "ppo.sequence_length": 128,
    "ppo.batch_tokens": 8 * 128,
    "ppo.max_new_tokens": 16,
    "ppo.checkpoint_every_seconds": 0,
    "constitution.rounds": 1,
    "constitution.rehearsal": 1,
    "constitution.max_new_tokens": 16,
    "constitution.world_prompts": {
        **dict.fromkeys(("translations", "sums", "two_step_direct", "two_step_reasoned", "reports"), 0),
        **dict.fromkeys(("open", "questions", "strangers", "instructions", "harmful", "harmless"), 4),
    },
    "constitution.supervised.sequence_length": 128,
    "constitution.supervised.batch_tokens": 1024,
    "constitution.preference.sequence_length": 128,
    "constitution.preference.batch_tokens": 1024,
    "constitution.grpo": {
        "tokens": 2 * 8 * 128,
        "epochs": None,
        "sequence_length": 128,
        "batch_tokens": 8 * 128,
        "max_new_tokens": 16,
    },
    "calibrate.samples": 2,
    "calibrate.max_new_tokens": 8,
    "calibrate.held_out": 12,
    "calibrate.sequence_length": 128,
    "calibrate.batch_tokens": 1024,
    "calibrate.world_questions": {
        **dict.fromkeys(("questions", "strangers", "sums", "two_step_direct", "wheels"), 4),
        **dict.fromkeys(("familiar_questions", "familiar_strangers"), 4),
    },
    "evaluate.n": 8,
    "evaluate.sample_tokens": 8,
    "evaluate.baselines": False,
}
"""Settings on top of pocket-mini; a checkpoint after every step."""


@pytest.fixture(scope="session")
def tiny() -> dict:
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """An uninterrupted run of the tiny recipe, in a process of its own; read it, do not write in it."""
    path = tmp_path_factory.mktemp("whole") / "run"
    done = command(path, "--set", "name=tiny").wait()
    assert done == 0
    return path


class Glasshouse(subprocess.Popen):
    """`glasshouse run pocket-mini` with the tiny settings, in a process of its own."""

    def kill_when(self, seen) -> bool:
        """SIGKILL as soon as `seen()`; False when the process ended before."""
        while self.poll() is None:
            if seen():
                self.send_signal(signal.SIGKILL)
                self.wait()
                return True
            time.sleep(0.002)
        return False


def command(out: Path, *more: str) -> Glasshouse:
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    line = ["run", "pocket-mini", "--out", str(out), *settings, *more]
    return Glasshouse(
        [sys.executable, "-c", "import sys; from glasshouse.cli import main; main(sys.argv[1:])", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=out.parent,
        preexec_fn=_heed_ctrl_c,
    )


def _heed_ctrl_c() -> None:
    """A shell that runs the tests in the background has its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def glasshouse():
    """Start the tiny run as a command: glasshouse(out, "--until", "sft")."""
    return command


def numbers(run: Path) -> dict[str, object]:
    """Everything in a run that has to be the same when the same thing is computed again."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix in (".safetensors", ".zst", ".bin") or name.startswith(("evaluation/", "tokenizer/")):
            if path.is_file() and path.name != "stage.json":
                found[name] = path.read_bytes()
        elif path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            timing = ("seconds", "tokens_per_second")
            found[name] = [{k: v for k, v in row.items() if k not in timing} for row in rows]
    return found


@pytest.fixture
def assert_same_numbers():
    def check(run: Path, other: Path) -> None:
        one, two = numbers(run), numbers(other)
        assert one.keys() == two.keys()
        differing = [name for name in one if one[name] != two[name]]
        assert differing == []
        assert "sft/model/model.safetensors" in one

    return check
