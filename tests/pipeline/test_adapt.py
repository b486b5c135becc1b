"""The recipe adapt: a folder and the user's rows in; adapter, merged model and a report of both out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from glasshouse.core.errors import ConfigError, ModelError, UsageError
from glasshouse.inference import LanguageModel
from glasshouse.model import load, save
from glasshouse.model.peft_folder import load_adapter
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.pipeline.run import run
from glasshouse.tokenizer import Tokenizer

CONTEXT = 96
QUICK = {"sft.adapter_lr": 0.01, "sft.batch_tokens": 384, "evaluate.sample_tokens": 4, "sft.log_every": 1}


SHAPE = {
    "vocab_size": 265,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory, random_model) -> Path:
    """A Llama folder with random weights and a plain byte tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "llama"
    save(random_model(model_type="llama", **SHAPE), Tokenizer.train([], 265), folder)
    return folder


@pytest.fixture(scope="module")
def sparse_base(tmp_path_factory, random_model) -> Path:
    """The same of a mixture of experts."""
    folder = tmp_path_factory.mktemp("base") / "mixtral"
    save(random_model(model_type="mixtral", num_experts=4, **SHAPE), Tokenizer.train([], 265), folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """chats.jsonl, pages.jsonl with texts longer than a row, and book.txt."""
    folder = tmp_path_factory.mktemp("data")
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is {i} + 1?"},
                {"role": "assistant", "content": f"It is {i + 1}, of course."},
            ]
        }
        for i in range(40)
    ]
    pages = [{"text": f"The owl of house {i} sleeps by day and flies by night. " * 4} for i in range(30)]
    for name, rows in (("chats", chats), ("pages", pages)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "book.txt").write_text("".join(page["text"] for page in pages))
    return folder


def probes(path: Path, model: str) -> dict:
    return json.loads((path / "evaluation" / f"{model}.json").read_text())


@pytest.mark.parametrize(
    ("name", "scheme", "kind"),
    [("chats", None, "conversations"), ("pages", None, "documents"), ("chats", "nf4", "conversations")],
)
def test_a_folder_and_rows_become_an_adapter_a_model_and_a_report(tmp_path, base, data, name, scheme, kind):
    """The adapter over the base is the merged model; held-out bits per byte fall; the report shows both."""
    settings = {**QUICK, "base": str(base), "sft.quantize": scheme}
    path = run("adapt", out=tmp_path / "run", data=[data / f"{name}.jsonl"], overrides=settings).path
    merged, over = load(path / "sft" / "model"), load(base)
    load_adapter(over, path / "sft" / "adapter")
    ids = torch.randint(0, 265, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(over(ids), merged(ids), rtol=1e-4, atol=1e-4)
        assert (merged(ids) - load(base)(ids)).abs().max() > 0.1
    before, after = (probes(path, model)["bits_per_byte"] for model in ("base", "sft"))
    assert after["value"] < 0.8 * before["value"]
    record = json.loads((path / "sft" / "stage.json").read_text())["results"]
    learnt = (path / "sft" / "conversations.jsonl").read_text().splitlines()
    held_out = (path / "sft" / "held_out.jsonl").read_text().splitlines()
    rows = (data / f"{name}.jsonl").read_text().splitlines()
    assert len(held_out) == round(0.05 * len(rows)) == record["held_out"]
    assert len(learnt) + len(held_out) == len(rows)
    assert not set(learnt) & set(held_out)
    assert record[kind] == len(learnt)
    report = (path / "report.html").read_text()
    assert "<th>base</th>" in report
    assert "<th>sft</th>" in report
    assert f"{before['value']:.3f}" in report
    assert f"{after['value']:.3f}" in report
    samples = json.loads((path / "evaluation" / "samples.json").read_text())
    assert [s["prompt"] for s in samples["base"]] == [s["prompt"] for s in samples["sft"]] != []
    assert samples["base"][0]["good"].strip()[:12] in "".join(held_out)


@pytest.mark.parametrize("scheme", [None, "nf4"])
def test_experts_and_head_are_adapted_and_their_load_is_told(tmp_path, sparse_base, data, scheme):
    """The adapter over the base is the merged model; metrics and report tell the load."""
    parts = {"targets": ["v_proj", "lm_head"], "target_parameters": ["gate_up_proj", "down_proj"], "r": 4}
    settings = {**QUICK, "base": str(sparse_base), "sft.quantize": scheme, "sft.lora": parts}
    settings |= {"sft.epochs": 1, "sft.eval_every": 2}
    rows = [data / "chats.jsonl", data / "pages.jsonl"]
    path = run("adapt", out=tmp_path / "run", data=rows, overrides=settings).path
    merged, over = load(path / "sft" / "model"), load(sparse_base)
    load_adapter(over, path / "sft" / "adapter")
    ids = torch.randint(0, 265, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(over(ids), merged(ids), rtol=1e-4, atol=1e-4)
        assert (merged(ids) - load(sparse_base)(ids)).abs().max() > 0.01
    metrics = [json.loads(line) for line in (path / "sft" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in metrics if "router_entropy" in row]
    assert len(told) == -(-len(metrics) // 2)
    assert all(0 <= row["expert_load_min"] <= 1 <= row["expert_load_max"] <= 4 for row in told)
    for model in ("base", "sft"):
        load_told = json.loads((path / "evaluation" / model / "experts.json").read_text())
        assert set(load_told["domains"]) == {"chats", "pages"}
    assert 'aria-label="Experts of sft"' in (path / "report.html").read_text()


def test_a_single_text_file_is_measured_on_its_end(tmp_path, base, data):
    settings = {**QUICK, "base": str(base), "sft.epochs": 1}
    path = run("adapt", out=tmp_path / "run", data=[data / "book.txt"], overrides=settings).path
    row = json.loads((path / "sft" / "held_out.jsonl").read_text())
    book = (data / "book.txt").read_text()
    assert book.endswith(row["text"])
    assert probes(path, "sft")["bits_per_byte"]["value"] < probes(path, "base")["bits_per_byte"]["value"]


def test_documents_need_no_chat_template_and_conversations_say_so(tmp_path, base, data):
    bare = tmp_path / "bare"
    model = LanguageModel.load(base)
    tokens = [model.tokenizer.token_bytes(i) for i in range(265)]
    save(model.model, Tokenizer(tokens, model.tokenizer.special, chat_template=None), bare)
    settings = {**QUICK, "base": str(bare), "sft.epochs": 1}
    path = run("adapt", out=tmp_path / "pages", data=[data / "pages.jsonl"], overrides=settings).path
    assert Tokenizer.load(path / "sft" / "model").chat_template is None
    with pytest.raises(ModelError, match="no chat template"):
        run("adapt", out=tmp_path / "chats", data=[data / "chats.jsonl"], overrides=settings)


def test_too_few_conversations_are_all_learnt_from_and_not_measured(tmp_path, base, data, capsys):
    few = tmp_path / "few.jsonl"
    few.write_text("".join((data / "chats.jsonl").read_text().splitlines(keepends=True)[:9]))
    path = run("adapt", out=tmp_path / "run", data=[few], overrides={**QUICK, "base": str(base)}).path
    assert "too few conversations" in capsys.readouterr().err
    assert probes(path, "base") == probes(path, "sft") == {}
    assert (path / "report.html").is_file()


def test_the_base_is_evaluated_once_for_runs_that_hold_out_the_same(tmp_path, base, data, capsys):
    """Another adapter on the same rows takes over the base's figures; other rows do not."""
    settings = {**QUICK, "base": str(base), "sft.epochs": 1}
    run("adapt", out=tmp_path / "one", data=[data / "chats.jsonl"], overrides=settings)
    again = {**settings, "sft.lora.r": 2}
    run("adapt", out=tmp_path / "two", data=[data / "chats.jsonl"], overrides=again)
    assert "evaluation/base: reused" in capsys.readouterr().err
    run("adapt", out=tmp_path / "three", data=[data / "pages.jsonl"], overrides=again)
    assert "reused" not in capsys.readouterr().err


def test_killed_it_ends_with_the_same_bits_and_checkpoints_hold_the_adapter_alone(
    tmp_path, sparse_base, data
):
    """SIGKILL amid the steps, then the same command: weights and adapter as without the kill."""
    settings = {**QUICK, "base": str(sparse_base), "sft.checkpoint_every_seconds": 0, "sft.epochs": 12}
    settings |= {"sft.lora.target_parameters": ["gate_up_proj", "down_proj"]}
    settings |= {"sft.lora.dropout": 0.1, "sft.quantize": "nf4"}
    rows = [data / "chats.jsonl"]
    whole = run("adapt", out=tmp_path / "a" / "whole", data=rows, overrides=settings).path
    parts = tmp_path / "b" / "parts"
    parts.parent.mkdir()
    line = ["run", "adapt", "--data", str(rows[0]), "--out", str(parts)]
    line += [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *line], env={**os.environ, "GLASSHOUSE_QUIET": "1"}, cwd=tmp_path
    )
    metrics = parts / "sft" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    checkpoint = max((parts / "sft" / "state").glob("step-[0-9]*"))  # the one before may still stand
    held = load_file(checkpoint / "tensors.safetensors")
    assert any(name.startswith("model.") for name in held)
    assert all(".adapters." in name for name in held)
    run("adapt", out=parts, data=rows, overrides=settings)
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (parts / "sft" / name).read_bytes() == (whole / "sft" / name).read_bytes()


def test_rows_are_as_long_as_the_context_of_the_base_allows(base, tmp_path):
    given = {"base": str(base)}
    recipe = load_recipe("adapt", data=["x.jsonl"], overrides=given)
    assert recipe.sft is not None
    assert recipe.sft.sequence_length == CONTEXT
    assert recipe.sft.data == ("x.jsonl",)
    with pytest.raises(ConfigError, match=f"longer than the context of the base .*sequence_length={CONTEXT}"):
        load_recipe("adapt", data=["x.jsonl"], overrides={**given, "sft.sequence_length": 512})


def test_a_base_may_be_a_run_and_is_written_down_as_its_folder(base, data, tmp_path):
    settings = {**QUICK, "base": str(base), "sft.epochs": 1, "evaluate": None, "report": None}
    first = run("adapt", out=tmp_path / "first", data=[data / "chats.jsonl"], overrides=settings).path
    recipe = load_recipe("adapt", data=["x.jsonl"], overrides={"base": str(first)})
    assert recipe.base == str(first / "sft" / "model")


@pytest.mark.parametrize(
    ("data", "settings", "named"),
    [
        (["x.jsonl"], {}, ["no model to start from", "--base"]),
        ([], {"base": "BASE"}, ["no conversations", "--data"]),
        (
            ["x.jsonl"],
            {"base": "BASE", "sft.validation_fraction": 0},
            ["nothing to ask", "validation_fraction"],
        ),
    ],
)
def test_what_is_missing_is_named(base, data, settings, named):
    if "base" in settings:
        settings = {**settings, "base": str(base)}
    with pytest.raises(ConfigError) as caught:
        load_recipe("adapt", data=data, overrides=settings)
    for part in named:
        assert part in str(caught.value)


def test_a_base_that_is_not_there_is_named_before_anything_is_written():
    with pytest.raises(UsageError, match=r"no such model folder.*nowhere"):
        load_recipe("adapt", data=["x.jsonl"], overrides={"base": "nowhere"})
