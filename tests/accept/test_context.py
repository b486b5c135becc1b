"""A longer window is used: what lies further back than the old one is found, and only after training."""

import json
import random

import pytest

import glasshouse

pytestmark = pytest.mark.accept

SETTINGS = {
    "seed": 8021,
    "tokenizer.vocab_size": 400,
    "model.hidden_size": 64,
    "model.intermediate_size": 128,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.num_key_value_heads": 2,
    "model.max_position_embeddings": 32,
    "pretrain.sequence_length": 32,
    "pretrain.batch_tokens": 2048,
    "pretrain.tokens": 800_000,
    "context.max_position_embeddings": 96,
    "context.tokens": 200_000,
    "context.batch_tokens": 1920,
    "context.position_tokens": 15_000,
    "evaluate": None,
    "report": None,
}


@pytest.fixture(scope="module")
def said_twice(tmp_path_factory):
    """Lists of made-up words, each said twice: half of them longer than the old window."""
    rng = random.Random(8021)
    words = [a + b for a in ("ka", "lo", "mi", "ru", "te", "so", "pa", "ne") for b in ("ban", "dor", "fil")]
    words += [a + b for a in ("gus", "hem", "jat", "kol", "vin") for b in ("sed", "tor", "lam", "wex", "pim")]
    path = tmp_path_factory.mktemp("lists") / "lists.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for i in range(4000):
            said = " ".join(rng.choices(words, k=40 if i % 2 else rng.randint(6, 12)))
            file.write(json.dumps({"text": f"{said}. {said}."}) + "\n")
    return path


@pytest.mark.parametrize("scaling", ["yarn", "none"])
def test_beyond_the_old_window_the_new_one_helps(said_twice, tmp_path, scaling):
    """Bits per byte of the last row: below the model before, the untrained one and itself without the view.

    The intervals do not overlap. The first row costs less than 2%.
    """
    overrides = {**SETTINGS, "context.scaling": scaling}
    run = glasshouse.run("own-text", data=[str(said_twice)], out=tmp_path / "run", overrides=overrides)
    first, *_, last = json.loads((run.path / "context" / "windows.json").read_text())["bits_per_byte"]
    for other in ("before", "stretched", "after_in_old_windows"):
        assert last["after"]["high"] < last[other]["low"], (other, last)
    assert first["after"]["value"] < 1.02 * first["before"]["value"]
