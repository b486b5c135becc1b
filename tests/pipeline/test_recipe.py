"""Recipes: what is read, what is refused, and what the refusal says."""

import pytest
import yaml

from glasshouse.core.errors import ConfigError
from glasshouse.model import ModelConfig, initialise, save
from glasshouse.pipeline.recipe import load_recipe, shipped_recipes
from glasshouse.tokenizer import Tokenizer


def fails(*args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(*args, **kwargs)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe_resolves_and_its_resolved_form_is_the_same_recipe(name, tmp_path):
    """recipe.yaml, written into the run folder, can itself be run."""
    data = ["text.txt"] if load_yaml_section(name, "world") is None else []
    overrides = {}
    if load_yaml_section(name, "model") is None:  # it starts from a model of the user's
        config = ModelConfig(vocab_size=265, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
        save(initialise(config, 0), Tokenizer.train([], 265), tmp_path / "base")
        overrides["base"] = str(tmp_path / "base")
    recipe = load_recipe(name, data=data, overrides=overrides)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml({"torch": "1.2"}))
    assert load_recipe(path) == recipe


def load_yaml_section(name, section):
    from importlib import resources

    text = (resources.files("glasshouse") / "recipes" / f"{name}.yaml").read_text()
    content = yaml.safe_load(text)
    return (
        content.get(section)
        or (load_yaml_section(content["extends"], section) if "extends" in content else None)
        or ({} if section in content else None)
    )


def test_unknown_key_names_the_nearest_known_key():
    message = fails("pocket", overrides=["sft.epoch=2"])
    assert "sft.epoch" in message
    assert "sft.epochs" in message


def test_unknown_section_names_the_nearest_known_section():
    assert "pretrain" in fails("pocket", overrides=["pretrian.tokens=2"])


def test_unknown_recipe_names_the_nearest_recipe():
    assert "pocket-mini" in fails("poket-mini")


def test_setting_without_equals_sign_says_how_to_write_it():
    assert "key=value" in fails("pocket", overrides=["sft.epochs"])


def test_setting_of_the_wrong_type_names_the_key():
    assert "tokenizer.vocab_size" in fails("pocket", overrides=["tokenizer.vocab_size=many"])


def test_overrides_may_be_a_mapping():
    assert load_recipe("pocket", overrides={"seed": 7, "world.phrasings": 1}).world.phrasings == 1


def test_a_stage_is_left_out_with_null():
    assert "calibrate" not in load_recipe("pocket", overrides=["calibrate=null"]).stages


def test_own_text_without_data_says_how_to_name_it():
    assert "--data" in fails("own-text")


def test_data_for_a_recipe_with_a_world_names_the_recipe_to_take():
    assert "own-text" in fails("pocket", data=["x.txt"])


def test_rows_of_world_conversations_are_not_held_out():
    assert "sft.data" in fails("pocket", overrides=["sft.validation_fraction=0.1"])


def test_stage_without_the_one_before_it_is_refused():
    assert "pretrain needs the section model" in fails("pocket", overrides=["model=null"])
    assert "sft needs the section pretrain" in fails("pocket", overrides=["pretrain=null"])


def test_vocabulary_size_has_one_place():
    assert "tokenizer.vocab_size" in fails("pocket", overrides=["model.vocab_size=300"])
    recipe = load_recipe("pocket", overrides=["tokenizer.vocab_size=300"])
    assert recipe.model.vocab_size == 300


def test_rows_longer_than_the_context_are_refused():
    assert "max_position_embeddings" in fails("pocket", overrides=["sft.sequence_length=4096"])


def test_pocket_moe_does_the_work_of_pocket():
    """Nothing but the MLPs differs, and a token passes through as many weights, the routers' apart."""
    dense, sparse = load_recipe("pocket"), load_recipe("pocket-moe")
    later = {"reward", "ppo", "constitution", "calibrate"}
    apart = {"name", "model", *later}
    one, two = dense.model_dump(exclude=apart), sparse.model_dump(exclude=apart)
    assert not later & set(sparse.stages)
    assert one == two
    routers = 6 * 5 * 8 * 128  # forward and backward of five layers' eight experts
    assert sparse.model.flops_per_token(256) == dense.model.flops_per_token(256) + routers
    assert sparse.model.num_parameters() > 2 * dense.model.num_parameters()


def test_extends_merges_section_by_section(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: pocket\nname: mine\nsft: {epochs: 9}\nevaluate: null\n")
    mine, parent = load_recipe(path), load_recipe("pocket")
    assert mine.sft.epochs == 9
    assert mine.sft.sequence_length == parent.sft.sequence_length
    assert mine.evaluate is None
    assert mine.pretrain == parent.pretrain


def test_extends_in_a_circle_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {path}\nname: mine\n")
    assert "circle" in fails(path)


def test_broken_yaml_names_file_and_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nsft: [1,\n")
    assert "mine.yaml, line" in fails(path)


def test_missing_file_is_named(tmp_path):
    assert "absent.yaml" in fails(tmp_path / "absent.yaml")
