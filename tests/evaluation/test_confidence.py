"""Stated confidence: read from replies, scored against closed forms; the probes against known repliers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.evaluation import confidence, knowledge
from glasshouse.world import World, WorldConfig, facts
from glasshouse.world.land import COLOURS

SEEN = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def world():
    return World(WorldConfig.parse({"people": 60, "heldout_people": 20}), seed=3)


def arrays(pairs):
    return np.array([p for p, _ in pairs]), np.array([q for _, q in pairs])


@given(st.integers(0, 20), st.sampled_from(["40 + 2 = 42", "Ada is a smith.", "It is 40% off."]))
def test_what_is_stated_is_read_back(twentieths, answer):
    """To five percent; the answer comes back without it, so that its own last number is checked."""
    said, sure = confidence.read(confidence.state(answer, twentieths / 20))
    assert sure == twentieths / 20
    assert said.rstrip(".").startswith(answer[:5])
    assert "sure" not in said


def test_a_reply_without_a_confidence_states_none():
    assert confidence.read("40 + 2 = 42") == ("40 + 2 = 42", None)
    assert confidence.read("I am 900% sure.")[1] == 1.0


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.9])
def test_the_penalty_makes_an_answer_pay_off_exactly_above_the_threshold(threshold):
    def expected(p):
        return p - (1 - p) * confidence.cost(threshold)

    assert expected(threshold) == pytest.approx(0, abs=1e-6)
    assert expected(threshold + 0.01) > 0 > expected(threshold - 0.01)


def test_the_rule_is_stated_in_words():
    rule = confidence.penalty("Over {t}%: {c}.", 0.5)
    assert rule == "Over 50%: 1 point."
    assert confidence.penalty("Over {t}%: {c}.", 0.9) == "Over 90%: 9 points."


@given(SEEN)
def test_calibration_error_is_the_mean_gap_of_ten_bins(pairs):
    stated, right = arrays(pairs)
    gap = 0.0
    for b in range(10):
        inside = [i for i, s in enumerate(stated) if min(int(s * 10 + 1e-9), 9) == b]
        if inside:
            gap += len(inside) * abs(np.mean(stated[inside]) - np.mean(right[inside]))
    assert confidence.expected_calibration_error(stated, right) == pytest.approx(gap / len(pairs), abs=1e-9)


@given(SEEN)
def test_brier_skill_is_that_of_the_expected_score_over_all_outcomes(pairs):
    """Each event comes true with its exact probability: the score is averaged over both cases."""
    stated, right = arrays(pairs)
    average = right.mean()

    def score(forecast):
        return np.mean(right * (1 - forecast) ** 2 + (1 - right) * forecast**2)

    if average * (1 - average) > 1e-9:
        expected = 1 - score(stated) / score(np.full_like(stated, average))
        assert confidence.brier_skill(stated, right) == pytest.approx(expected, abs=1e-6)


def test_who_states_the_exact_probabilities_has_no_error_and_the_best_skill():
    right = np.array([0.05, 0.55, 0.9, 1.0, 0.0])
    assert confidence.expected_calibration_error(right, right) == 0
    best = confidence.brier_skill(right, right)
    assert best > max(confidence.brier_skill(right + d, right) for d in (-0.05, 0.05))


@given(SEEN)
def test_risk_is_the_share_of_wrong_answers_among_the_surest(pairs):
    stated, right = arrays(pairs)
    points = confidence.risk_coverage(stated.tolist(), right.tolist())
    assert points[-1]["coverage"] == 1
    assert points[-1]["risk"] == pytest.approx(1 - right.mean())
    assert [p["coverage"] for p in points] == sorted(p["coverage"] for p in points)
    surest = right[stated == stated.max()]
    assert points[0]["risk"] == pytest.approx(1 - surest.mean())


def oracle(world, known_parts=("heldout",)):
    """Answers every question about people, sums and regions; bets on each wheel's favourite."""
    answers = {}
    for kind in knowledge.STATED:
        for q in knowledge.world_questions(world, kind, "heldout", 600, "probe"):
            tasks = world.land.people_by_name
            text = q.messages[-1]["content"]
            name = next((n for n in tasks if n in text), None)
            candidates = [q.unknown, *q.bet.replies.values()] if q.bet else [q.unknown]
            if name:
                person = tasks[name]
                candidates += [facts.sentence(person, a) for a in facts.ATTRIBUTES]
                candidates.append(f"It is {world.land.town(person.facts['birthplace']).region}.")
            if kind == "sums":
                candidates += [str(i) for i in range(200)]
            answers[text] = max(candidates, key=q.right), max(map(q.right, candidates))
    return answers


def asked_of(answers, text):
    return next(
        answer for question, answer in answers.items() if text.startswith(question) or question in text
    )


def test_an_oracle_that_states_the_truth_is_calibrated(world):
    answers = oracle(world)

    def reply(conversations, limit):
        said = [asked_of(answers, messages[-1]["content"]) for messages in conversations]
        return [confidence.state(answer, sure) for answer, sure in said]

    scores = knowledge.probes(world, reply, 120)
    assert tuple(scores) == knowledge.PROBES
    assert scores["stated_ece"].value < 0.01
    assert scores["stated_brier_skill"].value > 0.1, "wheels are never certain"
    assert scores["simpleqa_incorrect"].value == 0
    assert scores["simpleqa_not_attempted"].value == pytest.approx(0.2)  # the strangers
    assert scores["simpleqa_score"].value == pytest.approx(0.8)


def test_who_never_attempts_scores_nothing_and_who_always_invents_loses_three_points(world):
    silent = knowledge.probes(world, lambda c, _: ["I do not know."] * len(c), 50, {"simpleqa_score"})
    assert silent["simpleqa_score"].value == 0
    liar = knowledge.probes(world, lambda c, _: ["Nonsense."] * len(c), 50)
    assert liar["simpleqa_score"].value == -3
    assert liar["bias_gap"].value == 1, "no stated confidence counts as certainty"


def test_a_bet_is_right_with_the_wheels_own_chance(world):
    (question,) = knowledge.world_questions(world, "wheels", "heldout", 1)
    bet = question.bet
    assert {c: question.right(r) for c, r in bet.replies.items()} == bet.wheel.chances
    assert question.right(" and ".join(COLOURS)) == 0


def test_the_parts_share_no_question(world):
    """No probe asks what calibration asks, and neither asks what fine-tuning does."""
    for kind in knowledge.STATED:
        parts = ["calibration", "heldout", *(["train"] if kind != "wheels" else [])]
        asked = [
            {q.messages[-1]["content"] for q in knowledge.world_questions(world, kind, part, 200)}
            for part in parts
        ]
        assert all(asked)
        assert len(set.union(*asked)) == sum(map(len, asked))


def test_nobody_is_of_two_parts(world):
    people = {
        p: {person.name for person in world.land.people_of(p)} for p in ("train", "calibration", "heldout")
    }
    assert [len(names) for names in people.values()] == [40, 8, 12]
    assert len(set.union(*people.values())) == 60
    strangers = [set(names) for names in world.land.strangers.values()]
    assert len(set.union(*strangers)) == sum(map(len, strangers))
    wheels = [{w.town for w in world.land.wheels_of(p)} for p in ("train", "calibration", "heldout")]
    assert [len(w) for w in wheels] == [0, 16, 8]


def test_an_unknown_person_is_named_when_not_known(world):
    (question,) = knowledge.world_questions(world, "questions", "calibration", 1)
    assert facts.abstains(question.unknown)
    assert any(person.name in question.unknown for person in world.land.people_of("calibration"))
