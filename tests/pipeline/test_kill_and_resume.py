"""Stopped at any moment, the same command continues and ends with the same bits."""

import os
import signal
import time

from glasshouse.pipeline.run_folder import RunFolder

WAIT = 60.0
"""Seconds until a test gives up on a process; nothing measures how fast it is."""


def rows(path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def test_killed_in_several_stages_the_run_ends_with_the_same_bits(
    glasshouse, tmp_path, tiny_run, assert_same_numbers
):
    run = tmp_path / "run"
    moments = [
        lambda: (run / "corpus").exists(),
        lambda: rows(run / "pretrain" / "metrics.jsonl") >= 3,
        lambda: rows(run / "sft" / "metrics.jsonl") >= 2,
        lambda: (run / "evaluation" / "sft").exists(),
    ]
    for seen in moments:
        assert glasshouse(run, "--set=name=tiny").kill_when(seen)
    assert glasshouse(run, "--set=name=tiny").wait(WAIT) == 0
    assert_same_numbers(run, tiny_run)


def test_ctrl_c_prints_one_line_with_the_command_that_continues(glasshouse, tmp_path):
    run = tmp_path / "run"
    process = glasshouse(run, "--fresh", "--until=pretrain", "--set=pretrain.tokens=2_400_000")
    deadline = time.monotonic() + WAIT
    while rows(run / "pretrain" / "metrics.jsonl") < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=WAIT)[0]
    assert process.returncode == 130, output
    last = output.strip().split("\n")[-1]
    assert last.startswith("pretrain: stopped at step")
    assert f"to continue: glasshouse run pocket-mini --out {run}" in last
    assert "--fresh" not in last
    assert "Traceback" not in output


def test_two_commands_do_not_work_in_one_folder(glasshouse, tmp_path):
    run = tmp_path / "run"
    with RunFolder(run).locked():
        second = glasshouse(run)
        output = second.communicate(timeout=WAIT)[0]
    assert second.returncode == 1
    assert f"process {os.getpid()}" in output
    assert len(output.strip().split("\n")) == 1
