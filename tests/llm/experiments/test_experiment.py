"""An experiment in the place of an LLM: who is asked, what is kept, and what the report says."""

from __future__ import annotations

import asyncio
import contextlib
import json

import numpy as np
import pytest

from glasshouse.core.errors import ConfigError, DataError
from glasshouse.llm import Completion, Usage
from glasshouse.llm.errors import BadRequestError, InvalidOutputError, ServerFaultError
from glasshouse.llm.experiments import (
    Arm,
    Experiment,
    Guard,
    Metric,
    read_report,
    report_svg,
    validation_success,
)
from glasshouse.llm.experiments.outcomes import Outcome, Outcomes
from glasshouse.llm.experiments.plan import Plan
from glasshouse.llm.interface import Capabilities

METRIC = Metric(name="accepted")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "experiments.sqlite"


@pytest.fixture
def make(scripted, file):
    """An experiment "greeting" with two arms of scripted models."""

    def experiment(first=("Yes.",), second=("Yes.",), **more):
        arms = [Arm("v1", scripted(first, name="one")), Arm("v2", scripted(second, name="two"))]
        return Experiment("greeting", arms, **({"file": file, "metric": METRIC} | more))

    return experiment


def keys_of(experiment, arm, count):
    found = (str(number) for number in range(10_000) if experiment.arm(str(number)).name == arm)
    return [next(found) for _ in range(count)]


async def collect(stream):
    return [chunk async for chunk in stream]


def test_the_keys_arm_is_asked_with_its_prompt_and_labels(scripted, ask, file):
    models = scripted(["A"]), scripted(["B"])
    politely = lambda request: request.model_copy(  # noqa: E731
        update={"messages": ({"role": "system", "content": "Be polite."}, *request.messages)}
    )
    experiment = Experiment(
        "greeting", [Arm("v1", models[0]), Arm("v2", models[1], politely)], file=file, metric=METRIC
    )
    (key,) = keys_of(experiment, "v2", 1)
    completion = asyncio.run(experiment.complete(ask(labels={"key": key, "team": "x"})))
    assert completion.text == "B"
    assert completion.notes[-1].details == {"experiment": "greeting", "arm": "v2"}
    assert not models[0].asked
    (sent,) = models[1].asked
    assert sent.messages[0]["content"] == "Be polite."
    assert sent.labels == {"key": key, "team": "x", "experiment": "greeting", "arm": "v2"}


def test_a_stream_is_an_outcome_like_a_whole_reply(make, ask, file):
    experiment = make(["a b"], ["a b"], measure=lambda request, outcome: 1.0)
    chunks = asyncio.run(collect(experiment.stream(ask(labels={"key": "17"}))))
    assert [chunk.text for chunk in chunks] == ["a ", "b ", ""]
    assert chunks[-1].completion.notes[-1].layer == "experiment"
    assert sum(arm.values for arm in read_report(file).arms) == 1


def test_a_stream_that_breaks_is_a_failure(make, ask):
    experiment = make(
        [ServerFaultError("no")], [ServerFaultError("no")], guards=[Guard(name="failed", limit=0.01)]
    )
    with pytest.raises(ServerFaultError):
        asyncio.run(collect(experiment.stream(ask(labels={"key": "17"}))))
    assert [value for _, value in experiment.outcomes.firsts("greeting", "failed")] == [1]


def test_a_reader_who_leaves_a_stream_leaves_no_outcome(make, ask):
    experiment = make(["a b c"], ["a b c"])

    async def leave():
        stream = experiment.stream(ask(labels={"key": "18"}))
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    assert experiment.outcomes.totals("greeting") == {}


def test_a_request_without_a_key_is_refused_before_anybody_is_asked(make, ask):
    experiment = make()
    with pytest.raises(BadRequestError, match="key"):
        asyncio.run(experiment.complete(ask()))
    assert all(not arm.llm.asked for arm in experiment.arms.values())


def test_what_ended_how_is_kept(make, ask):
    """Refused, broken schema, failed, good: each its own outcome, with the money that is known."""
    outcomes = [
        Completion("", "refusal", Usage(1, 1), cost=0.5, seconds=2.0),
        InvalidOutputError("not JSON", text="{", problem="it is cut off", cost=0.25),
        ServerFaultError("down"),
        Completion("Yes.", "stop", Usage(1, 1), seconds=4.0),
    ]
    guards = [Guard(name=name, limit=0.1) for name in ("refused", "invalid", "failed", "seconds", "cost")]
    experiment = make(list(outcomes), guards=guards, measure=validation_success)
    for key in keys_of(experiment, "v1", 4):
        with contextlib.suppress(InvalidOutputError, ServerFaultError):
            asyncio.run(experiment.complete(ask(labels={"key": key})))
    (arm, empty) = experiment.report().arms
    assert (arm.keys, arm.calls, arm.values, arm.mean) == (4, 4, 3, pytest.approx(2 / 3))
    assert (arm.cost, arm.cost_known) == (0.75, 2)
    assert arm.guards["refused"] == arm.guards["invalid"] == arm.guards["failed"] == 0.25
    assert 2.0 <= arm.guards["seconds"] < 4.0  # three calls: the failed one has no time
    assert (empty.keys, empty.mean, empty.cost) == (0, None, None)


def test_a_restarted_process_goes_on(make, ask, file):
    first = make()
    asyncio.run(first.complete(ask(labels={"key": "a"})))
    first.outcomes.close()
    second = make()
    asyncio.run(second.complete(ask(labels={"key": "b"})))
    second.record("a", 1.0)
    assert sum(arm.keys for arm in second.report().arms) == 2
    assert sum(arm.values for arm in read_report(file, "greeting").arms) == 1


def test_two_processes_write_one_file(make, ask):
    one, two = make(), make()
    for number in range(20):
        asyncio.run((one if number % 2 else two).complete(ask(labels={"key": str(number)})))
    assert sum(arm.keys for arm in one.report().arms) == 20


def test_another_plan_needs_another_name(make):
    make()
    with pytest.raises(ConfigError, match="another name"):
        make(alpha=0.01)


def test_a_choice_made_later_belongs_to_its_call_and_one_without_a_call_is_kept_too(make, ask):
    experiment = make()
    asyncio.run(experiment.complete(ask(labels={"key": "a"})))
    experiment.record("a", 0.0)
    experiment.record("elsewhere", 1.0)
    totals = experiment.outcomes.totals("greeting")
    assert sum(calls for _, calls, _, _ in totals.values()) == 2
    assert sorted(value for _, value in experiment.outcomes.firsts("greeting", "value")) == [0.0, 1.0]


def test_a_key_counts_once(make):
    experiment = make()
    for value in (1.0, 0.0, 0.0):
        experiment.record("a", value)
    assert [value for _, value in experiment.outcomes.firsts("greeting", "value")] == [1.0]


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_a_value_that_cannot_be_is_refused(make, value):
    with pytest.raises(DataError, match="lies within 0 and 1"):
        make().record("a", value)


def test_it_can_what_every_arm_can(scripted, file):
    poor = scripted(can=Capabilities(seed=False), context=100)
    arms = [Arm("v1", scripted(context=200)), Arm("v2", poor)]
    experiment = Experiment("e", arms, file=file, metric=METRIC)
    assert not experiment.can.seed
    assert experiment.can.stop
    assert experiment.context == 100
    asyncio.run(experiment.close())
    assert poor.closed


@pytest.mark.parametrize(
    "arms",
    [
        (("A", 0.5), ("A", 0.5)),
        (("A", 0.5), ("B", 0.6)),
        (("A", 1.0), ("B", 0.0)),
        (("A", 1.0),),
    ],
)
def test_arms_that_do_not_add_up_are_refused(arms):
    with pytest.raises(ConfigError):
        Plan.parse({"name": "e", "arms": arms, "metric": METRIC})


def filled(
    file, rates, count=3000, guards=(), seconds=(1.0, 1.0, 1.0), shares=(0.5, 0.5), metric=METRIC, lose=0.0
):
    """A file with simulated outcomes; `lose`: how many of the second arm's vanish."""
    outcomes = Outcomes(file)
    arms = tuple((f"v{number + 1}", share) for number, share in enumerate(shares))
    plan = Plan(name="e", arms=arms, metric=metric, guards=tuple(guards))
    outcomes.start(plan)
    rng = np.random.default_rng(11)
    outcomes._database.execute("BEGIN")
    for number in range(count):
        arm = int(rng.choice(len(shares), p=shares))
        if arm == 1 and rng.random() < lose:
            continue
        value, took = float(rng.random() < rates[arm]), float(rng.gamma(20, seconds[arm] / 20))
        outcomes.add("e", Outcome(str(number), f"v{arm + 1}", value, took, 0.001, False, False, False))
    outcomes._database.execute("COMMIT")
    outcomes.close()
    return read_report(file)


def test_a_clear_winner_is_chosen(file):
    told = filled(
        file, (0.5, 0.65), guards=[Guard(name="refused", limit=0.05), Guard(name="seconds", limit=0.2)]
    )
    (only,) = told.comparisons
    assert only.verdict == "better"
    assert only.difference.low < 0.15 < only.difference.high
    assert [guard.state for guard in only.guards] == ["holds", "holds"]
    assert only.missing == 0
    assert told.decision.startswith("Choose v2: it beats v1 by 0.1")
    assert str(told).endswith(told.decision)
    assert json.loads(json.dumps(told.to_json(), allow_nan=False))["comparisons"][0]["verdict"] == "better"


def test_a_winner_that_breaks_a_guard_is_not(file):
    told = filled(file, (0.5, 0.65), guards=[Guard(name="seconds", limit=0.2)], seconds=(1.0, 1.5))
    assert told.comparisons[0].guards[0].state == "broken"
    assert told.decision == "Keep v1: v2 goes beyond its limit of seconds."


def test_a_winner_whose_guard_is_not_yet_certain_goes_on(file):
    told = filled(file, (0.5, 0.65), guards=[Guard(name="seconds", limit=0.1)], seconds=(1.0, 1.1))
    assert told.comparisons[0].guards[0].state == "open"
    assert told.decision.startswith("Go on: v2 beats v1")
    assert "seconds" in told.decision


def test_a_worse_arm_is_not_kept(file):
    assert filled(file, (0.6, 0.45)).decision == "Keep v1: v2 is worse."


def test_less_may_be_better(file):
    told = filled(file, (0.6, 0.45), metric=Metric(name="complaint", higher_is_better=False))
    assert told.comparisons[0].verdict == "better"
    assert told.decision.startswith("Choose v2: it beats v1 by 0.1")


def test_no_difference_yet_says_how_many_more(file):
    told = filled(file, (0.5, 0.52), count=400, metric=Metric(name="accepted", smallest=0.05))
    (only,) = told.comparisons
    assert only.aim == 0.05
    assert only.missing is not None
    assert 2000 < only.missing < 6000
    assert told.decision.startswith(
        f"Go on: no difference is certain yet; about {only.missing:,} more outcomes"
    )


def test_a_difference_too_small_to_matter_ends_it(file):
    told = filled(file, (0.5, 0.5), count=4000, metric=Metric(name="accepted", smallest=0.1))
    assert told.decision == "Keep v1: v2 makes no difference that matters."


def test_lost_outcomes_forbid_a_decision(file):
    told = filled(file, (0.5, 0.8), lose=0.2)
    assert told.mismatch < 0.001
    assert told.decision.startswith("Decide nothing")


def test_of_several_arms_the_best_is_chosen_and_alpha_is_shared(file):
    told = filled(file, (0.5, 0.6, 0.75), count=6000, shares=(0.4, 0.3, 0.3))
    assert told.decision.startswith("Choose v3: it beats v1 by 0.2")
    assert "97.5% interval" in told.decision


def test_the_report_of_a_new_experiment_makes_no_numbers_up(make):
    told = make(guards=[Guard(name="cost", limit=0.01)]).report()
    assert told.comparisons[0].missing is None
    assert told.arms[0].cost is None
    assert "unknown" in str(told)
    assert told.decision.startswith("Go on")
    json.dumps(told.to_json(), allow_nan=False)


def test_the_picture_is_an_svg_that_shows_the_last_interval(file):
    filled(file, (0.5, 0.65), count=800)
    picture = report_svg(file)
    assert picture.lstrip().startswith("<?xml")
    assert "difference in accepted" in picture
    assert "v2 - v1" in picture
    assert picture == report_svg(file)  # nothing in it but the outcomes


def test_a_file_that_is_none_is_a_clear_error(file, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_report(file)
    make_two = Outcomes(file)
    for name in ("one", "two"):
        make_two.start(Plan(name=name, arms=(("a", 0.5), ("b", 0.5)), metric=METRIC))
    with pytest.raises(DataError, match="one, two"):
        read_report(file)
    with pytest.raises(DataError, match="did you mean 'two'"):
        read_report(file, "twoo")
