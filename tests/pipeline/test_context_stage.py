"""The stage that extends a window: after pretrain, on a base, resumed, refused, and what later stages get."""

import json
import random

import pytest

import glasshouse
from glasshouse.core.errors import ConfigError, InterruptedRunError
from glasshouse.data import Shards, ShardWriter
from glasshouse.model import ModelConfig, initialise, save
from glasshouse.pipeline.compare import compare_runs
from glasshouse.pipeline.plan import plan
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.pipeline.run_folder import RunFolder
from glasshouse.pipeline.stages.context import ContextStage, long_pieces
from glasshouse.pipeline.train import train_context
from glasshouse.tokenizer import Tokenizer

SMALL = {
    "tokenizer.vocab_size": 300,
    "model.hidden_size": 32,
    "model.intermediate_size": 64,
    "model.num_hidden_layers": 1,
    "model.num_attention_heads": 2,
    "model.num_key_value_heads": 1,
    "model.head_dim": 16,
    "model.max_position_embeddings": 32,
    "pretrain.sequence_length": 32,
    "pretrain.batch_tokens": 256,
    "pretrain.tokens": 2048,
    "evaluate.sample_tokens": 4,
}
LONGER = {
    "context.max_position_embeddings": 80,
    "context.tokens": 1600,
    "context.batch_tokens": 160,
    "context.log_every": 1,
    "context.checkpoint_every_seconds": 0,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Forty documents: long ones, and every fourth so short that the old window holds it."""
    rng = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "birds"]
    folder = tmp_path_factory.mktemp("texts")
    rows = [" ".join(rng.choices(words, k=4 if i % 4 == 0 else 120)) + "." for i in range(40)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory):
    """own-text with a context stage and one after it; read it, do not write in it."""
    out = tmp_path_factory.mktemp("runs") / "a"
    chat = {"messages": [{"role": "user", "content": "sat"}, {"role": "assistant", "content": "a mat " * 9}]}
    (texts.parent / "chats.jsonl").write_text(2 * (json.dumps(chat) + "\n"))
    tune = {"sft.data": [str(texts.parent / "chats.jsonl")], "sft.epochs": 1, "report.curves": False}
    tune |= {"sft.sequence_length": 80, "sft.batch_tokens": 80}
    return glasshouse.run("own-text", data=[str(texts)], out=out, overrides={**SMALL, **LONGER, **tune})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """GPT-2 with learned positions and a window of 32."""
    tokenizer = Tokenizer.train([], 265)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ModelConfig.parse(
        {"model_type": "gpt2", "vocab_size": 265, "head_dim": 16, "max_position_embeddings": 32, **shape}
    )
    folder = tmp_path_factory.mktemp("base") / "gpt2"
    save(initialise(config, 1), tokenizer, folder)
    return folder


def windows(path) -> dict:
    return json.loads((path / "context" / "windows.json").read_text())


def test_the_stage_leaves_a_model_with_the_longer_window(run):
    config = json.loads((run.path / "context/model/config.json").read_text())
    assert config["max_position_embeddings"] == 80
    assert config["rope_scaling"]["rope_type"] == "yarn"
    assert config["rope_scaling"]["factor"] == 2.5
    assert config["rope_scaling"]["original_max_position_embeddings"] == 32
    assert (run.model("context").context, run.model("pretrain").context) == (80, 32)
    record = run.stages["context"]
    assert record.inputs.keys() == {"pretrain", "corpus", "tokenizer"}
    assert record.results["steps"] == 10  # of 1600 tokens, two rows of 80 a step
    assert not (run.path / "context" / "shards").exists()  # those of pretrain are read
    assert RunFolder(run.path).verify() == []


def test_the_measure_by_position_is_in_the_report(run):
    found = windows(run.path)
    assert (found["old"], found["new"]) == (32, 80)
    assert 0 < found["long_documents"] < found["documents"]
    assert found["pieces"] > 1
    assert [(row["from"], row["to"]) for row in found["bits_per_byte"]] == [(0, 32), (32, 64), (64, 80)]
    for row in found["bits_per_byte"]:
        assert row.keys() == {"from", "to", "before", "stretched", "after_in_old_windows", "after"}
        assert row["after"].keys() == {"value", "low", "high", "n"}
    first = found["bits_per_byte"][0]
    assert first["after_in_old_windows"]["value"] == pytest.approx(first["after"]["value"], rel=1e-5)
    report = (run.path / "report.html").read_text()
    assert "The longer window" in report
    assert "64 to 80" in report
    assert f"{found['bits_per_byte'][0]['after']['value']:.3f}" in report


def test_evaluation_comes_after_it_like_after_any_stage(run):
    """And fine-tuning goes on from it: rows of the new length fit, the model keeps its window."""
    assert "evaluation/context" in run.stages
    assert (run.path / "evaluation" / "context.json").is_file()
    assert list(run.stages["sft"].inputs) == ["context"]
    assert run.model().context == 80
    assert run.model().generate("the cat", max_new_tokens=60) is not None


def test_a_stage_of_the_same_settings_is_reused_and_another_window_is_not(run, texts):
    changed = {**SMALL, **LONGER, "context.scaling": "linear"}
    other = glasshouse.run("own-text", data=[str(texts)], out=run.path.parent / "b", overrides=changed)
    reused = {name for name, record in other.stages.items() if record.reused_from}
    assert "pretrain" in reused
    assert not reused & {"context", "evaluation/context"}
    compared = compare_runs(run.path, other.path)
    assert "context.scaling" in {setting.key for setting in compared.settings}
    assert "context" in {row.model for row in compared.probes}


def test_interrupted_it_ends_with_the_same_bits(run, texts, tmp_path, monkeypatch):
    """Stopped between two steps and again before the measure; the same call continues both times."""
    import glasshouse.pipeline.stages.context as stage
    from glasshouse.training.loop import _Run

    def grow():
        return glasshouse.run(
            "own-text", data=[str(texts)], out=tmp_path / "runs" / "c", overrides={**SMALL, **LONGER}
        )

    step = _Run.one_step

    def stopped(self):
        if self.step == 7 and self.config.sequence_length == 80:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(_Run, "one_step", stopped)
    with pytest.raises(InterruptedRunError, match="context: stopped at step 7"):
        grow()
    monkeypatch.setattr(_Run, "one_step", step)
    measure = stage.measure

    def leave(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "measure", leave)
    with pytest.raises(InterruptedRunError):
        grow()
    monkeypatch.setattr(stage, "measure", measure)
    done = grow()
    for name in ("context/model/model.safetensors", "context/windows.json"):
        assert (done.path / name).read_bytes() == (run.path / name).read_bytes(), name


def test_learned_positions_of_a_base_and_fine_tuning_after_it(base, texts, tmp_path):
    """`train context` on a model folder, then sft on the run: a row of the new length fits."""
    from glasshouse.pipeline.train import train_sft

    settings = ["max_position_embeddings=48", "tokens=480", "batch_tokens=96"]
    done = train_context(str(base), [str(texts)], tmp_path / "long", settings)
    assert done.model().context == 48
    assert (done.path / "context" / "shards").is_dir()
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 20}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat) + "\n" + json.dumps(chat) + "\n")
    tune = ["sequence_length=48", "batch_tokens=48", "epochs=1"]
    tuned = train_sft(str(done.path), [str(tmp_path / "chats.jsonl")], tmp_path / "chat", tune)
    assert tuned.model().context == 48


def test_dynamic_trains_nothing_and_keeps_the_weights(run, texts, tmp_path):
    before = run.path / "pretrain"
    done = train_context(
        str(before), [str(texts)], tmp_path / "d", ["max_position_embeddings=80", "scaling=dynamic"]
    )
    weights = "model/model.safetensors"
    assert (done.path / "context" / weights).read_bytes() == (before / weights).read_bytes()
    assert done.model().context == 80
    rows = windows(done.path)["bits_per_byte"]
    assert rows[0].keys() == {"from", "to", "before", "after"}
    assert RunFolder(done.path).verify() == []


def test_short_documents_are_told_of(base, tmp_path, capsys):
    """Nothing long: trained all the same, but said, and nothing measured."""
    (tmp_path / "short.jsonl").write_text('{"text": "too short"}\n' * 60)
    settings = ["max_position_embeddings=48", "tokens=96", "batch_tokens=96"]
    done = train_context(str(base), [str(tmp_path / "short.jsonl")], tmp_path / "s", settings)
    assert "no document is longer than the old window of 32" in capsys.readouterr().err
    assert windows(done.path)["bits_per_byte"] == []
    glasshouse.pipeline.report.write_report(done.path)
    assert "No held-out document is long enough" in (done.path / "report.html").read_text()


def test_pieces_are_long_documents_cut_at_the_new_window(tmp_path):
    with ShardWriter(tmp_path / "shards", 300, end_of_text=0) as writer:
        for length in (4, 9, 25):  # with their boundary 5, 10, 26
            writer.add(list(range(1, length + 1)), source="")
    shards = Shards(tmp_path / "shards")
    pieces = long_pieces(shards, 5, 10, 10_000)
    assert pieces == [[0, *range(1, 10)], [0, *range(1, 10)], list(range(10, 20)), list(range(20, 26))]
    assert len(long_pieces(shards, 5, 10, 18)) == 2


def fails(**changes) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(load_recipe("pocket-mini", overrides={f"context.{k}": v for k, v in changes.items()}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_follow_the_window():
    stage = ContextStage(max_position_embeddings=20_000)
    assert (stage.sequence_length, stage.batch_tokens, stage.tokens) == (20_000, 20_000, 500_000)
    assert ContextStage(max_position_embeddings=99, epochs=1).tokens is None
    assert ContextStage(max_position_embeddings=99, scaling="dynamic").tokens == 0
    again = ContextStage.parse(stage.model_dump(mode="json"))
    assert again == stage


def test_what_cannot_be_is_one_line_before_any_work():
    assert "context.max_position_embeddings" in fails(tokens=5)
    assert "not longer than the model's 512" in fails(max_position_embeddings=512)
    assert "longer than the new window (600)" in fails(max_position_embeddings=600, sequence_length=700)
    assert "set tokens=0" in fails(max_position_embeddings=600, scaling="dynamic", tokens=1000)
    assert "'context.scaling'" in fails(max_position_embeddings=600, scaling="yarnn")
    long = {"context.max_position_embeddings": 600, "sft.sequence_length": 700, "sft.batch_tokens": 700}
    with pytest.raises(ConfigError, match=r"context\.max_position_embeddings=700"):
        load_recipe("pocket", overrides=long)
    load_recipe("pocket", overrides={**long, "sft.sequence_length": 600})


def test_a_context_stage_without_text_or_model_is_refused(base):
    section = {"max_position_embeddings": 600}
    from glasshouse.pipeline.recipe import Recipe

    with pytest.raises(ConfigError, match="context needs the section corpus"):
        Recipe.parse({"name": "x", "base": str(base), "context": section})
    with pytest.raises(ConfigError, match="context needs the section pretrain"):
        load_recipe("pocket", overrides={"pretrain": None, "sft": None, "context": section})


def test_a_setting_of_the_window_changes_nothing_before_it():
    def keys(**changes):
        overrides = {"context.max_position_embeddings": 1024, **changes}
        return {step.name: step.key for step in plan(load_recipe("pocket-mini", overrides=overrides))}

    one, two = keys(), keys(**{"context.rope_theta": 5000.0})
    assert list(one)[4:8] == ["evaluation/pretrain", "context", "evaluation/context", "sft"]
    changed = {name for name in one if one[name] != two[name]}
    steps = list(one)
    assert changed == {*steps[steps.index("context") :]} - {"evaluation/baselines"}
