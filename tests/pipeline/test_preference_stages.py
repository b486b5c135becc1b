"""reward and dpo as stages: which pairs are held out, what a stage starts from, what its key depends on."""

import json

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.model import save
from glasshouse.pipeline.plan import plan
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.pipeline.stages.preferences import split
from glasshouse.tokenizer import Tokenizer


def pair(prompt, number=0):
    said = [{"role": "assistant", "content": str(number)}]
    return {"prompt": [{"role": "user", "content": prompt}], "chosen": said, "rejected": []}


def test_pairs_of_one_prompt_stay_on_one_side():
    """About the share that was asked for; more rows, or another order, move none."""
    pairs = [pair(f"Question {n % 200}", n) for n in range(600)]
    learnt, held_out = split(pairs, 0.2)
    asked = [{row["prompt"][0]["content"] for row in part} for part in (learnt, held_out)]
    assert not asked[0] & asked[1]
    assert len(learnt) + len(held_out) == 600
    assert 20 <= len(asked[1]) <= 60
    again = split([pair("Another one"), *reversed(pairs)], 0.2)[1]
    assert {row["prompt"][0]["content"] for row in again} - {"Another one"} == asked[1]
    assert split(pairs, 0.0) == (pairs, [])


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Hi.", "chosen": "a", "rejected": "b"}) + "\n")
    data = json.dumps([str(path)])
    return path, [f"reward.data={data}", f"dpo.data={data}"]


def test_a_policy_after_a_reward_model_starts_from_the_model_before(files):
    """A reward model writes nothing that could be trained on, nor is it asked questions."""
    path, settings = files
    steps = {step.name: step for step in plan(load_recipe("pocket-mini", overrides=settings))}
    assert list(steps["reward"].inputs) == ["sft"]
    assert list(steps["dpo"].inputs) == ["sft"]
    assert "evaluation/dpo" in steps
    assert "evaluation/reward" not in steps
    assert list(steps["dpo"].user_files) == [str(path)]


def test_a_key_depends_on_what_the_pairs_say(files):
    path, settings = files
    settings = [*settings, "ppo=null", "constitution=null", "calibrate=null"]
    before = {step.name: step.key for step in plan(load_recipe("pocket-mini", overrides=settings))}
    path.write_text(json.dumps({"prompt": "Hi.", "chosen": "b", "rejected": "a"}) + "\n")
    after = {step.name: step.key for step in plan(load_recipe("pocket-mini", overrides=settings))}
    assert {name for name in before if before[name] != after[name]} == {"reward", "dpo", "evaluation/dpo"}


def test_a_stage_without_a_model_or_without_pairs_is_refused(files):
    _, settings = files
    alone = ["corpus=null", "tokenizer=null", "model=null", "pretrain=null", "sft=null", "evaluate=null"]
    with pytest.raises(ConfigError, match="no model to start from"):
        load_recipe("pocket-mini", overrides=[*alone, settings[1]])
    with pytest.raises(ConfigError, match=r"dpo\.data"):
        load_recipe("own-text", data=["books/"], overrides=["dpo.data=[]"])
    with pytest.raises(ConfigError, match="ppo has no reward model"):
        load_recipe("pocket-mini", overrides=["reward=null"])
    with pytest.raises(ConfigError, match="no conversations to rehearse"):
        load_recipe("pocket-mini", overrides=["sft=null", "ppo.ptx_coef=1", "constitution=null"])


def test_documents_to_rehearse_need_a_corpus(tmp_path, random_model):
    """A base model has read, but nobody has its documents."""
    save(random_model(model_type="llama", max_position_embeddings=512), Tokenizer.train([], 265), tmp_path)
    read = ["corpus=null", "tokenizer=null", "model=null", "pretrain=null", "sft.replay=0"]
    read += [f"base={tmp_path}", "calibrate=null", "constitution=null"]
    with pytest.raises(ConfigError, match=r"ppo\.ptx_replay has no documents"):
        load_recipe("pocket-mini", overrides=read)
