"""Difficulty read from words: questions of the invented world whose truth is known."""

import numpy as np
import pytest

from glasshouse.classify import TextClassifier
from glasshouse.core.errors import DataError
from glasshouse.llm import Request
from glasshouse.llm.difficulty import likely_right, request_text, train_difficulty
from glasshouse.llm.routing_policy import prove


@pytest.fixture(scope="module")
def classifier(routing):
    return routing.difficulty_of_world(routing.world_questions("train", 700, 1), 1)


@pytest.fixture(scope="module")
def held_out(routing, classifier):
    """Other phrasings, other people, other numbers."""
    return routing.asked_of_world(routing.world_questions("heldout", 1500, 2), classifier, 3)


def test_it_holds_on_phrasings_and_people_never_seen(routing, held_out):
    found = routing.held_out(held_out, 4)
    print({name: round(value, 3) for name, value in found.items()})
    assert found["accuracy"] > (found["commonest"] + found["best"]) / 2
    assert found["ece"] < 0.08
    assert found["off_the_truth"] < 0.15


def test_with_it_more_is_saved_than_by_length_and_keywords_and_the_bound_holds(routing, held_out):
    found = routing.resample(held_out, 40, 700, 0.1, seed=5)
    assert found["broken"] <= 0.225  # 99% point of a binomial of 40 at 0.1
    heuristic = routing.best_heuristic(held_out.heuristics(), found["error"])
    assert found["saved"] > heuristic["saved"] + 0.1


def test_the_classifier_alone_is_a_route_with_a_guarantee(routing, held_out):
    """No confidence: a tier's answer is taken unseen, where the words say that it will do."""
    alone = routing.Population(held_out.chance, None, held_out.likely, held_out.hard)
    broken, saved, errors = 0, [], []
    for i in range(40):
        table = alone.labelled(np.random.default_rng((6, i)), 700)
        rule, evidence = prove(table, 0.12, 0.1, seed=i)
        broken += alone.of(rule)["error"] > 0.12
        saved.append(alone.of(rule)["saved"])
        errors.append(alone.of(rule)["error"])
        assert not evidence.proved or rule.accept == (-np.inf, -np.inf)
    assert broken <= 9
    assert np.mean(saved) > routing.best_heuristic(alone.heuristics(), np.mean(errors))["saved"]


def test_tiers_never_the_cheapest_count_for_the_next():
    texts = [f"{word} {i}" for word in ("easy", "hard") for i in range(40)]
    right = [(True, True, True)] * 40 + [(False, False, True)] * 37 + [(False, True, False)] * 3
    classifier = train_difficulty(texts, right)
    assert classifier.labels == ("0", "2")
    enough = likely_right(classifier, ["easy 1", "hard 1"], 3)
    np.testing.assert_allclose(enough[:, 0], enough[:, 1])
    assert enough[0, 0] > 0.8 > 0.2 > enough[1, 0]


def test_what_is_no_set_of_examples_is_refused():
    with pytest.raises(DataError, match="the same tiers"):
        train_difficulty(["a", "b"], [(True, True), (True,)])
    with pytest.raises(DataError, match="2 texts, and 1 rows"):
        train_difficulty(["a", "b"], [(True, True)])
    with pytest.raises(DataError, match="nothing to tell apart"):
        train_difficulty([f"t{i}" for i in range(30)], [(True, True)] * 30)
    moods = TextClassifier.train([f"{w} {i}" for w in "ab" for i in range(10)], ["good"] * 10 + ["bad"] * 10)
    with pytest.raises(DataError, match="is none of 2 tiers"):
        likely_right(moods, ["a"], 2)


def test_the_text_of_a_request_is_what_the_user_said_last():
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}]
    for content, expected in (("Hi", "Hi"), (parts, "What is this?")):
        messages = [
            {"role": "user", "content": "before"},
            {"role": "user", "content": content},
            {"role": "assistant", "content": "after"},
        ]
        assert request_text(Request.parse({"messages": messages})) == expected
    assert request_text(Request.parse({"messages": [{"role": "system", "content": "x"}]})) == ""
