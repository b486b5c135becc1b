"""Conversations from the usual shapes of rows."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError
from glasshouse.files import read_conversations


def rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [system("s"), user("q"), assistant("a")]}, [system("s"), user("q"), assistant("a")]),
        ({"instruction": "q", "input": "", "output": "a"}, [user("q"), assistant("a")]),
        ({"instruction": "q", "input": "x", "output": "a"}, [user("q\n\nx"), assistant("a")]),
        ({"instruction": "q", "context": "x", "response": "a"}, [user("q\n\nx"), assistant("a")]),
        ({"prompt": "q", "completion": "a"}, [user("q"), assistant("a")]),
        ({"prompt": [user("q")], "completion": [assistant("a")]}, [user("q"), assistant("a")]),
        ({"prompt": "q", "response": "a", "system": "s"}, [system("s"), user("q"), assistant("a")]),
        ({"question": "q", "answer": "a"}, [user("q"), assistant("a")]),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            [user("q"), assistant("a")],
        ),
    ],
)
def test_the_usual_shapes_become_messages(tmp_path: Path, row: dict, messages: list):
    """Each shape is read as its data sets mean it; the source is the file."""
    path = rows(tmp_path / "chats.jsonl", row)
    assert list(read_conversations(path)) == [{"messages": messages, "source": "chats"}]


def test_an_instruction_with_instances_is_several_conversations(tmp_path: Path):
    """Self-Instruct's seed tasks hold several inputs and outputs for one instruction."""
    instances = [{"input": "x", "output": "1"}, {"input": "", "output": "2"}]
    path = rows(tmp_path / "seed.jsonl", {"instruction": "q", "instances": instances})
    assert [chat["messages"] for chat in read_conversations(path)] == [
        [user("q\n\nx"), assistant("1")],
        [user("q"), assistant("2")],
    ]


def test_tools_and_tool_calls_are_kept(tmp_path: Path):
    """The assistant may act without words, and keys that are null are dropped."""
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {**user("1+1?"), "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "2", "reasoning_content": "easy"},
    ]
    path = rows(
        tmp_path / "chats.jsonl", {"messages": messages, "tools": [{"name": "add"}], "source": "mine"}
    )
    (chat,) = read_conversations(path)
    assert chat["tools"] == [{"name": "add"}]
    assert chat["source"] == "mine"
    assert chat["messages"][0] == user("1+1?")
    assert chat["messages"][1] == {"role": "assistant", "tool_calls": [call]}


def test_parquet_tables_of_messages_are_read(tmp_path: Path):
    """Columns of structs have every key in every message; the nulls go."""
    messages = [{"role": "user", "content": "q", "tool_calls": None}, {"role": "assistant", "content": "a"}]
    table = pyarrow.Table.from_pylist([{"messages": messages}])
    pyarrow.parquet.write_table(table, tmp_path / "chats.parquet")
    (chat,) = read_conversations(tmp_path / "chats.parquet")
    assert chat["messages"] == [user("q"), assistant("a")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "it has 'text'"),
        ({}, "it has nothing"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hi"}, "must be a list"),
        ({"messages": ["hi"]}, "message 1 is not an object"),
        ({"messages": [user("q"), {"role": "bot", "content": "x"}]}, "message 2 has the role 'bot'"),
        ({"messages": [{"content": "x"}]}, "message 1 has the role None"),
        ({"messages": [{"role": ["x"], "content": "x"}]}, "message 1 has the role"),
        ({"messages": [{"role": "user"}]}, 'message 1 has no "content"'),
        ({"messages": [{"role": "user", "content": 3}]}, 'message 1 has no "content"'),
        ({"messages": [{"role": "assistant", "content": None}]}, 'message 1 has no "content"'),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "not text"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "tool call"),
        ({"messages": [user("q")]}, "nothing to learn"),
        ({"messages": [user("q"), assistant("\ud800")]}, "surrogate"),
        ({"messages": [user("q"), assistant("a")], "tools": "add"}, '"tools"'),
        ({"instruction": 1, "output": "x"}, "must be strings"),
        ({"prompt": "q", "completion": 5}, 'message 2 has no "content"'),
        ({"instruction": "q", "instances": ["x"]}, '"instances"'),
        ({"conversations": [1]}, '"conversations"'),
        ({"conversations": [{"from": ["x"], "value": "y"}]}, "role"),
    ],
)
def test_what_is_no_conversation_is_named(tmp_path: Path, row: dict, message: str):
    """The error names the file, the row, the message and the fix."""
    path = rows(tmp_path / "chats.jsonl", {"messages": [user("q"), assistant("a")]}, row)
    with pytest.raises(DataError, match=message) as error:
        list(read_conversations(path))
    assert "chats.jsonl, row 2" in str(error.value)
    assert "Fix: " in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "tool_calls", "text"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
SHAPES = ("messages", "conversations", "instruction", "output", "instances", "prompt", "completion")
KEYS = st.sampled_from([*SHAPES, "question", "answer", "input", "response", "system", "tools", "source"])


@settings(deadline=None, max_examples=200)
@given(row=st.dictionaries(KEYS, JSON, min_size=1, max_size=4))
def test_any_row_is_a_conversation_or_one_error(tmp_path_factory, row: dict):
    """Whatever stands in the known columns, the answer is valid conversations or a DataError."""
    path = rows(tmp_path_factory.mktemp("any") / "chats.jsonl", row)
    problem, chats = "", []
    try:
        chats = list(read_conversations(path))
    except DataError as error:
        problem = str(error)
    assert chats or "row 1" in problem or row.get("instances") == []
    for chat in chats:
        assert any(message["role"] == "assistant" for message in chat["messages"])
        for message in chat["messages"]:
            assert isinstance(message.get("content"), (str, list, type(None)))
