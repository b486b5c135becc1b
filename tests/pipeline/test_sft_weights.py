"""Files of fine-tuning mixed by weight: how often a row is learnt from, the same every time."""

import json
from collections import Counter

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.model import save
from glasshouse.pipeline.plan import plan
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.pipeline.run import run_recipe
from glasshouse.pipeline.stages.sft import SFTStage, repeated
from glasshouse.tokenizer import Tokenizer


def chat(text):
    said = [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    return {"messages": said}


@pytest.fixture
def files(tmp_path):
    """(200 conversations, 200 safe ones), as paths."""
    paths = []
    for name in ("chats", "safe"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(chat(f"{name} {n}")) + "\n" for n in range(200)))
        paths.append(str(path))
    return paths


def taken(files, weights):
    """How often each row is learnt from."""
    stage = SFTStage.parse({"data": files, "weights": weights})
    rows = [row for given in stage.rows() for row in repeated(given)]
    assert all("weight" not in row for row in rows)
    return Counter(row["messages"][0]["content"] for row in rows)


def test_a_weight_says_how_often_rows_of_a_file_are_taken(files):
    """A tenth of them; each twice and half of them once more; the other file is left alone."""
    _, safe = files
    tenth = taken(files, {safe: 0.1})
    assert {tenth[f"chats {n}"] for n in range(200)} == {1}
    assert 10 <= sum(tenth[f"safe {n}"] for n in range(200)) <= 32
    more = taken(files, {safe: 2.5})
    assert Counter(more[f"safe {n}"] for n in range(200)).keys() == {2, 3}
    assert 470 <= sum(more[f"safe {n}"] for n in range(200)) <= 530
    assert tenth == taken(files[::-1], {safe: 0.1})
    assert set(tenth) <= set(taken(files, {safe: 0.2}))  # a larger share takes the same rows and others


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"safes.jsonl": 0.1}, "not in sft.data"), ({"safe.jsonl": 0.0}, "above 0")],
)
def test_a_weight_of_no_file_or_of_nothing_is_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        SFTStage.parse({"data": ["chats.jsonl", "safe.jsonl"], "weights": weights})


def test_weights_are_part_of_what_a_run_depends_on(files, tmp_path, random_model):
    """A run without them keeps the key that it had before there were any."""
    base = tmp_path / "base"
    shape = {"vocab_size": 265, "max_position_embeddings": 96}
    save(random_model(model_type="llama", **shape), Tokenizer.train([], 265), base)
    settings = {"base": str(base), "sft.data": files, "sft.lora": None, "report": None, "evaluate": None}
    settings |= {"sft.validation_fraction": 0.1, "sft.tokens": 400, "sft.epochs": None}

    def sft_of(**more):
        return load_recipe("adapt", overrides={**settings, **more})

    thrice = {"sft.weights": {files[1]: 3}}
    plain, weighed = (next(s for s in plan(sft_of(**m)) if s.name == "sft") for m in ({}, thrice))
    assert "weights" not in plain.config
    assert plain.key != weighed.key
    out = tmp_path / "run"
    run_recipe(sft_of(**thrice), out=out)
    learnt, held_out = (
        Counter(json.loads(line)["messages"][0]["content"] for line in (out / "sft" / name).open())
        for name in ("conversations.jsonl", "held_out.jsonl")
    )
    assert set(held_out.values()) == {1}  # to be measured on once, whatever they weigh
    assert not set(held_out) & set(learnt)
    assert {count for name, count in learnt.items() if name.startswith("safe")} == {3}
