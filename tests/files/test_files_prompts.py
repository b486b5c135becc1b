"""Prompts for reinforcement learning: what may stand in a row, and what is refused with its place."""

import json

import pytest

from glasshouse.core.errors import DataError
from glasshouse.files import read_prompts


def rows(tmp_path, *given):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return list(read_prompts(path))


def test_texts_messages_and_conversations_become_prompts(tmp_path):
    asked = {"role": "user", "content": "What is 2 + 2?"}
    said = {"role": "assistant", "content": "4"}
    found = rows(
        tmp_path,
        {"prompt": "What is 2 + 2?", "answer": "4"},
        {"prompt": [asked]},
        {"messages": [asked, said, asked, said]},
    )
    assert found[0] == {"prompt": [asked], "answer": "4"}
    assert found[1] == {"prompt": [asked]}
    assert found[2]["prompt"] == [asked, said, asked]


@pytest.mark.parametrize("row", [{"prompt": ""}, {"prompt": []}, {"prompt": "  \n"}])
def test_an_empty_prompt_is_refused_with_its_row(tmp_path, row):
    with pytest.raises(DataError, match=r"the prompt is empty") as error:
        rows(tmp_path, {"prompt": "Hi."}, row)
    assert "prompts.jsonl" in str(error.value)
    assert "2" in str(error.value)


def test_a_row_without_a_prompt_is_refused(tmp_path):
    with pytest.raises(DataError, match='no "prompt"'):
        rows(tmp_path, {"text": "Hi."})
