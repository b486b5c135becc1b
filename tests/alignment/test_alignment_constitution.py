"""Constitutions: plain words in a YAML file, clear errors, and principles drawn by weight."""

import random
from collections import Counter

import pytest

from glasshouse.alignment.constitution import Constitution, shipped_constitutions
from glasshouse.alignment.world_critics import KINDS
from glasshouse.core.errors import ConfigError


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_a_name_and_plain_words_are_enough(tmp_path):
    """What a critic is asked is made of the principle's text."""
    path = written(tmp_path, "name: mine\nprinciples:\n- {name: kind, text: Be kind.}\n")
    (principle,) = Constitution.load(path).principles
    assert "Be kind." in principle.critique
    assert "Be kind." in principle.comparison
    assert principle.revision


def test_own_requests_to_the_critic_are_kept(tmp_path):
    path = written(
        tmp_path, 'name: mine\nprinciples:\n- {name: kind, text: Be kind., critique: "Is it kind?"}\n'
    )
    assert Constitution.load(path).principles[0].critique == "Is it kind?"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: mine\nprinciples: []\n", ["principles", "mine.yaml"]),
        ("name: mine\nprinciples:\n- {name: kind}\n", ["principles.0.text", "mine.yaml"]),
        ("name: mine\nprinciples:\n- {name: a, text: b, wieght: 2}\n", ["wieght", "weight", "mine.yaml"]),
        (
            "name: mine\nprinciples:\n- {name: a, text: b}\n- {name: a, text: c}\n",
            ["two principles are called 'a'"],
        ),
        ("name: mine\nprinciples:\n- {name: a, text: b, weight: 0}\n", ["weight"]),
    ],
)
def test_a_broken_constitution_is_refused_with_its_place(tmp_path, text, told):
    with pytest.raises(ConfigError) as error:
        Constitution.load(written(tmp_path, text))
    assert all(part in str(error.value) for part in told)


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'general'"):
        Constitution.load("generel")


def test_the_shipped_ones_hold_what_the_docs_promise():
    """One for general use, in words alone; one whose principles cover all that the exact critic finds."""
    assert shipped_constitutions() == ["general", "world"]
    general, world = (Constitution.load(name) for name in ("general", "world"))
    named = {principle.name for principle in general.principles}
    assert named >= {"helpful", "truthful", "no help to harm", "no needless refusal", "fair", "private"}
    assert {fault for principle in world.principles for fault in principle.faults} == set(KINDS)


def test_draws_follow_the_weights_and_repeat_none():
    """First places come in proportion to the weights; a draw of all is an order of all."""
    heavy = {"name": "a", "text": "a", "weight": 3}
    light = [{"name": name, "text": name} for name in "bc"]
    constitution = Constitution.parse({"name": "x", "principles": [heavy, *light]})
    rng = random.Random(1)
    draws = [[principle.name for principle in constitution.draw(rng, 9)] for _ in range(2000)]
    assert all(sorted(draw) == ["a", "b", "c"] for draw in draws)
    first = Counter(draw[0] for draw in draws)
    assert abs(first["a"] / 2000 - 0.6) < 0.04
