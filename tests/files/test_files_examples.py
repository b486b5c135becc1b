"""Conversations and documents in one stream, told apart row by row."""

import json

import pytest

from glasshouse.core.errors import DataError
from glasshouse.files import read_examples

CHAT = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_every_row_is_a_conversation_or_a_document(tmp_path):
    """Text files and rows with "text" are documents; a row that is both counts as a conversation."""
    (tmp_path / "a.md").write_text("A page.\n")
    (tmp_path / "b.jsonl").write_text(lines({"text": "A row."}, CHAT, {**CHAT, "text": "also written out"}))
    (tmp_path / "c.jsonl").write_text(lines({"question": "Why?", "answer": "So."}, {"text": " "}))
    rows = list(read_examples(tmp_path))
    assert [row.get("text") for row in rows] == ["A page.\n", "A row.", None, None, None]
    assert [row["messages"][-1]["content"] for row in rows[2:]] == ["Hello.", "Hello.", "So."]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"body": "x"}, ["neither a conversation nor a document", "'body'"]),
        ({"text": 3}, ['"text" is int']),
        ({"messages": [{"role": "user"}]}, ["message 1", "content"]),
    ],
)
def test_a_row_that_is_neither_is_named_with_the_fix(tmp_path, row, named):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(CHAT, row))
    with pytest.raises(DataError) as caught:
        list(read_examples(path))
    for part in [*named, "rows.jsonl, row 2", "Fix:"]:
        assert part in str(caught.value)
