"""Stages that learn from the policy's own replies: what they start from, who judges, what is refused."""

import json

import pytest
import torch

from glasshouse.alignment.reward_model import RewardConfig, RewardModel, reward_model
from glasshouse.core.errors import ConfigError, ModelError
from glasshouse.model import ModelConfig, initialise, load, save
from glasshouse.pipeline.plan import plan
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.pipeline.stages.own_samples import RejectionStage, rejection
from glasshouse.pipeline.stages.reinforcement import PPOStage, ppo
from glasshouse.pipeline.train import train_stage
from glasshouse.tokenizer import Tokenizer

LATER = ("grpo", "ppo", "constitution", "calibrate", "evaluate", "report")
MINI = ["reward={}", "rejection={}", "dpo={}", "rounds={}", *(f"{stage}=null" for stage in LATER)]


def steps(*overrides):
    return {step.name: step for step in plan(load_recipe("pocket-mini", overrides=[*MINI, *overrides]))}


def test_each_starts_from_the_model_before_and_is_judged_by_the_recipes_reward_model():
    found = steps()
    assert list(found["rejection"].inputs) == ["sft", "reward"]
    assert list(found["dpo"].inputs) == ["rejection"]
    assert list(found["rounds"].inputs) == ["dpo"]
    assert list(steps("reward=null")["rejection"].inputs) == ["sft"]
    assert list(steps("rejection.replay=0.1")["rejection"].inputs) == ["sft", "corpus", "reward"]


def test_a_setting_of_the_inner_trainings_changes_the_rounds_alone():
    before, after = steps(), steps("rounds.ppo.kl_coef=0.3", "rounds.raters.error=0.2")
    assert {name for name in before if before[name].key != after[name].key} == {"rounds"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rejection.replay=0.1", "corpus=null", "tokenizer=null"], r"needs|replay"),
        (["rounds.ppo.reference=elsewhere"], "the reference of all rounds"),
        (["rounds.ppo.ptx_coef=1"], "nothing to rehearse"),
        (["rounds.reward.sequence_length=4096"], r"rounds.sequence_length \(4096\) is longer"),
    ],
)
def test_sections_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        steps(*settings)


def make(folder, tokenizer):
    shape = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
    }
    model = initialise(ModelConfig.parse(shape), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        model.lm_head.weight[tokenizer.end_of_turn_id] *= 4  # most replies end
    save(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make(tmp_path_factory.mktemp("base") / "model", Tokenizer.train([], 265))


@pytest.fixture(scope="module")
def reward(base, tmp_path_factory):
    """A reward model that is an adapter on the base."""
    out = tmp_path_factory.mktemp("reward") / "reward"
    said = [[{"role": "assistant", "content": text}] for text in ("Yes", "No")]
    asked = [[{"role": "user", "content": str(number)}] for number in range(16)]
    pairs = [{"prompt": prompt, "chosen": said[0], "rejected": said[1]} for prompt in asked]
    plain = {"dtype": "float32", "device": "cpu", "batch_tokens": 512, "sequence_length": 64}
    reward_model(base, pairs, out, RewardConfig.parse({**plain, "lora": {"r": 2}}))
    return out / "model"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "sums.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "answer": str(n)}) + "\n" for n in range(8)))
    return str(path)


SAMPLES = {"dtype": "float32", "device": "cpu", "max_new_tokens": 16, "epochs": 1}
ROLLOUTS = {**SAMPLES, "sequence_length": 64, "batch_tokens": 8 * 64}


def test_under_an_adapter_ppo_opens_no_second_trunk_for_its_reward_model(
    base, reward, prompts, tmp_path, monkeypatch
):
    """The reward model is read from its adapter; without one, or on other weights, as a model of its own."""
    opened = []
    original = RewardModel.load.__func__
    monkeypatch.setattr(
        RewardModel, "load", classmethod(lambda cls, *a, **k: opened.append(a) or original(cls, *a, **k))
    )
    config = {**ROLLOUTS, "data": (prompts,)}
    ppo(PPOStage.parse({**config, "lora": {"r": 2}}), base, reward, tmp_path / "lora")
    assert not opened
    ppo(PPOStage.parse(config), base, reward, tmp_path / "full")
    assert len(opened) == 1


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_a_reward_model_of_another_tokenizer_is_refused(reward, prompts, tmp_path, lora):
    """By PPO and by rejection sampling, before anything is sampled."""
    other = make(tmp_path / "other", Tokenizer.train(["to be or not to be " * 50], 300))
    policy = PPOStage.parse({**ROLLOUTS, "data": (prompts,), "lora": lora})
    best = RejectionStage.parse({**SAMPLES, "data": (prompts,), "sequence_length": 64, "lora": lora})
    with pytest.raises(ModelError, match="another tokenizer"):
        ppo(policy, other, reward, tmp_path / "ppo")
    with pytest.raises(ModelError, match="another tokenizer"):
        rejection(best, other, tmp_path / "rejection", reward=reward)


def test_a_command_learns_from_the_best_by_a_reward_model(base, reward, prompts, tmp_path):
    """`glasshouse train rejection`: a run folder with a model, and readable conversations."""
    settings = [
        f"reward_model={reward}",
        "n=4",
        "max_new_tokens=32",
        "sequence_length=96",
        "batch_tokens=192",
    ]
    section = {"data": [prompts], "epochs": 1.0}
    run = train_stage("rejection", str(base), section, tmp_path / "run", settings, "cpu")
    assert (run.path / "rejection" / "model" / "config.json").is_file()
    rows = [json.loads(line) for line in (run.path / "rejection" / "best.jsonl").open()]
    assert rows
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)
    before, after = load(base), load(run.path / "rejection" / "model")
    assert any(not torch.equal(x, y) for x, y in zip(before.parameters(), after.parameters(), strict=True))
