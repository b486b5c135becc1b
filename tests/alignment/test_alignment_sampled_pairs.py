"""Pairs of a policy's own replies: what it says, compared each with each, as a rater finds."""

import itertools
from pathlib import Path

import pytest

from glasshouse.alignment.judge import Program
from glasshouse.alignment.raters import Choice, higher_score, simulated_rater
from glasshouse.alignment.rollouts import sample_replies
from glasshouse.alignment.sampled_pairs import sampled_pairs
from glasshouse.core.errors import DataError
from glasshouse.core.seeds import derive
from glasshouse.files.position import Position
from glasshouse.files.preferences import preference_of
from glasshouse.tokenizer import Tokenizer
from glasshouse.world import World, WorldConfig
from glasshouse.world.preferences import PreferenceConfig, preferences
from glasshouse.world.raters import RaterConfig

EXAMPLES = [{"prompt": [{"role": "user", "content": text}], "kind": "k"} for text in ("Hi", "Say a", "Go")]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([], 265)


@pytest.fixture(scope="module")
def model(small_model):
    return small_model(num_hidden_layers=1).eval()


LENGTH = higher_score(Program("length", lambda example, reply: float(len(reply))))


def pairs(model, tokenizer, rater=LENGTH, examples=EXAMPLES, **changes):
    return list(
        sampled_pairs(model, tokenizer, examples, rater, **{"seed": 3, "max_new_tokens": 8} | changes)
    )


def said(pair, side):
    return pair[side][0]["content"]


def test_every_reply_of_a_group_is_compared_with_every_other(model, tokenizer):
    """The texts are those that the policy samples; the rater's choice stands as the chosen one."""
    found = pairs(model, tokenizer)
    ids = [tokenizer.encode_chat(e["prompt"], add_generation_prompt=True).ids for e in EXAMPLES]
    seeds = [derive(3, "sampled pairs", place) for place in range(3)]
    for example, group in zip(EXAMPLES, sample_replies(model, tokenizer, ids, seeds, 4, 8), strict=True):
        mine = [pair for pair in found if pair["prompt"] == example["prompt"]]
        compared = {frozenset((said(pair, "chosen"), said(pair, "rejected"))) for pair in mine}
        texts = {reply.text for reply in group}
        assert compared == set(map(frozenset, itertools.combinations(texts, 2)))
    assert all(len(said(pair, "chosen")) >= len(said(pair, "rejected")) for pair in found)
    for pair in found:
        equal = len(said(pair, "chosen")) == len(said(pair, "rejected"))
        assert pair.get("tie", False) == equal
        assert preference_of(pair, Position(Path("f"), 1), "f")["chosen"] == pair["chosen"]


def test_fewer_pairs_of_a_prompt_are_drawn_by_lot_and_again_the_same(model, tokenizer):
    every, two = pairs(model, tokenizer), pairs(model, tokenizer, most=2)
    assert two == pairs(model, tokenizer, most=2)
    assert len(two) == 6
    assert all(pair in every for pair in two)
    assert two != pairs(model, tokenizer, most=2, seed=4)


def test_what_the_rater_says_stands_in_the_row(model, tokenizer):
    """Its margin, and what is known of its choice."""
    told = pairs(model, tokenizer, lambda example, replies: Choice(1, 0.5, {"why": example["kind"]}))
    assert {(pair["margin"], pair["metadata"]["why"], pair["source"]) for pair in told} == {
        (0.5, "k", "sampled")
    }


def test_simulated_raters_judge_samples_as_they_judge_the_worlds_own_pairs():
    """The same preference, gold and utility for every pair of the world, whichever reply comes first."""
    world = World(WorldConfig(people=20, heldout_people=5), seed=7)
    config = PreferenceConfig(raters=RaterConfig(error=0.0))
    rater = simulated_rater(world, config.raters)
    seen = 0
    for pair in itertools.islice(preferences(world, config), 60):
        told, texts = pair["metadata"], (said(pair, "chosen"), said(pair, "rejected"))
        for order, first in ((texts, 0), (texts[::-1], 1)):
            choice = rater({**pair, "kind": told["kind"]}, order)
            assert choice.preferred == first
            assert {**told, **choice.about} == told
            seen += told["flipped"]
    assert not seen


def test_an_erring_rater_asked_again_may_err_differently():
    """The share of errors is as stated, and another round has errors of its own."""
    world = World(WorldConfig(people=20, heldout_people=5), seed=7)
    rows = list(itertools.islice(preferences(world, PreferenceConfig()), 400))

    def errors(*asked):
        rater = simulated_rater(world, RaterConfig(error=0.3), *asked)
        return [rater(row, (said(row, "chosen"), said(row, "rejected"))).about["flipped"] for row in rows]

    first, second = errors("round", 1), errors("round", 2)
    assert 0.2 < sum(first) / 400 < 0.4
    assert first == errors("round", 1)
    assert first != second


def test_an_empty_prompt_is_refused(model, tokenizer):
    with pytest.raises(DataError, match=r"prompt is empty.*example 1"):
        pairs(model, tokenizer, examples=[{"prompt": []}])
