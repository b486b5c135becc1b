"""Judges: agreement with people is measured as the literature says, and without it no score is quality."""

import asyncio
import json
import random

import pytest
from sklearn.metrics import cohen_kappa_score

from glasshouse.core.errors import UsageError
from glasshouse.llm import Completion
from glasshouse.llm.errors import InvalidOutputError
from glasshouse.llm.monitoring.judge import Agreement, Judge, LLMJudge, Verdict, standing
from glasshouse.llm.monitoring.kappa import Kappa, cohens_kappa


def test_kappa_of_a_textbook_table():
    """20 both yes, 5 and 10 apart, 15 both no: observed 0.7, expected 0.5, kappa 0.4."""
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    kappa = cohens_kappa(first, second)
    assert kappa.value == pytest.approx(0.4)
    assert kappa.n == 50
    # Fleiss, Cohen and Everitt's large-sample error is 0.127 here, so 0.15 to 0.65
    assert kappa.low == pytest.approx(0.15, abs=0.05)
    assert kappa.high == pytest.approx(0.65, abs=0.05)


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_kappa_is_scikit_learns(labels):
    rng = random.Random(labels)
    for _ in range(20):
        first = [rng.randrange(labels) for _ in range(60)]
        second = [one if rng.random() < 0.6 else rng.randrange(labels) for one in first]
        assert cohens_kappa(first, second).value == pytest.approx(cohen_kappa_score(first, second))


@pytest.mark.parametrize(("n", "right"), [(40, 0.9), (100, 0.75), (100, 0.99)])
def test_the_interval_holds_kappa_in_about_95_of_100_samples(n, right):
    """Judge and people each say good to 60%; the judge errs in 1 - right of both kinds."""
    rng, inside = random.Random(n + int(100 * right)), 0
    share = 0.6 * right + 0.4 * (1 - right)
    expected = 0.6 * share + 0.4 * (1 - share)
    true = (right - expected) / (1 - expected)
    for _ in range(200):
        people = [rng.random() < 0.6 for _ in range(n)]
        judge = [good == (rng.random() < right) for good in people]
        kappa = cohens_kappa(people, judge)
        inside += kappa.low <= true <= kappa.high
    assert inside >= 181  # 190 expected, 3 standard deviations


def test_the_interval_has_a_width_where_judges_never_disagreed():
    kappa = cohens_kappa([True] * 5 + [False] * 5, [True] * 5 + [False] * 5)
    assert (kappa.value, kappa.high) == (1.0, 1.0)
    assert kappa.low < 0.8


@pytest.mark.parametrize(("first", "second"), [([], []), ([1], [1, 0]), ([1, 1], [1, 1])])
def test_kappa_that_cannot_be_told(first, second):
    with pytest.raises(UsageError):
        cohens_kappa(first, second)


def cases(ask, texts):
    return [(ask(), Completion(text, "stop"), good) for text, good in texts]


def test_a_judge_is_unmeasured_until_people_have_been_asked(ask):
    judge = Judge(lambda request, completion: "yes" in completion.text, "has-yes")

    async def judged():
        before = await judge.verdict(ask(), Completion("yes", "stop"))
        await judge.measure(cases(ask, [("yes", True), ("no", False)] * 20 + [("yes", False)] * 4))
        return before, await judge.verdict(ask(), Completion("yes", "stop"))

    before, after = asyncio.run(judged())
    assert not before.is_quality
    assert standing(before.agreement) == "unmeasured"
    assert after.is_quality
    assert after.agreement.kappa.n == 44
    assert after.agreement.share == pytest.approx(40 / 44)
    assert standing(after.agreement).startswith("agrees with people (kappa 0.8")


def test_a_judge_no_better_than_chance_is_not_called_quality(ask):
    rng = random.Random(1)
    judge = Judge(lambda request, completion: rng.random() < 0.5, "coin")
    asyncio.run(judge.measure(cases(ask, [("a", True), ("b", False)] * 50)))
    verdict = asyncio.run(judge.verdict(ask(), Completion("a", "stop")))
    assert not verdict.is_quality
    assert "no better than chance" in standing(verdict.agreement)


def test_another_judges_agreement_vouches_for_nobody():
    with pytest.raises(UsageError, match="measure the judge that you use"):
        Judge(lambda *_: 1, "new", Agreement("old", Kappa(1, 0.9, 1, 100), 1.0, 0.0))


def test_scores_outside_0_to_1_are_an_error(ask):
    with pytest.raises(UsageError, match=r"0 \(bad\) to 1 \(good\)"):
        asyncio.run(Judge(lambda *_: 5, "stars").verdict(ask(), Completion("", "stop")))


def test_asynchronous_scorers(ask):
    async def score(request, completion):
        await asyncio.sleep(0)
        return 0.25

    assert asyncio.run(Judge(score, "a").verdict(ask(), Completion("", "stop"))) == Verdict(0.25, "a", None)


@pytest.mark.parametrize(
    ("text", "score"), [('{"reason": "ok", "good": true}', 1.0), ('So: {"good": false}.', 0.0)]
)
def test_a_model_judges_by_criteria(scripted, ask, text, score):
    model = scripted([text], name="openai:m")
    judge = LLMJudge(model, ["It is true.", "It is short."])
    verdict = asyncio.run(judge.verdict(ask("Is it?"), Completion("It {is}.", "stop")))
    assert verdict.score == score
    (asked,) = model.asked
    assert "- It is true.\n- It is short." in asked.messages[0]["content"]
    assert json.loads(asked.messages[1]["content"]) == {
        "conversation": [{"role": "user", "content": "Is it?"}],
        "reply": "It {is}.",
    }
    assert asked.output_schema["required"] == ["reason", "good"]


@pytest.mark.parametrize("text", ["good", "{}", '{"good": "yes"}', "[1]", '{"good": tru'])
def test_a_model_that_gives_no_verdict(scripted, ask, text):
    with pytest.raises(InvalidOutputError, match="no verdict"):
        asyncio.run(LLMJudge(scripted([text]), "It is true.").verdict(ask(), Completion("", "stop")))


def test_other_criteria_are_another_judge(scripted):
    one, other = LLMJudge(scripted(), "It is true."), LLMJudge(scripted(), "It is kind.")
    assert one.name != other.name
    assert one.name == LLMJudge(scripted(), "It is true.").name
