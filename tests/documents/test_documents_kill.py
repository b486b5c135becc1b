"""The same command after kills: a small folder here, a large one in `make accept`."""

import signal
import time

import pytest
from tests.documents import folder_kills
from tests.llm.scripted_server import Wire


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire.stop()


def test_a_folder_killed_at_random_gives_each_result_once_and_pays_nothing_twice(tmp_path, wire):
    folder_kills.killed_and_restarted(tmp_path, wire, reports=40, kills=5, seed=7)


def test_ctrl_c_ends_with_130_and_the_command_that_goes_on(tmp_path, wire):
    truth = folder_kills.write_reports(tmp_path / "reports", 30)
    folder_kills.model(wire)
    process = folder_kills.start(tmp_path, wire)
    while len(wire.asked) < 8:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130, error
    assert "of 30 documents are done; to continue: glasshouse analyze reports" in error
    assert "Traceback" not in error
    last = folder_kills.start(tmp_path, wire)
    assert last.wait() == 0
    names = [line.split('"')[3] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(names) == sorted(truth)
    assert len(wire.chats()) <= 60 + folder_kills.AT_ONCE
