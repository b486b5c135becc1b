"""The pipeline from a recipe to a report, at the smallest size."""

import json
import shutil

import pytest

import glasshouse
from glasshouse.core.errors import StorageError, UsageError
from glasshouse.pipeline.run_folder import RunFolder

LATER = ("reward", "ppo", "constitution", "calibrate")
"""Stages after fine-tuning."""


def grow(out, tiny, **changes):
    return glasshouse.run("pocket-mini", out=out, overrides={**tiny, "name": "tiny", **changes})


@pytest.fixture
def run(tiny_run, tmp_path):
    """A run folder of one's own, beside nothing else."""
    return shutil.copytree(tiny_run, tmp_path / "runs" / "a")


def test_every_stage_leaves_what_the_design_says(tiny_run):
    for name in ("corpus", "tokenizer", "pretrain", "sft", "evaluation/init", "evaluation/sft"):
        assert json.loads((tiny_run / name / "stage.json").read_text())["finished"]
    for stage in ("pretrain", "sft"):
        model = tiny_run / stage / "model"
        assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
            path.name for path in model.iterdir()
        }
        row = json.loads((tiny_run / stage / "metrics.jsonl").read_text().splitlines()[-1])
        assert {"step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second"} <= row.keys()
    assert (tiny_run / "report.html").stat().st_size > 10_000


def test_probes_of_every_model_have_value_interval_and_count(tiny_run):
    models = ("init", "pretrain", "sft", "ppo", "constitution", "calibrate")
    for model in models:
        probes = json.loads((tiny_run / "evaluation" / f"{model}.json").read_text())
        assert "heldout_fact_extraction" in probes
        for probe in probes.values():
            assert probe.keys() == {"value", "low", "high", "n"}
            assert probe["low"] is None or probe["low"] <= probe["high"]
    samples = json.loads((tiny_run / "evaluation" / "samples.json").read_text())
    assert samples.keys() == {*models}
    assert all({"name", "prompt", "reply"} <= sample.keys() for sample in samples["sft"])


def test_a_mixture_of_experts_tells_their_load(tiny, tiny_run, tmp_path):
    """In the metrics, by layer and skill after each stage, and in the report; nothing for a dense model."""
    assert not list(tiny_run.rglob("experts.json"))
    assert "expert_load_max" not in (tiny_run / "pretrain" / "metrics.jsonl").read_text()
    small = {"model.num_hidden_layers": 2, "model.num_attention_heads": 2, "model.num_key_value_heads": 2}
    plain = {key: value for key, value in tiny.items() if key.split(".")[0] not in LATER}
    run = glasshouse.run("pocket-moe", out=tmp_path / "moe", overrides={**plain, **small})
    rows = [json.loads(line) for line in (run.path / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "val_loss" in row]
    assert all(0 <= row["expert_load_min"] <= 1 <= row["expert_load_max"] <= 4 for row in told)
    assert told == [row for row in rows if "router_entropy" in row]
    tuned = json.loads((run.path / "sft" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= tuned["expert_load_min"] <= 1 <= tuned["expert_load_max"] <= 4
    assert "expert_load_max" not in (tiny_run / "sft" / "metrics.jsonl").read_text()
    for model in ("init", "pretrain", "sft"):
        load = json.loads((run.path / "evaluation" / model / "experts.json").read_text())
        assert set(load["domains"]) == {"people", "places", "patterns", "chance"}
        for domain in load["domains"].values():
            assert [len(shares) for shares in domain["shares"]] == [8, 8]
    assert 'aria-label="Experts of sft"' in (run.path / "report.html").read_text()


def test_records_say_what_a_stage_cost(tiny_run):
    record = RunFolder(tiny_run).record("pretrain")
    assert record.tokens > 20_000
    assert record.flops > 0
    assert record.peak_flops_per_second > 0
    assert record.duration_seconds > 0
    assert record.cost is None
    assert record.machine["torch"]


def test_a_finished_run_is_left_alone(run, tiny):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")}
    again = grow(run, tiny)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")}
    assert "sft" in again.stages
    assert RunFolder(run).verify() == []


def test_another_run_reuses_what_it_shares_and_makes_the_rest(run, tiny):
    other = grow(run.parent / "b", tiny, **{"sft.epochs": 1})
    stages = other.stages
    assert {name for name, record in stages.items() if record.reused_from} == {
        "corpus",
        "tokenizer",
        "pretrain",
        "evaluation/init",
        "evaluation/pretrain",
    }
    assert stages["sft"].key != RunFolder(run).record("sft").key
    weights = "pretrain/model/model.safetensors"
    assert (other.path / weights).read_bytes() == (run / weights).read_bytes()
    assert RunFolder(other.path).verify() == []


def test_a_changed_setting_sets_the_old_result_aside_and_back(run, tiny):
    """Nothing is lost by trying another setting in the same folder."""
    before = (run / "sft" / "model" / "model.safetensors").read_bytes()
    grow(run, tiny, **{"sft.epochs": 1})
    assert (run / "sft" / "model" / "model.safetensors").read_bytes() != before
    assert RunFolder(run).verify() == []
    grow(run, tiny)
    assert (run / "sft" / "model" / "model.safetensors").read_bytes() == before
    assert RunFolder(run).verify() == []


def test_fresh_makes_everything_again_with_the_same_result(run, tiny, assert_same_numbers, tiny_run):
    """In another process and folder: nothing depends on where or when it runs."""
    shutil.copytree(run, run.parent / "neighbour")
    again = glasshouse.run("pocket-mini", out=run, overrides={**tiny, "name": "tiny"}, fresh=True)
    assert not any(record.reused_from for record in again.stages.values())
    assert_same_numbers(run, tiny_run)


def test_until_stops_early_and_the_same_folder_goes_on(run, tiny):
    part = run.parent / "part"
    overrides = {**tiny, "name": "tiny", "seed": 5}
    stopped = glasshouse.run("pocket-mini", out=part, overrides=overrides, until="tokenizer")
    assert list(stopped.stages) == ["corpus", "tokenizer"]
    assert not (part / "report.html").exists()


def test_a_missing_file_of_a_finished_stage_is_named(run, tiny):
    (run / "pretrain" / "model" / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        grow(run, tiny)


def test_a_folder_of_the_user_is_not_written_into(run, tiny, tmp_path):
    (tmp_path / "mine" / "corpus").mkdir(parents=True)
    (tmp_path / "mine" / "corpus" / "novel.txt").write_text("precious")
    with pytest.raises(StorageError, match="no stage of a run"):
        grow(tmp_path / "mine", tiny)
    assert (tmp_path / "mine" / "corpus" / "novel.txt").read_text() == "precious"


def test_a_model_is_found_by_run_stage_or_folder(run, monkeypatch):
    from glasshouse.pipeline.run import resolve_model

    newest = run / "calibrate" / "model"
    assert resolve_model(run) == resolve_model(str(run / "calibrate")) == resolve_model(newest) == newest
    monkeypatch.chdir(run.parent.parent)
    assert resolve_model().resolve() == newest
    assert glasshouse.load(run).generate("The", max_new_tokens=2) is not None
    assert glasshouse.Run(run).model("pretrain").context == 512
    for name, message in (
        ("openai:gpt", "only models on this disk"),
        ("runs/aa", "did you mean runs/a"),
        (str(run.parent), "no finished model"),
    ):
        with pytest.raises(UsageError, match=message):
            resolve_model(name)
    with pytest.raises(UsageError, match="no finished stage 'dpo'"):
        glasshouse.Run(run).model("dpo")
    monkeypatch.chdir(run)
    with pytest.raises(UsageError, match="no model yet"):
        resolve_model()
