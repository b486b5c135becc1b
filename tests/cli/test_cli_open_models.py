"""Models of others on the command line: adapted, exported, and named by hf:// - every failure one line."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from glasshouse.inference import LanguageModel
from glasshouse.model.peft_folder import load_adapter

SMALL = ["--set=sequence_length=128", "--set=batch_tokens=512", "--set=epochs=2", "--set=adapter_lr=0.01"]


def one_line(result, code: int) -> str:
    assert result.code == code, result
    assert "Traceback" not in result.err
    (shown,) = result.err.strip().split("\n")
    assert shown.startswith("Error: ")
    return shown


@pytest.fixture
def chats(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}!"}]}
        for i in range(40)
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def adapted(glasshouse, tiny_model, chats):
    """The recipe adapt on a tiny model, at out."""
    settings = ["--set=sft.batch_tokens=512", "--set=sft.epochs=1", "--set=evaluate.sample_tokens=4"]
    result = glasshouse("run", "adapt", "--base", tiny_model, "--data", chats, "--out", "out", *settings)
    assert result.code == 0, result.err
    assert "bits_per_byte" in result.out
    assert "out/report.html" in result.out
    return "out"


def test_base_is_a_setting_of_the_recipe_like_any_other(glasshouse, tiny_model, chats, tmp_path):
    """--base MODEL and --set base=MODEL are the same run: the second has nothing left to do."""
    begin = ["run", "adapt", "--data", chats, "--until", "sft", "--out", "out", "--set=sft.epochs=1"]
    assert glasshouse(*begin, "--base", tiny_model).code == 0
    before = (tmp_path / "out/sft/stage.json").read_bytes()
    assert glasshouse(*begin, f"--set=base={tiny_model}").code == 0
    assert (tmp_path / "out/sft/stage.json").read_bytes() == before
    assert yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["base"] == str(tiny_model)


def test_lora_of_the_bare_stage_leaves_an_adapter_of_this_rank(glasshouse, tiny_model, chats, tmp_path):
    tune = ["train", "sft", "--model", tiny_model, "--data", chats, "--out", "out", "--lora", "4", *SMALL]
    result = glasshouse(*tune, "--quantize", "int8")
    assert result.code == 0, result.err
    model = LanguageModel.load(tmp_path / "out/sft/model").model
    assert load_adapter(model, tmp_path / "out/sft/adapter").r == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--quantize", "nf4"], ["--lora"]),
        (["--quantize", "nf5", "--lora", "4"], ["nf5", "nf4"]),
        (["--lora", "0"], ["lora.r"]),
        (["--set=sequence_length=4096"], ["4096", "512"]),
    ],
)
def test_settings_that_cannot_be_are_one_line(glasshouse, tiny_model, chats, tmp_path, options, named):
    result = glasshouse("train", "sft", "--model", tiny_model, "--data", chats, "--out", "out", *options)
    shown = one_line(result, 2)
    for part in named:
        assert part in shown
    assert not (tmp_path / "out").exists()


def test_export_to_a_folder_with_a_card(glasshouse, adapted, tmp_path):
    """The card names data, recipe, probes and licence; the folder is the model."""
    result = glasshouse("export", adapted, "--to", "hf", "--out", "hf", "--license", "apache-2.0")
    assert result.code == 0, result.err
    card = (tmp_path / "hf/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    for part in ["`chats.jsonl`", "38 conversations", "validation_fraction: 0.05", "| `bits_per_byte` |"]:
        assert part in card
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "hf" / file).is_file()
    assert glasshouse("chat", "hf", "--once", "1?", "--max-tokens", "2").code == 0


def test_a_card_says_what_is_not_known(glasshouse, tiny_model, tmp_path):
    assert glasshouse("export", tiny_model, "--to", "hf", "--out", "hf").code == 0
    card = (tmp_path / "hf/README.md").read_text()
    assert "license: unknown" in card
    assert "not known here" in card


def test_export_to_gguf(glasshouse, adapted, tmp_path):
    result = glasshouse("export", adapted, "--to", "gguf", "--precision", "Q8_0", "--out", "model.gguf")
    assert result.code == 0, result.err
    assert (tmp_path / "model.gguf").read_bytes()[:4] == b"GGUF"
    assert "model.gguf" in result.out


@pytest.mark.parametrize("scheme", ["int8", "int4", "nf4"])
def test_export_to_few_bits_prints_what_it_saves_and_costs(glasshouse, adapted, tmp_path, scheme):
    """Its size, and bits per byte of the held-out rows before and after; the folder opens as a model."""
    result = glasshouse("export", adapted, "--to", scheme, "--out", "small")
    assert result.code == 0, result.err
    size, bits = result.out.strip().split("\n")
    before, after = (float(word) for word in size.split() if word.replace(".", "").isdigit())
    assert after < before
    known = json.loads((tmp_path / "out/evaluation/sft.json").read_text())["bits_per_byte"]["value"]
    assert f"{known:.4f} -> " in bits
    assert "%" in bits
    assert glasshouse("chat", "small", "--once", "1?", "--max-tokens", "2").code == 0


def test_what_a_run_held_out_is_what_eval_reads(glasshouse, adapted, tmp_path):
    found = json.loads(glasshouse("eval", adapted, "--json").out)
    known = json.loads((tmp_path / "out/evaluation/sft.json").read_text())
    assert found["bits_per_byte"]["value"] == pytest.approx(known["bits_per_byte"]["value"], rel=1e-5)


def test_export_writes_over_nothing_and_names_a_model_that_is_not_there(glasshouse, tiny_model, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("kept")
    for to in ("hf", "gguf", "nf4"):
        assert "there already" in one_line(glasshouse("export", tiny_model, "--to", to, "--out", "there"), 2)
    assert (tmp_path / "there" / "mine.txt").read_text() == "kept"
    assert "nowhere" in one_line(glasshouse("export", "nowhere", "--to", "hf", "--out", "x"), 2)
    assert glasshouse("export", tiny_model, "--to", "onnx", "--out", "x").code == 2


@pytest.mark.parametrize("name", ["hf://name", "hf://a/b/c", "hf://a b/c", "hf://-a/b"])
def test_a_name_that_cannot_be_on_the_hub(glasshouse, name):
    if name == "hf://-a/b":
        pytest.importorskip("huggingface_hub", reason="the library's own rules refuse this one")
    shown = one_line(glasshouse("export", name, "--to", "hf", "--out", "x"), 2)
    assert name in shown
    assert "hf://ORG/NAME" in shown


def command(*arguments: str, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own, after a line of Python."""
    code = f"import sys\n{before}\nfrom glasshouse.cli import main\nmain(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_without_the_library_a_name_of_the_hub_says_how_to_install_it():
    """The import is blocked as if nothing were installed."""
    done = command("chat", "hf://org/name", "--once", "x", before="sys.modules['huggingface_hub'] = None")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'glasshouse-lm[hub]'" in done.stderr


def test_without_a_network_a_name_of_the_hub_says_so(tmp_path):
    pytest.importorskip("huggingface_hub", reason="without it the test above applies")
    done = command(
        "run", "adapt", "--base", "hf://org/name", "--data", "x.jsonl",
        HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no network" in done.stderr
    assert "hf://org/name" in done.stderr
