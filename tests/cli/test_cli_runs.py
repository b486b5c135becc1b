"""The verbs on a user's own files, from text to a fine-tuned model."""

import json
import random

import pytest

SMALL = [
    "--set=tokenizer.vocab_size=300",
    "--set=model.hidden_size=32",
    "--set=model.intermediate_size=64",
    "--set=model.num_hidden_layers=1",
    "--set=model.num_attention_heads=2",
    "--set=model.num_key_value_heads=1",
    "--set=model.max_position_embeddings=64",
    "--set=pretrain.sequence_length=32",
    "--set=pretrain.batch_tokens=256",
    "--set=pretrain.tokens=2048",
    "--set=pretrain.log_every=2",
    "--set=pretrain.eval_every=4",
    "--set=evaluate.sample_tokens=4",
]


@pytest.fixture
def files(tmp_path):
    """A folder of texts in several formats, and a file of conversations."""
    rng = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "birds"]

    def text(length):
        return " ".join(rng.choice(words) for _ in range(length)) + ".\n"

    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text(text(200))
    (folder / "more" / "b.md").write_text(text(200))
    rows = [json.dumps({"text": text(40)}) for _ in range(40)]
    (folder / "c.jsonl").write_text("\n".join(rows) + "\n")
    chats = [
        {"messages": [{"role": "user", "content": text(3)}, {"role": "assistant", "content": text(3)}]}
        for _ in range(30)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return folder


def test_own_text_from_files_to_a_model_that_is_checked_compared_and_fine_tuned(glasshouse, files, tmp_path):
    """One story: run, again, verify, report, a changed run, compare, eval, train sft, train pretrain."""
    first = glasshouse("run", "own-text", "--data", files, *SMALL, "--out", "runs/one")
    assert first.code == 0, first.err
    assert "bits_per_byte" in first.out
    assert "runs/one/report.html" in first.out
    assert "glasshouse chat runs/one" in first.out
    statistics = json.loads((tmp_path / "runs/one/corpus/statistics.json").read_text())
    assert statistics["train"]["documents"] + statistics["validation"]["documents"] == 42

    again = glasshouse("run", "own-text", "--data", files, *SMALL, "--out", "runs/one")
    assert again.out == first.out

    assert glasshouse("verify", "runs/one").code == 0
    assert glasshouse("report", "runs/one").out.strip() == "runs/one/report.html"

    changed = [*SMALL, "--set=pretrain.muon_lr=0.001", "--out", "runs/two"]
    second = glasshouse("run", "own-text", "--data", files, *changed)
    assert "corpus: reused from runs/one" in second.err
    compared = json.loads(glasshouse("compare", "runs/one", "runs/two", "--json").out)
    assert [setting["key"] for setting in compared["settings"]] == ["pretrain.muon_lr"]
    assert compared["html"] == "runs/two/compare-one.html"
    table = glasshouse("compare", "runs/one", "runs/two")
    assert "pretrain.muon_lr" in table.out
    assert "bits_per_byte" in table.out

    probes = json.loads(glasshouse("eval", "runs/one", "--json").out)
    recorded = json.loads((tmp_path / "runs/one/evaluation/pretrain.json").read_text())
    assert probes["bits_per_byte"]["value"] == pytest.approx(recorded["bits_per_byte"]["value"], rel=1e-5)
    own = glasshouse("eval", "runs/one", "--data", files / "a.txt", files / "c.jsonl")
    assert own.code == 0
    assert "bits_per_byte" in own.out

    tune = ["--data", "chats.jsonl", "--out", "runs/tuned", "--set=epochs=1", "--set=sequence_length=64"]
    tuned = glasshouse("train", "sft", "--model", "runs/one", *tune, "--set=batch_tokens=256")
    assert tuned.code == 0, tuned.err
    assert "runs/tuned/sft/model" in tuned.out
    assert (tmp_path / "runs/tuned/sft/conversations.jsonl").read_text().count("\n") == 30
    assert glasshouse("verify", "runs/tuned").code == 0

    grow = ["--data", files / "a.txt", "--out", "runs/on", "--set=tokens=512", "--set=sequence_length=32"]
    on = glasshouse("train", "pretrain", "--model", "runs/one", *grow, "--set=batch_tokens=128")
    assert on.code == 0, on.err
    before = (tmp_path / "runs/one/pretrain/model/tokenizer.json").read_bytes()
    assert (tmp_path / "runs/on/pretrain/model/tokenizer.json").read_bytes() == before

    (tmp_path / "long.txt").write_text("".join(f"the cat saw {i} birds and sat. " for i in range(999)))
    longer = ["--data", "long.txt", "--out", "runs/long", "--set=max_position_embeddings=128"]
    long = glasshouse("train", "context", "--model", "runs/one", *longer, "--set=tokens=512")
    assert long.code == 0, long.err
    assert "window 64 to 128 tokens" in long.err
    assert "bits per byte by position" in long.out
    assert "64 to 128" in long.out
    assert "runs/long/context/model" in long.out
    assert "glasshouse train sft --model runs/long" in long.out
    assert glasshouse("verify", "runs/long").code == 0

    (tmp_path / "runs/one/pretrain/metrics.jsonl").write_text("")
    bad = glasshouse("verify", "runs/one")
    assert bad.code == 1
    assert "metrics.jsonl" in bad.out
    assert json.loads(glasshouse("verify", "runs/one", "--json").out)["ok"] is False


def test_a_changed_file_is_noticed_and_the_earlier_result_kept(glasshouse, files, tmp_path):
    until = ["--until", "tokenizer", "--out", "run"]
    assert glasshouse("run", "own-text", "--data", files, *SMALL, *until).code == 0
    (files / "a.txt").write_text("something else entirely " * 50)
    result = glasshouse("run", "own-text", "--data", files, *SMALL, *until)
    assert "changed since the last run: corpus, tokenizer" in result.err
    assert len(list((tmp_path / "run" / "previous").iterdir())) == 2


def test_a_recipe_file_runs_and_its_resolved_form_runs_again(glasshouse, files, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "extends: own-text\nname: mine\ntokenizer: {vocab_size: 300}\nmodel: {max_position_embeddings: 512}\n"
    )
    arguments = ["--data", files / "a.txt", "--until", "tokenizer"]
    assert glasshouse("run", "mine.yaml", *arguments).code == 0
    result = glasshouse("run", "runs/mine/recipe.yaml", "--until", "tokenizer", "--out", "runs/again")
    assert result.code == 0
    assert "tokenizer: reused from runs/mine" in result.err
