"""A full disk, a file too large, a folder that may not be written: one clear line, and earlier work stays."""

import os
import shutil
import subprocess
import sys

import pytest

SETTINGS = [
    "--set=tokenizer.vocab_size=300",
    "--set=model.hidden_size=64",
    "--set=model.num_hidden_layers=2",
    "--set=model.max_position_embeddings=64",
    "--set=pretrain.sequence_length=32",
    "--set=pretrain.batch_tokens=256",
    "--set=pretrain.tokens=2048",
    "--set=pretrain.checkpoint_every_seconds=0",
    "--set=evaluate=null",
    "--set=report=null",
]


def run(out, data, limit: str = ""):
    """The command in a process of its own, after `limit` (Python statements)."""
    code = f"{limit}\nimport sys\nfrom glasshouse.cli import main\nmain(sys.argv[1:])"
    line = ["run", "own-text", "--data", str(data), "--out", str(out), *SETTINGS]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, env=env)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on a mat and saw two birds " * 500)
    return path


def check(result, out, text):
    """It failed in one line during pretrain, and with room the same command ends well."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().split("\n")[-1]
    assert last.startswith("Error: ")
    assert "pretrain" in last
    assert "Fix: " in last
    for stage in ("corpus", "tokenizer"):
        assert '"finished": "' in (out / stage / "stage.json").read_text()


def test_files_over_the_size_limit(tmp_path, text):
    """RLIMIT_FSIZE fails in the same calls as a full disk does, and needs no privileges."""
    out = tmp_path / "run"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    check(run(out, text, limit), out, text)
    assert run(out, text).returncode == 0


def test_full_disk(tmp_path, text):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only a privileged user can mount a small disk to fill")
    try:
        result = run(disk / "run", text)
        check(result, disk / "run", text)
        assert "No space left" in result.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert run(disk / "run", text).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
