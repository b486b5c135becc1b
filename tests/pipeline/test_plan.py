"""Keys: two steps have the same one exactly when they would do the same work."""

import pytest

from glasshouse.core.errors import DataError, UsageError
from glasshouse.pipeline.plan import plan, up_to
from glasshouse.pipeline.recipe import load_recipe


def keys(overrides=(), recipe="pocket-mini", **rest) -> dict[str, str]:
    return {step.name: step.key for step in plan(load_recipe(recipe, overrides=overrides, **rest))}


def changed(overrides) -> set[str]:
    before, after = keys(), keys(overrides)
    return {name for name in before if before[name] != after.get(name)}


def test_steps_come_in_the_order_of_the_pipeline():
    assert list(keys()) == [
        "corpus",
        "tokenizer",
        "evaluation/init",
        "pretrain",
        "evaluation/pretrain",
        "sft",
        "evaluation/sft",
        "reward",
        "ppo",
        "evaluation/ppo",
        "constitution",
        "evaluation/constitution",
        "calibrate",
        "evaluation/calibrate",
        "evaluation/baselines",
    ]


def test_a_setting_of_a_stage_changes_it_and_what_comes_after_it():
    steps = list(keys())
    assert changed(["calibrate.samples=7"]) == {"calibrate", "evaluation/calibrate"}
    assert changed(["sft.epochs=7"]) == {*steps[steps.index("sft") :]} - {"evaluation/baselines"}


def test_the_penalty_of_ppo_regrows_no_reward_model():
    assert not changed(["ppo.kl_coef=0"]) & {"sft", "evaluation/sft", "reward"}


def test_what_ppo_rehearses_is_an_input_of_it(tmp_path):
    """Fine-tuning's conversations, where another stage stands between; or the user's files."""
    settings = ["dpo={}", "ppo.ptx_coef=0.5"]
    inputs = {step.name: step.inputs for step in plan(load_recipe("pocket-mini", overrides=settings))}
    assert list(inputs["ppo"]) == ["dpo", "reward", "sft", "corpus"]
    (tmp_path / "mine.jsonl").write_text("one")
    own = f"ppo.earlier_data=[{tmp_path / 'mine.jsonl'}]"
    steps = {step.name: step for step in plan(load_recipe("pocket-mini", overrides=[*settings, own]))}
    assert list(steps["ppo"].inputs) == ["dpo", "reward", "corpus"]
    (tmp_path / "mine.jsonl").write_text("another")
    again = {step.name: step.key for step in plan(load_recipe("pocket-mini", overrides=[*settings, own]))}
    assert again["ppo"] != steps["ppo"].key


def test_a_setting_of_the_world_changes_everything():
    assert changed(["world.phrasings=1"]) == set(keys())


def test_a_setting_of_the_evaluation_changes_no_model():
    assert not changed(["evaluate.n=7"]) & {"corpus", "tokenizer", "pretrain", "sft"}


def test_the_seed_changes_everything():
    assert changed(["seed=99"]) == set(keys())


@pytest.mark.parametrize("setting", ["name=other", "device=cpu", "rate_per_hour=3", "report=null"])
def test_where_and_for_how_much_it_runs_changes_nothing(setting):
    assert changed([setting]) == set()


def test_files_are_known_by_their_content_not_their_place(tmp_path):
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "text.txt").write_text(text)
    a, b, c = (keys(recipe="own-text", data=[str(tmp_path / folder)])["corpus"] for folder in "abc")
    assert a == b
    assert a != c


def test_missing_data_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt"):
        plan(load_recipe("own-text", data=[str(tmp_path / "absent.txt")]))


def test_until_ends_with_a_stage_and_its_evaluation():
    recipe = load_recipe("pocket-mini")
    names = [step.name for step in up_to(plan(recipe), recipe, "pretrain")]
    assert names == ["corpus", "tokenizer", "evaluation/init", "pretrain", "evaluation/pretrain"]


def test_until_an_unknown_stage_names_the_nearest():
    recipe = load_recipe("pocket-mini")
    with pytest.raises(UsageError, match="pretrain"):
        up_to(plan(recipe), recipe, "pretraining")


def test_conversations_regrow_nothing_before_fine_tuning():
    """More conversations change the keys of sft, what comes after it, and the baselines, which read them."""
    few, many = (
        {step.name: step.key for step in plan(load_recipe("pocket-mini", overrides={key: n}))}
        for key, n in (("world.conversations.sums", 3), ("world.conversations.sums", 4))
    )
    changed = {name for name in few if few[name] != many[name]}
    steps = list(few)
    assert changed == {*steps[steps.index("sft") :]}
