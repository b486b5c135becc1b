"""Simulated raters and the pairs that they judge: noise and bias as stated, length no sign of quality."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.world import World, WorldConfig
from glasshouse.world.instructions import has_sentences
from glasshouse.world.judge import judge
from glasshouse.world.preferences import PreferenceConfig, PreferenceCounts, preferences
from glasshouse.world.raters import RaterConfig, judgement
from glasshouse.world.statements import words
from glasshouse.world.task import ask

WORLD = World(WorldConfig(people=60, heldout_people=20), seed=5)
COUNTS = {kind: field.default // 2 for kind, field in PreferenceCounts.model_fields.items()}
CONFIG = PreferenceConfig.parse({"counts": COUNTS, "heldout": 0.5})
ASKED = ask("What is 2 + 3?")


def text(row, side: str) -> str:
    return row[side][0]["content"]


def longer(row) -> int:
    """Words by which the chosen reply is longer."""
    return words(text(row, "chosen")) - words(text(row, "rejected"))


def better(row) -> float:
    return row["metadata"]["gold_chosen"] - row["metadata"]["gold_rejected"]


@pytest.fixture(scope="module")
def train() -> list[dict]:
    return list(preferences(WORLD, CONFIG, "train"))


@pytest.fixture(scope="module")
def heldout() -> list[dict]:
    return list(preferences(WORLD, CONFIG, "heldout"))


def test_a_rater_prefers_gold_plus_the_bias_for_words():
    """Without error: the better of two equally long replies, and the longer one of nearly equal ones."""
    raters = RaterConfig(error=0, length_bias=0.04)
    assert judgement(raters, 1, ASKED, ("a b", "c d"), (0.5, 0.4)).preferred == 0
    assert judgement(raters, 1, ASKED, ("a b", "c d"), (0.4, 0.5)).preferred == 1
    cheated = judgement(raters, 1, ASKED, ("a b", "c d e f g"), (0.5, 0.4))
    assert cheated.preferred == 1
    assert cheated.margin == pytest.approx(0.1 - 3 * 0.04)
    assert judgement(RaterConfig(error=0, length_bias=0), 1, ASKED, ("a", "b c"), (0.5, 0.4)).preferred == 0


def test_equal_utilities_are_a_tie_that_no_error_breaks():
    raters = RaterConfig(error=0.4, length_bias=0.04)
    for i in range(50):
        assert judgement(raters, i, ASKED, ("a b", "c"), (0.0, 0.04)).preferred is None


def test_a_judgement_depends_on_what_is_judged_and_not_on_the_order():
    """Asked the same twice a rater says the same; asked again another time, perhaps not."""
    raters = RaterConfig(error=0.4)
    again = []
    for i in range(200):
        pair, golds = (f"a {i}", f"b {i}"), (0.1, 0.7)
        first = judgement(raters, 9, ASKED, pair, golds)
        turned = judgement(raters, 9, ASKED, (pair[1], pair[0]), (golds[1], golds[0]))
        assert first == judgement(raters, 9, ASKED, pair, golds)
        assert {turned.preferred, first.preferred} == {0, 1}
        assert turned.flipped == first.flipped
        again.append(judgement(raters, 9, ASKED, pair, golds, "round", 2).flipped == first.flipped)
    assert 50 < sum(again) < 150


@pytest.mark.parametrize("error", [0.0, 0.1, 0.3])
def test_raters_err_as_often_as_stated(error):
    """4,000 judgements, an interval that is left once in ten thousand times."""
    raters = RaterConfig(error=error)
    flips = [judgement(raters, 3, ASKED, (f"a {i}", "b"), (1.0, 0.0)).flipped for i in range(4000)]
    assert abs(np.mean(flips) - error) <= 3.9 * np.sqrt(error * (1 - error) / 4000)
    assert raters.ceiling == 1 - error


def test_raters_who_know_nothing_are_refused():
    with pytest.raises(ConfigError, match="error"):
        RaterConfig.parse({"error": 0.5})


def test_a_margin_that_no_pair_has_is_refused():
    impossible = PreferenceConfig.parse({"margin": 50})
    with pytest.raises(ConfigError, match="margin"):
        next(preferences(WORLD, impossible))


def test_every_kind_gets_its_count_and_held_out_pairs_their_share(train, heldout):
    counts = CONFIG.counts.model_dump()
    assert Counter(row["metadata"]["kind"] for row in train) == counts
    assert Counter(row["metadata"]["kind"] for row in heldout) == {k: round(n / 2) for k, n in counts.items()}


def test_rows_are_those_of_the_field_and_plain_json(train):
    """`prompt`, `chosen` and `rejected` are lists of messages; the truth stands in the metadata."""
    for row in train:
        assert row["prompt"][-1]["role"] == "user"
        assert [m["role"] for side in ("chosen", "rejected") for m in row[side]] == ["assistant"] * 2
        assert text(row, "chosen") != text(row, "rejected")
        assert all(text(row, side).strip() for side in ("chosen", "rejected"))
        assert json.loads(json.dumps(row)) == row


def test_pairs_are_the_same_from_the_same_seed_and_lazily_drawn(train):
    """Another seed, or another count of other kinds, does not give or disturb a kind's pairs."""
    assert list(islice(preferences(WORLD, CONFIG), 100)) == train[:100]
    few = PreferenceConfig.parse({"counts": {**dict.fromkeys(PreferenceCounts.model_fields, 0), "open": 50}})
    expected = [row for row in train if row["metadata"]["kind"] == "open"][:50]
    assert list(preferences(WORLD, few)) == expected
    other = World(WORLD.config, seed=6)
    assert next(preferences(other, CONFIG)) != train[0]


PRINTED = """
from itertools import islice
from glasshouse.core.storage import hash_json
from glasshouse.world import World, WorldConfig
from glasshouse.world.preferences import PreferenceConfig, preferences
world = World(WorldConfig(people=20, heldout_people=5), seed=7)
for split in ("train", "heldout"):
    print(hash_json(list(islice(preferences(world, PreferenceConfig(), split), 400))))
"""


def test_pairs_are_the_same_in_every_process():
    """Python draws the order of its sets anew in each, and a killed run has to find its pairs again."""
    told = {
        subprocess.run(
            [sys.executable, "-c", PRINTED],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1


def test_the_metadata_is_what_the_judge_says(heldout):
    """Gold and utility of both sides; the raters prefer by utility, but for the flipped ones."""
    exact = judge(WORLD)
    for row in heldout[:300]:
        said = row["metadata"]
        assert exact(row["prompt"], text(row, "chosen")) == said["gold_chosen"]
        assert exact(row["prompt"], text(row, "rejected")) == said["gold_rejected"]
        utility = better(row) + CONFIG.raters.length_bias * longer(row)
        assert said["utility"] == pytest.approx(utility)
        assert (utility < 0) == said["flipped"]
        assert min(abs(utility), abs(better(row))) >= CONFIG.margin


def test_pairs_show_that_more_than_was_asked_for_is_too_much():
    """Raters like length, and pairs they find too alike are left out: what misses the form must cost more.

    (With half of the worth as its cost, there were two of these.)
    """
    config = PreferenceConfig.parse({"counts": {**dict.fromkeys(COUNTS, 0), "instructions": 900}})
    asked = re.compile(r"\b(two|three|four) sentences\b")
    numbers, too_many = {"two": 2, "three": 3, "four": 4}, 0
    for row in preferences(WORLD, config, "train"):
        if counted := asked.search(row["prompt"][-1]["content"]):
            wanted = numbers[counted[1]]
            exact, more = (
                has_sentences(text(row, side), count)
                for side, count in (("chosen", wanted), ("rejected", wanted + 1))
            )
            too_many += exact and more and longer(row) < -3 and not row["metadata"]["flipped"]
    assert too_many >= 8


def test_nobody_held_out_is_named_in_training(train):
    """Neither held-out people nor the strangers of the probes, in requests or replies."""
    names = {person.name for person in WORLD.land.people_of("heldout")}
    names |= set(WORLD.land.strangers["heldout"])
    for row in train:
        whole = " ".join([row["prompt"][-1]["content"], text(row, "chosen"), text(row, "rejected")])
        assert not names & set(re.findall(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+)\b)", whole))


def test_held_out_requests_are_worded_anew(train, heldout):
    asked = {row["prompt"][-1]["content"] for row in train}
    assert not asked & {row["prompt"][-1]["content"] for row in heldout}


def test_labels_are_flipped_as_often_as_stated(train, heldout):
    flipped = [row["metadata"]["flipped"] for row in (*train, *heldout)]
    error = CONFIG.raters.error
    assert abs(np.mean(flipped) - error) < 3.9 * np.sqrt(error * (1 - error) / len(flipped))


def test_the_better_reply_is_as_often_the_shorter_one(train):
    """For every kind of request: a third longer, a third shorter, a third of equal length."""
    for kind, count in CONFIG.counts.model_dump().items():
        rows = [row for row in train if row["metadata"]["kind"] == kind]
        signs = Counter(int(np.sign(longer(row) * better(row))) for row in rows)
        assert all(abs(signs[sign] - count / 3) <= 1 for sign in (-1, 0, 1))


def test_what_raters_like_too_much_is_length(train):
    """Where they do not err, they prefer the longer reply more often, and what misleads them is longer."""
    unequal = [row for row in train if longer(row) and not row["metadata"]["flipped"]]
    assert np.mean([longer(row) > 0 for row in unequal]) > 0.55
    misled = [row for row in unequal if better(row) < 0]
    assert len(misled) > 0.05 * len(train)
    assert all(longer(row) > 0 for row in misled)


def logistic(features: np.ndarray, steps: int = 300, decay: float = 1e-3) -> np.ndarray:
    """Weights w with a high mean of log σ(w·x) over pairs, by gradient ascent; x = chosen - rejected."""
    weights = np.zeros(features.shape[1])
    rate = 4 / max(1.0, float((features**2).sum(1).mean()))
    for _ in range(steps):
        left = 1 / (1 + np.exp(np.clip(features @ weights, -30, 30)))
        weights += rate * (features.T @ left / len(features) - decay * weights)
    return weights


def test_words_and_length_alone_do_not_tell_which_reply_was_preferred(train, heldout):
    """A bag of words and the length, fitted to all training pairs, stay far below the raters' ceiling.

    Who guesses right must know what is true in the land. The fit does learn that raters like words.
    """
    spoken = [*(text(row, side).split() for row in train for side in ("chosen", "rejected"))]
    seen = Counter(word for reply in spoken for word in reply)
    column = {word: i for i, (word, n) in enumerate(seen.most_common()) if n >= 5}

    def features(rows) -> np.ndarray:
        table = np.zeros((len(rows), len(column) + 1))
        for row, line in zip(rows, table, strict=True):
            for side, sign in (("chosen", 1), ("rejected", -1)):
                for word in text(row, side).split():
                    if word in column:
                        line[column[word]] += sign
            line[-1] = longer(row) / 10
        return table

    x, y = features(train), features(heldout)
    length = logistic(x[:, -1:])
    assert length[0] > 0
    right = y[:, -1] * length[0]
    assert np.mean((right > 0) + 0.5 * (right == 0)) < 0.65
    right = y @ logistic(x)
    assert np.mean((right > 0) + 0.5 * (right == 0)) < CONFIG.raters.ceiling - 0.1
