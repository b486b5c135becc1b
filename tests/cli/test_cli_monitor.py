"""glasshouse monitor: a view, a snapshot, a page, and one clear line where there is no log."""

import json
import time

import pytest

from glasshouse.cli.monitor import sparkline
from glasshouse.llm import Usage
from glasshouse.llm.monitoring.call import Call, next_id
from glasshouse.llm.monitoring.call_log import CallLog


@pytest.fixture
def log(tmp_path):
    """calls.sqlite in the working folder, with 20 calls of the last minute."""
    with CallLog(tmp_path / "calls.sqlite") as log:
        for number in range(20):
            log.record(
                Call(
                    next_id(),
                    time.time() - number,
                    "openai:m",
                    "chat",
                    model="m\x1b[2J[bold]",  # a server's word: neither an escape sequence nor rich's markup
                    prompt="summary",
                    version="2",
                    seconds=0.25,
                    usage=Usage(100, 20),
                    cost=0.01,
                    finish=None if number == 0 else "stop",
                    error="TimedOut" if number == 0 else None,
                )
            )
    return tmp_path / "calls.sqlite"


def test_the_view_is_printed_once_where_there_is_no_terminal(glasshouse, log):
    result = glasshouse("monitor")
    assert result.code == 0
    assert "\x1b" not in result.out
    for part in ("m␛[2J[bold]", "summary", "250 ms", "$0.20", "5.0%", "TimedOut 1", "no alert is on", "2400"):
        assert part in result.out


def test_json_is_one_snapshot(glasshouse, log):
    found = json.loads(glasshouse("monitor", log, "--json", "--minutes", "5").out)
    assert found["all"]["calls"] == 20
    assert found["minutes"] == 5
    assert found["by_prompt"][0]["prompt"] == "summary"
    assert found["alerts"] == []


def test_html_writes_a_page(glasshouse, log, tmp_path):
    result = glasshouse("monitor", "--html", "page/calls.html")
    assert result.code == 0
    assert result.out == ""
    page = (tmp_path / "page" / "calls.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "summary" in page


def test_an_old_log_says_when_its_newest_call_was(glasshouse, tmp_path):
    with CallLog(tmp_path / "calls.sqlite") as log:
        log.record(Call(next_id(), 1.7e9, "m", "chat", model="m", finish="stop"))
    assert "no call in this time; the newest one began 2023-11-1" in glasshouse("monitor", "--once").out


@pytest.mark.parametrize("kind", ["missing", "other"])
def test_without_a_log_there_is_one_clear_line(glasshouse, tmp_path, kind):
    if kind == "other":
        (tmp_path / "calls.sqlite").write_text("no database " * 100)
    result = glasshouse("monitor")
    assert result.code == 1
    assert result.err.startswith("Error: ")
    assert "calls.sqlite" in result.err
    assert len(result.err.strip().split("\n")) == 1
    assert (tmp_path / "calls.sqlite").exists() == (kind == "other")  # nothing is made by looking


@pytest.mark.parametrize("values", [(), (None, None), (0, 0)])
def test_a_sparkline_of_nothing(values):
    assert set(sparkline(values)) <= {" ", "▁"}
