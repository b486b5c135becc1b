"""constitution as a stage: what its key depends on, what it refuses, and a run with each kind of critic."""

import json

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.inference import LanguageModel
from glasshouse.pipeline.plan import plan
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.pipeline.stages.constitution import ConstitutionStage, constitution
from glasshouse.pipeline.stages.sft import read
from glasshouse.pipeline.train import train_stage
from glasshouse.world import World
from glasshouse.world.preferences import PreferenceCounts
from glasshouse.world.requests import REFUSAL

MINI = ["constitution.constitution=world", "constitution.critic=exact"]
ROWS = {"sequence_length": 256, "batch_tokens": 1024}


def keys(*settings):
    return {step.name: step.key for step in plan(load_recipe("pocket-mini", overrides=[*MINI, *settings]))}


def test_the_key_depends_on_what_the_constitution_says(tmp_path):
    """Not on where its file lies."""
    text = "name: mine\nprinciples:\n- {name: a, text: b, faults: [harm]}\n"
    paths = [tmp_path / name for name in ("one.yaml", "two.yaml", "three.yaml")]
    for path, said in zip(paths, (text, text, text.replace("text: b", "text: c")), strict=True):
        path.write_text(said)
    one, two, three = (keys(f"constitution.constitution={path}") for path in paths)
    assert one == two
    later = {name for name in one if one[name] != three[name]}
    assert later == {"constitution", "evaluation/constitution", "calibrate", "evaluation/calibrate"}


def test_it_starts_from_the_model_before_and_takes_what_it_replays():
    settings = [*MINI, "constitution.rehearsal=1", "constitution.supervised.replay=1"]
    steps = {step.name: step for step in plan(load_recipe("pocket-mini", overrides=settings))}
    assert list(steps["constitution"].inputs) == ["ppo", "sft", "corpus"]
    nothing = [*MINI, "constitution.rehearsal=0", "constitution.supervised.replay=0", "ppo=null"]
    steps = {step.name: step for step in plan(load_recipe("pocket-mini", overrides=nothing))}
    assert list(steps["constitution"].inputs) == ["sft"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["constitution.data=[prompts.jsonl]"], "exact critic"),
        (
            ["constitution.critic=self", "constitution.data=[prompts.jsonl]", "constitution.ai_share=0.5"],
            "raters",
        ),
        (["constitution.ppo={}"], "constitution.ppo"),
        (["constitution.grpo=null"], "set both"),
        (["constitution.constitution=wrold"], "did you mean 'world'"),
        (["constitution.grpo.sequence_length=1024"], "longer than the model's context"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(settings, told):
    with pytest.raises(ConfigError, match=told):
        plan(load_recipe("pocket-mini", overrides=[*MINI, *settings]))


def test_both_schools_branch_from_one_model():
    """Every stage up to sft has the same key in both recipes, and sees no harmful request."""
    recipes = [load_recipe(name) for name in ("pocket-rlhf", "pocket-cai")]
    rlhf, cai = ({step.name: step.key for step in plan(recipe)} for recipe in recipes)
    shared = {name for name in rlhf if rlhf[name] == cai.get(name)}
    assert shared >= {"corpus", "tokenizer", "pretrain", "sft", "evaluation/sft"}
    assert "ppo" in rlhf
    assert "constitution" in cai
    assert all(recipe.world.conversations.harmful == 0 for recipe in recipes)


def test_the_stage_with_the_exact_critic_leaves_readable_work_and_a_model(tiny_run, tmp_path):
    """Both labellers take part, harmful replies are revised, and earlier texts are learnt again."""
    recipe = load_recipe(tiny_run / "recipe.yaml")
    kinds = dict.fromkeys(PreferenceCounts.model_fields, 0)
    kinds |= dict.fromkeys(("questions", "strangers", "instructions", "harmful", "harmless"), 3)
    config = ConstitutionStage.parse(
        {
            "constitution": "world",
            "critic": "exact",
            "rounds": 6,
            "max_new_tokens": 16,
            "rehearsal": 1,
            "ai_share": 0.5,
            "supervised": {**ROWS, "replay": 0.5},
            "preference": ROWS,
            "grpo": {**ROWS, "group": 2, "max_new_tokens": 16, "tokens": 2048},
            "world_prompts": kinds,
            "device": "cpu",
        }
    )
    out, world = tmp_path / "constitution", World(recipe.world, recipe.seed)
    earlier = tiny_run / "sft" / "conversations.jsonl"
    done = constitution(
        config, tiny_run / "sft" / "model", out, world, lambda: read(earlier), tiny_run / "corpus"
    )
    assert (done["replies"], done["phases"]["supervised"]["conversations"]) == (15, 15 + 15)
    assert done["phases"]["supervised"]["replayed"] > 0
    assert sorted(name.split()[0] for name in done["labels"]) == ["judge", "raters"]
    rows = [json.loads(line) for line in (out / "critiques.jsonl").read_text().splitlines()]
    refusals = [row["revision"] for row in rows if row["kind"] == "harmful"]
    assert len(refusals) == 3
    assert set(refusals) == {REFUSAL}
    assert LanguageModel.load(out / "model").chat(rows[0]["prompt"], max_new_tokens=2).trace["tokens"]


def test_train_constitution_works_on_own_prompts_with_a_model_as_critic(tiny_run, tmp_path):
    """Here the model is its own critic; one this weak tells nothing apart, so only revisions are learnt."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Who is {name}?"}) + "\n" for name in "ABC"))
    settings = ["preference=null", "grpo=null", "rounds=1", "max_new_tokens=8", "critique_tokens=8"]
    settings += ["supervised.sequence_length=64", "supervised.epochs=1"]
    section = {"data": [str(prompts)], "constitution": "general", "critic": "self"}
    run = train_stage("constitution", str(tiny_run), section, tmp_path / "out", settings, "cpu")
    rows = [json.loads(line) for line in (run.path / "constitution" / "critiques.jsonl").open()]
    assert [row["prompt"][0]["content"] for row in rows] == ["Who is A?", "Who is B?", "Who is C?"]
    assert all(row["critique"] is not None for row in rows)
    assert "constitution" in run.stages
