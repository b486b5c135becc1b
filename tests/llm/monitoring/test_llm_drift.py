"""Drift: the rate of false alarms that is promised holds, whatever the distribution; changes are found."""

import math
import random
from datetime import UTC, datetime
from statistics import median

import pytest

from glasshouse.core.errors import UsageError
from glasshouse.llm import Usage
from glasshouse.llm.monitoring.call import CANCELLED, Call, next_id
from glasshouse.llm.monitoring.change import BETS, ChangeTest
from glasshouse.llm.monitoring.drift import Alert, DriftAlerts, figures_of
from glasshouse.llm.monitoring.judge import Agreement, Verdict
from glasshouse.llm.monitoring.kappa import Kappa

DISTRIBUTIONS = {
    "lognormal": lambda rng: rng.lognormvariate(0, 0.6),
    "heavy tails": lambda rng: rng.paretovariate(1.1),  # has no variance
    "two peaks": lambda rng: rng.gauss(1, 0.01) if rng.random() < 0.7 else rng.gauss(9, 1),
    "rare": lambda rng: float(rng.random() < 0.01),
    "never": lambda rng: 0.0,
    "few values": lambda rng: float(rng.randint(1, 4)),
}


def test_no_bet_wins_on_uniform_ranks():
    """Each bet's mean over uniform ranks is 1 and no bet is negative: what the promise rests on."""
    for share, gain in BETS:
        loss = (1 - gain * share) / (1 - share)
        assert loss > 0
        assert share * gain + (1 - share) * loss == pytest.approx(1)


@pytest.mark.parametrize("sides", ["up", "down", "both"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_false_alarm_within_n_numbers_has_at_most_the_chance_that_is_promised(name, sides):
    """200 streams that never change: within 300 numbers, a stretch and more, 30% at the most may alarm."""
    rng, alarmed = random.Random(name + sides), 0
    for seed in range(200):
        test = ChangeTest(30, 1000, up=sides != "down", down=sides != "up", seed=seed)
        alarmed += any(test.see(DISTRIBUTIONS[name](rng)) is not None for _ in range(330))
    assert alarmed <= 60 + 3 * math.sqrt(200 * 0.3 * 0.7)


@pytest.mark.parametrize("name", ["lognormal", "rare"])
def test_repeated_alarms_stay_below_the_promise(name):
    """60,000 numbers after the reference windows, one in 1,000."""
    rng, alarms = random.Random(name), 0
    for seed in range(20):
        test = ChangeTest(100, 1000, seed=seed)
        alarms += sum(test.see(DISTRIBUTIONS[name](rng)) is not None for _ in range(3100))
    assert alarms <= 60 + 3 * math.sqrt(60)


def test_false_alarms_are_not_far_below_the_promise_either():
    """Else the test would buy its calm with blindness."""
    rng, alarms = random.Random(5), 0
    for seed in range(20):
        test = ChangeTest(100, 300, seed=seed)
        alarms += sum(test.see(rng.random()) is not None for _ in range(3100))
    assert alarms >= 20_000 * 3 / 300 / 8


@pytest.mark.parametrize(
    ("before", "after", "most"),
    [
        (lambda r: r.lognormvariate(0, 0.6), lambda r: r.lognormvariate(math.log(1.5), 0.6), 150),
        (lambda r: r.lognormvariate(0, 0.6), lambda r: r.lognormvariate(math.log(3), 0.6), 40),
        (lambda r: float(r.random() < 0.01), lambda r: float(r.random() < 0.10), 200),
        (lambda r: float(r.random() < 0.01), lambda r: float(r.random() < 0.05), 700),
        (lambda r: r.gauss(200, 40), lambda r: r.gauss(160, 40), 150),
    ],
    ids=[
        "half slower",
        "three times slower",
        "refusals 1% to 10%",
        "refusals 1% to 5%",
        "replies a fifth shorter",
    ],
)
def test_changes_are_found_soon_and_dated(before, after, most):
    """With one false alarm in 50,000 numbers; the delay is the median of 20 changes, the date within it."""
    delays, dates = [], []
    for seed in range(20):
        rng = random.Random(seed)
        test = ChangeTest(500, 50_000, seed=seed)
        assert not any(test.see(before(rng)) for _ in range(1000))
        for delay in range(1, 5000):
            if change := test.see(after(rng)):
                delays.append(delay)
                dates.append(change.began - 1001)
                break
    assert len(delays) == 20
    assert median(delays) <= most
    assert abs(median(dates)) <= most / 3


def chat(when, *, seconds=1.0, tokens=100, cost=0.01, **changes):
    given = {
        "model": "m",
        "finish": "stop",
        "seconds": seconds,
        "usage": Usage(10, tokens),
        "cost": cost,
        **changes,
    }
    return Call(next_id(), when, "openai:m", "chat", prompt="summary", version="2", **given)


def told(alerts):
    return sorted(alert.name for alert in alerts)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("latency", {"seconds": 2.0}),
        ("cost", {"cost": 0.03}),
        ("refusals", {"refused": True, "finish": "refusal"}),
        ("validation_failures", {"validation_failures": 1}),
        ("errors", {"error": "ServerFault", "finish": None}),
        ("reply_length", {"tokens": 300}),
    ],
)
def test_each_figure_has_its_alert_by_name(name, change):
    """Half of the calls change in one way; nothing else is alerted."""
    rng, found = random.Random(1), []
    drift = DriftAlerts(200, on_alert=found.append)

    def ordinary():
        return {
            "seconds": rng.lognormvariate(0, 0.2),
            "tokens": rng.randint(80, 120),
            "cost": rng.gauss(0.01, 0.001),
        }

    for number in range(300):
        drift.record(chat(number, **ordinary()))
    assert drift.alerts == []
    for number in range(300, 700):
        drift.record(chat(number, **ordinary() | (change if rng.random() < 0.5 else {})))
    assert told(found) == told(drift.current()) == [name]
    assert abs(found[0].began - 300) < 40


def test_the_sentence_says_what_changed_how_far_and_since_when():
    drift, rng = DriftAlerts(100), random.Random(4)
    for number in range(300):
        drift.record(chat(1.7e9 + number, seconds=rng.uniform(0.9, 1.1) * (1.0 if number < 200 else 4.0)))
    (alert,) = [alert for alert in drift.alerts if alert.name == "latency"]
    assert alert.began == pytest.approx(1.7e9 + 204, abs=5)  # a call tells its latency when it ends
    assert alert.before == pytest.approx(1.0, abs=0.02)
    assert alert.after == pytest.approx(4.0, abs=0.2)
    when = datetime.fromtimestamp(alert.began, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    values = f"{alert.before:.3g} s to {alert.after:.3g} s"
    assert alert.sentence == f"mean latency of openai:m with prompt summary 2 rose from {values} since {when}"
    assert alert.as_dict()["sentence"] == alert.sentence


def test_an_alert_is_told_once_and_ends_when_things_are_as_before():
    found = []
    drift, rng = DriftAlerts(100, on_alert=found.append), random.Random(3)

    def calls(factor, count):
        for _ in range(count):
            drift.record(chat(rng.random(), seconds=rng.lognormvariate(0, 0.3) * factor))

    calls(1, 300)
    calls(3, 500)
    assert told(drift.current()) == ["latency"]
    calls(1, 500)
    assert drift.current() == []
    assert len(found) == 1
    calls(3, 300)
    assert len(found) == 2


def test_models_and_prompts_are_compared_with_themselves():
    drift, rng = DriftAlerts(100), random.Random(2)
    for number in range(600):
        slow = rng.random() < number / 600  # more and more calls go to the slower model
        call = chat(number, seconds=9.0 if slow else 1.0)
        call.asked = "openai:large" if slow else "openai:small"
        drift.record(call)
    assert drift.alerts == []


def test_which_calls_say_something_about_which_figure():
    hit = chat(0, cache_hit=True)
    assert set(figures_of(hit)) == {"errors", "validation_failures", "refusals"}
    assert figures_of(chat(0, error=CANCELLED, finish=None)) == {}
    assert figures_of(chat(0, error="TimedOut", finish=None)) == {"errors": 1.0}
    untold = chat(0, cost=None, usage=None)
    assert set(figures_of(untold)) == {"errors", "validation_failures", "refusals", "latency"}


@pytest.mark.parametrize(
    ("kappa", "alerted"),
    [(None, False), (Kappa(0.05, -0.1, 0.2, 50), False), (Kappa(0.8, 0.7, 0.9, 200), True)],
)
def test_quality_is_watched_only_where_the_judge_is_known_to_be_right(kappa, alerted):
    agreement = None if kappa is None else Agreement("j", kappa, 0.9, 0.0)
    drift, rng = DriftAlerts(100), random.Random(0)
    for number in range(800):
        score = float(rng.random() < (0.95 if number < 400 else 0.5))
        drift.judged(chat(number), Verdict(score, "j", agreement))
    assert told(drift.alerts) == (["quality"] if alerted else [])
    if alerted:
        assert "quality of openai:m" in drift.alerts[0].sentence
        assert "fell" in drift.alerts[0].sentence


def test_a_window_too_small_is_refused():
    with pytest.raises(UsageError, match="20 calls"):
        DriftAlerts(5)


def test_memory_is_bounded():
    test = ChangeTest(50, 1e12)
    for number in range(5000):
        test.see(float(number % 7))
    assert len(test._seen) <= 500


def test_an_alert_that_ended_says_so():
    alert = Alert("errors", ("m", "", ""), 0.0, 10.0, True, 0.01, 0.2, ended=60.0)
    assert alert.sentence == (
        "the error rate of m rose from 1.0% to 20.0% since 1970-01-01 00:00:00 UTC, until 00:01:00"
    )
