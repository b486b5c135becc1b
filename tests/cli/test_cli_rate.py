"""`glasshouse rate`: what a person chooses becomes data that the training verbs read."""

import io
import json
import sys

import pytest

from glasshouse.alignment.human_feedback import FeedbackFolder
from glasshouse.cli.rate import edited
from glasshouse.core.errors import DataError, UsageError
from glasshouse.files import read_examples, read_preferences

PROMPTS = ["Say a word.", "Say two words.", "Name a town.", "Name a dish.", "Sing."]


@pytest.fixture
def rate(glasshouse, tiny_model, monkeypatch, tmp_path):
    """rate("1", "q", prompts=...): one session with these lines on its pipe."""

    def session(*lines: str, prompts=PROMPTS, options=()):
        rows = [json.dumps({"prompt": prompt}) + "\n" for prompt in prompts]
        (tmp_path / "prompts.jsonl").write_text("".join(rows))
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        data = ["--data", "prompts.jsonl"] if prompts else []
        line = ["rate", tiny_model, *data, "--out", "said", "--max-tokens", "12", "--who", "Ada", *options]
        result = glasshouse(*line)
        assert result.code == 0, result.err
        return result

    return session


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_choices_ties_and_edits_are_read_back_by_the_readers_of_training(rate, tmp_path):
    rate("1", "2", "t", "b", "e", "2", "La la la.")
    pairs = list(read_preferences(tmp_path / "said" / "preferences.jsonl"))
    assert [pair["prompt"][0]["content"] for pair in pairs] == PROMPTS
    assert [pair.get("tie", False) for pair in pairs] == [False, False, True, True, False]
    (edited,) = read_examples(tmp_path / "said" / "sft.jsonl")
    assert [message["content"] for message in edited["messages"]] == ["Sing.", "La la la."]


def test_the_chosen_reply_is_the_one_that_stood_at_the_key(rate, tmp_path):
    """The panel of the other key holds the rejected one, whatever the drawn order; so with keys exchanged
    the files tell the opposite."""
    rate("1", "1", "1", "1", "1")
    first = rows(tmp_path / "said" / "preferences.jsonl")
    (tmp_path / "said" / "preferences.jsonl").unlink()
    rate("2", "2", "2", "2", "2")
    second = rows(tmp_path / "said" / "preferences.jsonl")
    assert [row["chosen"] for row in first] == [row["rejected"] for row in second]
    assert [row["metadata"]["left"] for row in first] == [row["metadata"]["left"] for row in second]
    lower_seed_left = {row["metadata"]["left"]["seed"] < row["metadata"]["right"]["seed"] for row in first}
    assert lower_seed_left == {True, False}, "the order is drawn for each prompt"


def test_metadata_says_who_when_and_what(rate, tmp_path, tiny_model):
    rate("b", "q")
    (row,) = rows(tmp_path / "said" / "preferences.jsonl")
    said = row["metadata"]
    assert said["who"] == "Ada"
    assert said["both_bad"]
    assert said["when"].endswith("+00:00")
    assert said["left"]["model"] == said["right"]["model"] == str(tiny_model)
    assert said["left"]["seed"] != said["right"]["seed"]


def test_a_judged_prompt_is_not_asked_again_and_a_skipped_one_is(rate, tmp_path):
    assert "1 judged now, 1 in all" in rate("s", "1", "q").err
    assert "2 judged now, 3 in all" in rate("1", "2", "q").err
    asked = [row["prompt"][0]["content"] for row in rows(tmp_path / "said" / "preferences.jsonl")]
    assert asked == ["Say two words.", "Say a word.", "Name a town."]


def test_a_line_that_a_killed_session_left_half_written_is_cut_off(rate, tmp_path):
    rate("1", "2", "q")
    path = tmp_path / "said" / "preferences.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    rate("2", "q")
    assert path.read_bytes().startswith(whole[: whole.index(b"\n") + 1])
    assert [row["prompt"][0]["content"] for row in rows(path)] == PROMPTS[:2]


def test_an_unknown_key_asks_again_and_the_end_of_the_pipe_ends_the_session(rate, tmp_path):
    result = rate("x", "", "2")
    assert result.err.count("q quit") == 4
    assert len(rows(tmp_path / "said" / "preferences.jsonl")) == 1


def test_an_empty_edit_writes_nothing(rate, tmp_path):
    rate("e1", "  ", "q")
    assert not (tmp_path / "said").exists()


def test_prompts_may_be_typed(rate, tmp_path):
    rate("Who are you?", "1", "q", prompts=[])
    (row,) = rows(tmp_path / "said" / "preferences.jsonl")
    assert row["prompt"] == [{"role": "user", "content": "Who are you?"}]


def test_two_models_reply_once_each(rate, tmp_path, tiny_model):
    rate("1", "q", options=["--other", tiny_model / "."])
    (row,) = rows(tmp_path / "said" / "preferences.jsonl")
    assert row["metadata"]["left"] != row["metadata"]["right"]


def test_one_model_without_temperature_is_refused(glasshouse, tiny_model):
    result = glasshouse("rate", tiny_model, "--temperature", "0")
    assert result.code == 2
    assert "--other" in result.err


def test_what_a_model_writes_cannot_move_the_cursor(rate):
    """Untrained, it writes bytes of every kind."""
    shown = rate("s", "s", "s", "s", "s", options=["--max-tokens", "120"]).out
    assert not {c for c in shown if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0}


def test_a_folder_with_other_rows_is_refused(tmp_path):
    (tmp_path / "preferences.jsonl").write_text('{"text": "no pair"}\n')
    with pytest.raises(DataError, match="choose another --out"):
        FeedbackFolder(tmp_path, "Ada")


def test_a_step_can_be_trained_on_what_was_said(rate, glasshouse, tmp_path, tiny_model):
    rate("1", "t", "e1", "A town on a river.", "e1", "Plum cake, of course.", "e2", "La la la, " * 5)
    settings = ["--set", "sequence_length=128", "--set", "batch_tokens=128", "--set", "epochs=1"]
    for stage, file in (("dpo", "preferences"), ("reward", "preferences"), ("sft", "sft")):
        more = ["--set", "validation_fraction=0"] if stage != "sft" else []
        line = ["--model", tiny_model, "--data", f"said/{file}.jsonl", "--out", f"runs/{stage}"]
        result = glasshouse("train", stage, *line, *settings, *more)
        assert result.code == 0, result.err
        assert (tmp_path / "runs" / stage / stage / "model" / "model.safetensors").is_file()


def test_the_editor_gets_the_reply_and_what_it_saves_is_taken(tmp_path, monkeypatch):
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf \'Better: \' | cat - "$1" > "$1.new" && mv "$1.new" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(editor))
    assert edited("a town") == "Better: a town"
    monkeypatch.setenv("EDITOR", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="set EDITOR"):
        edited("a town")
