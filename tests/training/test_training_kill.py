"""SIGKILL at random moments: the same call again ends with the same bits as an uninterrupted run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glasshouse.training.metrics import TIMING_FIELDS

KILLS = 6
SCRIPT = """
import os, pathlib, random, shutil, signal, sys, time
from tiny import Tiny

tiny = Tiny(pathlib.Path.cwd())
tiny.corpus()

def begin(out):
    '''Train in a process of its own, which begins with everything imported.'''
    pid = os.fork()
    if pid:
        return pid
    try:  # bfloat16 and evaluation as in earnest, and a checkpoint after every step
        tiny.train(out, tokens=60 * 64, log_every=7, dtype="bfloat16", eval_every=20, grad_clip=1.0,
                   evaluate=lambda model, step: {"val_loss": step / 7}, checkpoint_every_seconds=0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def finish(out):
    assert os.waitpid(begin(out), 0)[1] == 0

began = time.monotonic()
finish("whole")
duration = time.monotonic() - began
moments, killed = random.Random(int(sys.argv[2])), 0
while not killed:  # the machine was slower before, say, and the run is done before a kill strikes
    shutil.rmtree("parts", ignore_errors=True)
    for _ in range(int(sys.argv[1])):
        pid = begin("parts")
        time.sleep(moments.uniform(0, 2 * duration / int(sys.argv[1])))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
    finish("parts")
    duration /= 2
print(killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
def test_kills_at_random_moments_leave_no_trace(tmp_path):
    """Weights are equal byte for byte, metrics are equal but for the timing fields."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "tiny.py")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", str(KILLS), "0"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLASSHOUSE_QUIET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert rows(whole) == rows(parts)
    for name in ("model.safetensors", "config.json"):
        assert (whole / "model" / name).read_bytes() == (parts / "model" / name).read_bytes()
    assert sorted(p.name for p in whole.rglob("*")) == sorted(p.name for p in parts.rglob("*"))


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING_FIELDS} for line in lines]
