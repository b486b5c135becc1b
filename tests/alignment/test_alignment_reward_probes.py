"""Measured with the world's truth: a policy's rewards, a judge against a reference, raters' agreement."""

import itertools

import pytest
import torch

from glasshouse.alignment.judge import AgainstReference, Program, judged
from glasshouse.alignment.rater_agreement import rater_agreement
from glasshouse.alignment.reward_model import RewardModel
from glasshouse.alignment.reward_probes import reward_probes
from glasshouse.alignment.rollouts import Reply
from glasshouse.inference import LanguageModel
from glasshouse.model.scalar_head import ScalarTransformer
from glasshouse.tokenizer import Tokenizer
from glasshouse.world import World, WorldConfig
from glasshouse.world.judge import judge
from glasshouse.world.preferences import PreferenceConfig, PreferenceCounts, preferences
from glasshouse.world.raters import RaterConfig

WORLD = World(WorldConfig(people=60, heldout_people=20), seed=5)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train((row["text"] for row in itertools.islice(WORLD.documents(), 400)), 400)


@pytest.fixture(scope="module")
def speaker(small_model, tokenizer):
    """speaker(seed): a model that says something, each seed something else."""

    def make(seed):
        shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 512}
        return LanguageModel(small_model(noise=0.1, seed=seed, **shape).eval(), tokenizer)

    return make


@pytest.fixture(scope="module")
def rewarder(speaker, tokenizer):
    """A reward model that likes something, nobody knows what."""
    model = ScalarTransformer.on_trunk(speaker(3).model)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(1, 32, generator=torch.Generator().manual_seed(0)))
    return RewardModel(model.eval(), tokenizer)


def test_a_policy_is_no_distance_and_no_gain_away_from_itself(speaker, rewarder):
    model = speaker(1)
    found = reward_probes(WORLD, model, 12, model, rewarder)
    assert found["kl_to_reference"].value == pytest.approx(0, abs=1e-5)
    assert found["reward_proxy"].value == found["reward_gold_gain"].value == 0
    assert found["reward_gold"].value <= 1
    assert set(reward_probes(WORLD, model, 4)) == {"reward_gold"}


def test_another_policy_is_away_from_it(speaker, rewarder):
    one, two = speaker(1), speaker(2)
    found = reward_probes(WORLD, one, 12, two, rewarder)
    assert found["kl_to_reference"].low > 0
    assert found["reward_proxy"].value != 0
    alone = [reward_probes(WORLD, model, 12)["reward_gold"].value for model in (one, two)]
    assert found["reward_gold_gain"].value == pytest.approx(alone[0] - alone[1])


def test_the_reference_s_own_reply_is_worth_nothing_and_differences_stay(speaker, tokenizer):
    model = speaker(1)
    examples = [{"prompt": task.messages} for task in itertools.islice(WORLD.tasks("open", "train"), 3)]
    inner = Program("length", lambda row, reply: float(len(reply) + len(row["prompt"][0]["content"])))
    against = AgainstReference.greedy(inner, examples, model, 16)
    encode = tokenizer.encode_chat
    prompts = [encode(row["prompt"], add_generation_prompt=True).ids for row in examples]
    greedy = [
        tokenizer.decode(ids, skip_special=True) for ids in model.generate_batch(prompts, max_new_tokens=16)
    ]
    groups = [[Reply((), (), text, True), Reply((), (), "Other.", True)] for text in greedy]
    rewards, plain = judged(against, examples, groups), judged(inner, examples, groups)
    assert rewards[:, 0].tolist() == [0, 0, 0]
    assert torch.equal(rewards[:, 1] - rewards[:, 0], plain[:, 1] - plain[:, 0])
    assert against.name != inner.name


def test_agreement_is_counted_against_labels_meaning_and_gold(rewarder):
    """All three again by brute force, from the rewards of each reply alone."""
    counts = PreferenceCounts.parse(
        {**dict.fromkeys(PreferenceCounts.model_fields, 0), "open": 30, "harmful": 10}
    )
    config = PreferenceConfig(counts=counts, raters=RaterConfig(error=0.3))
    pairs, model = list(preferences(WORLD, config)), rewarder
    found = rater_agreement(model, pairs, config.raters)
    exact = judge(WORLD)
    labels = meant = gold = 0
    for row in pairs:
        one, two = (
            float(model.score([{"messages": row["prompt"] + row[s]}])) for s in ("chosen", "rejected")
        )
        hit = one > two
        golds = [exact(row["prompt"], row[side][0]["content"]) for side in ("chosen", "rejected")]
        labels += hit
        meant += hit != row["metadata"]["flipped"]
        gold += hit == (golds[0] > golds[1])
    assert found["accuracy"]["value"] == pytest.approx(labels / 40)
    assert found["with_raters"]["value"] == pytest.approx(meant / 40)
    assert found["with_gold"]["value"] == pytest.approx(gold / 40)
    assert found["ceiling"] == 0.7
    assert sum(share["n"] for share in found["by_kind"].values()) == 40
    assert sum(row["accuracy"]["n"] for row in found["by_difficulty"] if row["accuracy"]) == 40
