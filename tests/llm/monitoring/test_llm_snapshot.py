"""What the reader of a log says, against NumPy and by hand; the page is self-contained and says the same."""

import doctest
import random
import re
import sqlite3
from html.parser import HTMLParser

import numpy as np
import pytest

from glasshouse.cli import monitor as cli_monitor
from glasshouse.core.errors import DataError
from glasshouse.llm import Usage
from glasshouse.llm.monitoring import call as call_module
from glasshouse.llm.monitoring import show, spans
from glasshouse.llm.monitoring.call import Call, next_id
from glasshouse.llm.monitoring.call_log import CallLog
from glasshouse.llm.monitoring.curve import Line, curve_svg
from glasshouse.llm.monitoring.dashboard import dashboard
from glasshouse.llm.monitoring.drift import DriftAlerts
from glasshouse.llm.monitoring.judge import Agreement, Verdict
from glasshouse.llm.monitoring.kappa import Kappa
from glasshouse.llm.monitoring.snapshot import LogReader, quantiles

NOW = 1.7e9


def call(ago, **changes):
    """A call that began so many seconds before NOW."""
    given = {
        "model": "m",
        "seconds": 0.5,
        "finish": "stop",
        "usage": Usage(10, 5, 4),
        "cost": 0.01,
        **changes,
    }
    return Call(next_id(), NOW - ago, given.pop("asked", "openai:m"), given.pop("operation", "chat"), **given)


@pytest.fixture
def snapshot(tmp_path):
    def read(*calls, judged=(), minutes=60, alerts=None):
        path = tmp_path / "calls.sqlite"
        with CallLog(path) as log:
            for one in calls:
                log.record(one)
            for one, verdict in judged:
                log.judged(one, verdict)
        with LogReader(path, alerts) as reader:
            return reader.snapshot(minutes, NOW)

    return read


def test_quantiles_are_numpys():
    rng = random.Random(0)
    for size in (1, 2, 3, 10, 997):
        values = [rng.lognormvariate(0, 1) for _ in range(size)]
        assert quantiles(values) == pytest.approx(tuple(np.quantile(values, [0.5, 0.95])))
    assert quantiles([]) == (None, None)


def test_latencies_of_a_log_are_numpys(snapshot):
    rng = random.Random(1)
    seconds = [rng.lognormvariate(0, 1) for _ in range(300)]
    calls = [call(i, seconds=s, streamed=True, first_token_seconds=s / 3) for i, s in enumerate(seconds)]
    failed = [call(5, seconds=100.0, finish=None, error="TimedOut") for _ in range(30)]
    found = snapshot(*calls, *failed).all
    assert [found.seconds_p50, found.seconds_p95] == pytest.approx(np.quantile(seconds, [0.5, 0.95]))
    firsts = [found.first_token_p50, found.first_token_p95]
    assert firsts == pytest.approx(np.quantile(np.array(seconds) / 3, [0.5, 0.95]))


def test_counts_rates_and_sums(snapshot):
    found = snapshot(
        call(10),
        call(20, finish="refusal", refused=True),
        call(30, cache_hit=True, usage=Usage(), cost=0.0),
        call(40, tries=3, validation_failures=2),
        call(50, finish=None, error="TimedOut", usage=None, cost=None),
        call(60, finish=None, error="InvalidOutput", validation_failures=1, cost=0.03),
        call(70, finish=None, error="Cancelled", usage=None, cost=None),
        call(80, operation="embeddings", finish=None, usage=None, cost=None),
        call(4000),  # before the window
        call(-5),  # after it
    )
    f = found.all
    assert f.calls == 8
    assert f.calls_per_minute == pytest.approx(8 / 60)
    assert (f.prompt_tokens, f.new_tokens, f.cached_tokens) == (40, 20, 16)
    assert f.cost == pytest.approx(0.06)
    assert f.unpriced == 3
    assert (f.errors, f.cancelled, f.refusals, f.retries, f.cache_hits) == (2, 1, 1, 2, 1)
    assert f.error_rate == pytest.approx(2 / 7)
    assert f.refusal_rate == pytest.approx(1 / 5)
    assert f.cache_hit_rate == pytest.approx(1 / 5)
    assert f.validation_failures == 3
    assert f.validation_failure_rate == pytest.approx(2 / 5)
    assert found.errors == {"TimedOut": 1, "InvalidOutput": 1}
    assert found.newest == pytest.approx(NOW + 5)


def test_an_empty_window_has_no_figures_and_is_no_error(snapshot):
    found = snapshot(call(100_000))
    assert found.all.calls == 0
    assert found.all.cost is found.all.seconds_p50 is found.all.error_rate is found.all.quality is None
    assert found.newest == pytest.approx(NOW - 100_000)
    assert "No call in this time" in dashboard(found)


def test_groups_by_model_and_by_prompt_version_and_arm(snapshot):
    calls = [
        call(1, model="a", prompt="p", version="1"),
        call(2, model="a", prompt="p", version="2", experiment="e", arm="x"),
        call(3, model="a", prompt="p", version="2", experiment="e", arm="x"),
        call(4, model="b", prompt="p", version="1"),
    ]
    found = snapshot(*calls)
    assert [(g.model, g.figures.calls) for g in found.by_model] == [("a", 3), ("b", 1)]
    assert [
        (g.model, g.prompt, g.version, g.experiment, g.arm, g.figures.calls) for g in found.by_prompt
    ] == [
        ("a", "p", "2", "e", "x", 2),
        ("a", "p", "1", "", "", 1),
        ("b", "p", "1", "", "", 1),
    ]


def test_the_series_is_the_window_in_60_parts(snapshot):
    calls = [
        call(3599, seconds=2.0),
        call(30, seconds=1.0),
        call(31, seconds=3.0),
        call(90, finish=None, error="X"),
    ]
    found = snapshot(*calls).series
    assert len(found.calls_per_minute) == 60
    assert (found.calls_per_minute[0], found.calls_per_minute[59], found.calls_per_minute[58]) == (1, 2, 1)
    assert found.seconds_p50[0] == 2.0
    assert found.seconds_p50[59] == 2.0
    assert found.seconds_p50[30] is None
    assert found.errors[58] == 1
    assert sum(found.calls_per_minute) == pytest.approx(4)


GOOD = Agreement("known", Kappa(0.8, 0.7, 0.9, 100), 0.9, NOW)


def test_quality_is_unmeasured_until_the_judge_is_known_to_be_right(snapshot):
    one, other = call(1), call(2)
    found = snapshot(one, other, judged=[(one, Verdict(1.0, "new", None))])
    assert (found.all.quality, found.all.judged, found.all.quality_standing) == (None, 1, "unmeasured")
    assert "unmeasured" in dashboard(found)
    found = snapshot(judged=[(one, Verdict(1.0, "known", GOOD)), (other, Verdict(0.5, "known", GOOD))])
    assert found.all.quality == 0.75
    assert found.all.quality_standing.startswith("agrees with people (kappa 0.80, 0.70 to 0.90, n = 100)")


def test_a_judge_at_chance_shows_no_quality(snapshot):
    one, chance = call(1), Agreement("coin", Kappa(0.02, -0.2, 0.2, 80), 0.5, NOW)
    found = snapshot(one, judged=[(one, Verdict(1.0, "coin", chance))])
    assert found.all.quality is None
    assert "no better than chance" in found.all.quality_standing


def test_drift_is_found_in_the_log_once_however_often_it_is_read(tmp_path):
    rng = random.Random(3)
    with CallLog(tmp_path / "c") as log, LogReader(tmp_path / "c", DriftAlerts(100)) as reader:
        for number in range(600):
            slower = 3.0 if number >= 400 else 1.0
            one = call(3000 - number, seconds=rng.lognormvariate(0, 0.3) * slower)
            log.record(one)
            log.judged(one, Verdict(float(rng.random() < (0.3 if number >= 400 else 0.95)), "known", GOOD))
            if number % 100 == 99:
                log.flush()
                found = reader.snapshot(60, NOW).alerts
    assert sorted(alert.name for alert in found) == ["latency", "quality"]
    assert all(abs(alert.began - (NOW - 2600)) < 20 for alert in found)
    with LogReader(tmp_path / "c", DriftAlerts(100)) as reader:
        again = reader.snapshot(60, NOW).alerts
    assert {(a.name, a.began) for a in again} == {(a.name, a.began) for a in found}


def test_calls_that_were_lost_are_told(tmp_path):
    CallLog(tmp_path / "c").close()
    with sqlite3.connect(tmp_path / "c") as file:
        file.execute("INSERT INTO lost VALUES (?, 7)", (NOW,))
    with LogReader(tmp_path / "c") as reader:
        found = reader.snapshot(60, NOW)
    assert found.lost == 7
    assert "7 calls could not be written" in dashboard(found)


@pytest.mark.parametrize("kind", ["missing", "text", "empty"])
def test_what_is_no_log_is_one_clear_error(tmp_path, kind):
    path = tmp_path / "c"
    if kind != "missing":
        path.write_text("notes " * 500 if kind == "text" else "")
    with pytest.raises(DataError, match="CallLog"):
        LogReader(path)


class Page(HTMLParser):
    """Collects what a page would load, and whether its tags close."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.open, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):  # SVG's <line/>
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_without_scripts_and_escapes_what_it_shows(snapshot):
    evil = "<script>alert(1)</script>"
    calls = [
        call(i, model=evil, prompt=evil, version='"', streamed=True, first_token_seconds=0.1)
        for i in range(50)
    ]
    page = dashboard(snapshot(*calls, call(3, finish=None, error=evil)))
    parsed = Page(page)
    assert parsed.loads == []
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert parsed.tags.count("svg") == 6
    assert not re.search(r"url\(|@import|https?://", page)
    assert "prefers-color-scheme: dark" in page
    assert page.count("&lt;script&gt;") >= 3


def test_a_curve_leaves_gaps_and_starts_at_zero():
    drawn = curve_svg(
        [Line("x", [1.0, 2.0, None, 4.0])], 0, 240, lambda value: f"{value:g}" if value else "0", "t"
    )
    assert drawn.count("<polyline") == 1
    assert drawn.count("<circle") == 1
    assert [float(mark) for mark in re.findall(r'class="up"[^>]*>([^<]+)<', drawn)] == [0, 1, 2, 3, 4]
    assert curve_svg([Line("x", [None, None])], 0, 240, str, "t") == ""


def test_a_flat_line_of_zeros_is_drawn():
    assert "<polyline" in curve_svg([Line("x", [0, 0, 0])], 0, 240, str, "t")


@pytest.mark.parametrize("module", [show, spans, call_module, cli_monitor])
def test_examples_in_docstrings_hold(module):
    tried = doctest.testmod(module)
    assert tried.attempted
    assert not tried.failed
