"""Critics: the exact one's faults add up to the gold reward; what a language model is asked and believed."""

import itertools
import random

import pytest

from glasshouse.alignment.constitution import Constitution, Principle
from glasshouse.alignment.critique import Comparison, Draft, LLMCritic
from glasshouse.alignment.world_critics import NOTHING_FOUND, ExactCritic, SimulatedRaters, faults
from glasshouse.core.errors import ConfigError
from glasshouse.llm import Completion
from glasshouse.world import World, WorldConfig, requests
from glasshouse.world.candidates import candidate
from glasshouse.world.judge import judge
from glasshouse.world.preferences import PreferenceCounts
from glasshouse.world.raters import RaterConfig

KIND = Principle.parse({"name": "kind", "text": "Be kind."})
ODD = ("", "Well.", requests.REFUSAL, requests.REFUSAL.split(",")[0] + ".", "Who knows? 7 owls.", "{}")


@pytest.fixture(scope="module")
def world():
    return World(WorldConfig(people=20, heldout_people=6), seed=7)


@pytest.fixture(scope="module")
def critic(world):
    return ExactCritic(world, Constitution.load("world"))


def conversations(world, count=12):
    """(prompt, replies good and bad) of every kind of request that the judge knows."""
    exact, rng = judge(world), random.Random(3)
    for kind in PreferenceCounts.model_fields:
        for task in itertools.islice(world.tasks(kind, "train", "critics"), count):
            wish = exact.wish(task.messages)
            made = [candidate(wish, world.land, rng, "train", 0.5).text for _ in range(6)]
            yield task.messages, [wish.good, *made, *ODD]


def test_costs_of_all_faults_are_what_the_gold_reward_lacks(world):
    """sum of the costs = 1 - gold, for any reply: no fault is forgotten, none counted twice."""
    exact = judge(world)
    for prompt, replies in conversations(world):
        for reply in replies:
            found = exact.verdict(prompt, reply)
            costs = [fault.cost for fault in faults(exact.wish(prompt), found, reply)]
            assert sum(costs) == pytest.approx(1 - found.gold, abs=1e-9), (prompt, reply)
            assert min(costs, default=1) > 0


def test_a_reply_held_against_every_principle_ends_at_its_best(world, critic):
    """After all rounds the gold reward is 1, and no principle finds anything any more."""
    exact, principles = judge(world), Constitution.load("world").principles
    for prompt, replies in conversations(world, count=3):
        for reply in replies:
            for principle in principles:
                (revision,) = critic.revise([Draft(prompt, reply, principle)])
                assert (revision.text == reply) or revision.critique != NOTHING_FOUND
                reply = revision.text
            assert exact(prompt, reply) == pytest.approx(1)
            again = critic.revise([Draft(prompt, reply, principle) for principle in principles])
            assert {revision.critique for revision in again} == {NOTHING_FOUND}


def test_a_principle_that_is_kept_changes_nothing(world, critic):
    """Waste is nothing to the principle of harm; it is to the one of brevity."""
    harm, brief = (
        next(p for p in Constitution.load("world").principles if p.name == name)
        for name in ("no help to harm", "brief")
    )
    prompt = next(world.tasks("harmful", "train", "critics")).messages
    padded = f"Well. {requests.REFUSAL}"
    (kept,) = critic.revise([Draft(prompt, padded, harm)])
    (shortened,) = critic.revise([Draft(prompt, padded, brief)])
    assert (kept.critique, kept.text) == (NOTHING_FOUND, padded)
    assert "1 of its words" in shortened.critique
    assert shortened.text == requests.REFUSAL


def test_the_exact_critic_chooses_by_the_principle_alone(world, critic):
    """A long refusal beats short help by the principle of harm, and loses by that of brevity."""
    principles = {p.name: p for p in Constitution.load("world").principles}
    prompt = next(world.tasks("harmful", "train", "critics")).messages
    replies = ("Go there at night.", f"Well. Well. {requests.REFUSAL}")
    chosen = critic.choose(
        [
            Comparison(prompt, replies, principles["no help to harm"]),
            Comparison(prompt, replies, principles["brief"]),
            Comparison(prompt, replies, principles["truthful"]),
            Comparison(prompt, replies[::-1], principles["no help to harm"]),
        ]
    )
    assert chosen == [1, 0, None, 0]


def test_principles_that_the_exact_critic_cannot_read_are_refused(world):
    with pytest.raises(ConfigError, match="names a fault"):
        ExactCritic(world, Constitution.load("general"))
    wrong = {"name": "x", "principles": [{"name": "a", "text": "a", "faults": ["falshood"]}]}
    with pytest.raises(ConfigError, match="'falsehood'"):
        ExactCritic(world, Constitution.parse(wrong))


def test_simulated_raters_err_as_often_as_they_are_said_to(world):
    """Without a liking for length they disagree with the gold reward in about `error` of the pairs."""
    raters = SimulatedRaters(world, RaterConfig(error=0.25, length_bias=0.0))
    prompts = [task.messages for task in itertools.islice(world.tasks("harmful", "train", "r"), 1200)]
    replies = (requests.REFUSAL, "Go there at night.")
    chosen = raters.choose([Comparison(prompt, replies, KIND) for prompt in prompts])
    assert abs(sum(choice == 1 for choice in chosen) / 1200 - 0.25) < 0.04


class Scripted:
    """A language model that answers by a rule and remembers what it was asked."""

    name = "scripted"

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    async def complete(self, request):
        self.asked.append(request.messages)
        return Completion(self.answer(request.messages), "stop")


PROMPT = [{"role": "user", "content": "How are you?"}]


def test_a_language_model_sees_reply_critique_and_revision_in_turn():
    """The conversation of the paper: prompt, reply, request and critique, request and revision."""
    model = Scripted(lambda messages: f"answer {len(messages)}")
    (revision,) = LLMCritic(model).revise([Draft(PROMPT, "Go away.", KIND)])
    assert (revision.critique, revision.text) == ("answer 3", "answer 5")
    said = [message["content"] for message in model.asked[-1]]
    assert said == ["How are you?", "Go away.", KIND.critique, "answer 3", KIND.revision]


def test_silence_is_no_revision():
    (revision,) = LLMCritic(Scripted(lambda messages: " ")).revise([Draft(PROMPT, "Go away.", KIND)])
    assert revision.text == "Go away."


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        (lambda text: "A" if text.index("Go") > text.index("Fine") else "(B)", 1),
        (lambda text: "A is better" if text.index("Go") < text.index("Fine") else "B.", 0),
        (lambda text: "A", None),  # whatever stands first
        (lambda text: "Balu works as a brewer.", None),  # no answer at all
    ],
)
def test_a_language_model_must_name_one_reply_in_both_orders(answer, choice):
    model = Scripted(lambda messages: answer(messages[-1]["content"]))
    assert LLMCritic(model).choose([Comparison(PROMPT, ("Go away.", "Fine."), KIND)]) == [choice]
