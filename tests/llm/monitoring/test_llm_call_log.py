"""CallLog: every call is in the file, soon, whole, and readable by others meanwhile."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from glasshouse.core.errors import DataError, StorageError
from glasshouse.llm import Request, Usage
from glasshouse.llm.monitoring.call import Call, next_id
from glasshouse.llm.monitoring.call_log import CallLog
from glasshouse.llm.monitoring.judge import Agreement, Verdict
from glasshouse.llm.monitoring.kappa import Kappa


def call(**changes):
    return Call(
        next_id(), 1.7e9, "openai:m", "chat", **{"model": "m", "seconds": 0.5, "finish": "stop"} | changes
    )


def rows(path, what="*", table="calls"):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as file:
        file.row_factory = sqlite3.Row
        return [dict(row) for row in file.execute(f"SELECT {what} FROM {table}")]


def test_every_column_is_written(tmp_path):
    path = tmp_path / "deep" / "calls.sqlite"
    whole = call(
        streamed=True,
        prompt="summary",
        version="2",
        experiment="tone",
        arm="b",
        first_token_seconds=0.1,
        usage=Usage(10, 5, 4, 3, 2),
        cost=0.02,
        status=None,
        tries=3,
        validation_failures=1,
        cache_hit=True,
        ignored=("seed", "logprobs"),
    )
    with CallLog(path) as log:
        log.record(whole)
    (row,) = rows(path)
    assert row == {
        "number": 1,
        "id": whole.id,
        "began": 1.7e9,
        "asked": "openai:m",
        "model": "m",
        "operation": "chat",
        "prompt": "summary",
        "version": "2",
        "experiment": "tone",
        "arm": "b",
        "streamed": 1,
        "seconds": 0.5,
        "first_token_seconds": 0.1,
        "prompt_tokens": 10,
        "new_tokens": 5,
        "cached_tokens": 4,
        "cache_write_tokens": 3,
        "reasoning_tokens": 2,
        "cost": 0.02,
        "finish": "stop",
        "refused": 0,
        "error": None,
        "status": None,
        "tries": 3,
        "validation_failures": 1,
        "cache_hit": 1,
        "ignored": "seed,logprobs",
        "quality": None,
        "judge": None,
        "judged": None,
        "request": None,
        "reply": None,
    }


def test_what_nobody_told_is_null(tmp_path):
    with CallLog(tmp_path / "c") as log:
        log.record(call(finish=None, error="TimedOut"))
    (row,) = rows(tmp_path / "c")
    assert row["cost"] is row["prompt_tokens"] is row["first_token_seconds"] is row["finish"] is None
    assert row["error"] == "TimedOut"


def test_the_file_is_read_while_it_is_written_and_without_being_asked(tmp_path):
    with CallLog(tmp_path / "c") as log:
        log.record(call())
        until = time.monotonic() + 20
        while not rows(tmp_path / "c"):
            assert time.monotonic() < until
            time.sleep(0.02)


def test_flush_has_written_when_it_returns(tmp_path):
    with CallLog(tmp_path / "c") as log:
        for count in (1, 2, 3):
            log.record(call())
            log.flush()
            assert len(rows(tmp_path / "c")) == count


def test_threads_and_several_logs_write_one_file(tmp_path):
    with CallLog(tmp_path / "c") as first, CallLog(tmp_path / "c") as second:

        def write(log):
            for _ in range(500):
                log.record(call())

        threads = [threading.Thread(target=write, args=(log,)) for log in (first, first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({row["id"] for row in rows(tmp_path / "c")}) == 1500


def test_more_is_added_to_an_older_file(tmp_path):
    for _ in range(2):
        with CallLog(tmp_path / "c") as log:
            log.record(call())
    assert len(rows(tmp_path / "c")) == 2


def test_a_judges_word_comes_later_with_what_it_is_worth(tmp_path):
    agreement = Agreement("judge/1", Kappa(0.8, 0.6, 0.9, 100), 0.9, 1.7e9)
    with CallLog(tmp_path / "c") as log:
        one, other = call(), call()
        log.record(one)
        log.record(other)
        log.flush()
        log.judged(one, Verdict(1.0, "judge/1", agreement))
        log.judged(other, Verdict(0.0, "new", None))
    assert [(row["quality"], row["judge"]) for row in rows(tmp_path / "c")] == [
        (1.0, "judge/1"),
        (0.0, "new"),
    ]
    assert rows(tmp_path / "c", table="judges") == [
        {"name": "judge/1", "kappa": 0.8, "low": 0.6, "high": 0.9, "n": 100, "share": 0.9, "measured": 1.7e9}
    ]


def test_content_that_was_recorded(tmp_path):
    request = Request.parse({"messages": [{"role": "user", "content": "Ada \ud800?"}]})
    with CallLog(tmp_path / "c") as log:
        log.record(call(request=request, reply="half a \ud83d character"))
    (row,) = rows(tmp_path / "c")
    assert "Ada" in row["request"]
    assert row["reply"] == "half a ? character"


def test_a_call_that_no_file_can_hold_does_not_stop_the_others(tmp_path, caplog):
    with CallLog(tmp_path / "c") as log:
        for usage in (Usage(1, 1), Usage({}, 1), Usage(2, 2)):
            log.record(call(usage=usage))
        log.flush()
    assert [row["prompt_tokens"] for row in rows(tmp_path / "c")] == [1, 2]
    assert rows(tmp_path / "c", "calls", "lost") == [{"calls": 1}]
    assert "cannot be written" in caplog.text


def test_a_file_that_is_locked_holds_nothing_up_and_loses_nothing(tmp_path, monkeypatch):
    with CallLog(tmp_path / "c", most_waiting=4) as log:
        log._file.execute("PRAGMA busy_timeout = 1")
        blocker = sqlite3.connect(tmp_path / "c", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            log.record(call())
        with pytest.raises(StorageError, match=r"3 calls are not written yet.*locked"):
            log.flush()
        for _ in range(9):  # four more may wait, the rest is counted
            log.record(call())
        blocker.execute("ROLLBACK")
        blocker.close()
        log.flush()
    kept, lost = rows(tmp_path / "c"), rows(tmp_path / "c", "calls", "lost")
    assert len(kept) + sum(row["calls"] for row in lost) == 12
    assert 7 <= len(kept) <= 8


def test_a_closed_log_says_so(tmp_path):
    log = CallLog(tmp_path / "c")
    log.close()
    log.close()
    with pytest.raises(StorageError, match="closed"):
        log.record(call())


@pytest.mark.parametrize("kind", ["text", "other", "newer"])
def test_another_file_is_refused_and_left_alone(tmp_path, kind):
    path = tmp_path / "c"
    if kind == "text":
        path.write_text("these are my notes, not a database" * 50)
    elif kind == "other":
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE mine (a)")
    else:
        CallLog(path).close()
        with sqlite3.connect(path) as file:
            file.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(DataError, match=re_of(kind)):
        CallLog(path)
    assert path.read_bytes() == before


def re_of(kind):
    return {"text": "not a SQLite file", "other": "not a log of calls", "newer": "schema 99"}[kind]


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose a file"):
        CallLog(tmp_path / "file" / "c")


WRITER = """
import sys, time
from glasshouse.llm.monitoring.call import Call, next_id
from glasshouse.llm.monitoring.call_log import CallLog
log = CallLog(sys.argv[1])
number = 0
while True:
    log.record(Call(next_id(), time.time(), "m", "chat", model="m", finish="stop", seconds=0.1))
    number += 1
    print(number, time.time(), flush=True)
    time.sleep(0.001)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_after_kill_9_the_file_is_whole_and_holds_all_but_the_last_second(tmp_path):
    path = tmp_path / "calls.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as writer:
        told = [writer.stdout.readline().split() for _ in range(3000)]
        writer.send_signal(signal.SIGKILL)
        killed = float(told[-1][1])
        writer.stdout.read()
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept, newest = file.execute("SELECT count(*), max(began) FROM calls").fetchone()
    recorded_a_second_before = sum(float(when) < killed - 1.0 for _, when in told)
    assert kept >= recorded_a_second_before > 0
    assert newest is not None
    with CallLog(path) as log:  # and it goes on
        log.record(call())
    assert len(rows(path)) == kept + 1


def test_a_program_that_just_ends_has_written_everything(tmp_path):
    path = tmp_path / "calls.sqlite"
    program = WRITER.replace("while True", "while number < 50")
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, stdout=subprocess.DEVNULL)
    assert len(rows(path)) == 50
