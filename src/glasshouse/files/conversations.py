"""Conversations to fine-tune on: `{"messages": [{"role", "content"}, …], "tools"?, "source"}`.

Rows of the usual instruction data sets are turned into messages; each shape is one entry of the table below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files import rows
from glasshouse.files.paths import Found, find_files
from glasshouse.files.position import Position
from glasshouse.files.text import check_text

ROLES = ("system", "user", "assistant", "tool")

_FIX = 'write {"messages": [{"role": "user", "content": "..."}, ...]} or remove the row'

Messages = list[dict[str, Any]]


def read_conversations(paths: str | Path | Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Conversations of .jsonl, .json and .parquet files and of folders with them, one at a time.

    Accepted rows: {"messages"}, ShareGPT's {"conversations"}, {"instruction", "input"?, "output"},
    {"instruction", "instances"}, {"prompt", "completion"} and {"question", "answer"}. Paths are checked at
    once; raises DataError naming the file, the row and the fix.
    """
    files = find_files(paths, rows.SUFFIXES)
    return _conversations(files)


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether the row has one of the accepted shapes."""
    return _shape_of(row) is not None


def _conversations(files: list[Found]) -> Iterator[dict[str, Any]]:
    for file in files:
        for position, row in rows.read_rows(file.path):
            yield from conversations_of(row, position, file.name)


def conversations_of(row: Mapping[str, Any], position: Position, file: str) -> Iterator[dict[str, Any]]:
    """What one row of the file called `file` says; raises DataError where it is no conversation."""
    shape = _shape_of(row)
    if shape is None:
        raise DataError(
            f"no conversation in this row; it has {', '.join(map(repr, row)) or 'nothing'}"[:300],
            where=position,
            fix=_FIX,
        )
    for messages in shape(row, position):
        conversation: dict[str, Any] = {"messages": _checked(messages, position)}
        if row.get("tools"):
            conversation["tools"] = checked_tools(row["tools"], position)
        conversation["source"] = str(row.get("source") or file)
        yield conversation


# The shapes of rows


def _from_messages(row: Mapping[str, Any], position: Position) -> Iterator[Messages]:
    yield row["messages"]


def _from_sharegpt(row: Mapping[str, Any], position: Position) -> Iterator[Messages]:
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise _wrong('"conversations" is not a list of objects', position)
    yield [{"role": _role(turn.get("from")), "content": turn.get("value")} for turn in turns]


def _role(speaker: Any) -> Any:
    """ShareGPT's names of the speakers; others are judged with the roles of messages."""
    return "user" if speaker == "human" else "assistant" if speaker == "gpt" else speaker


def _from_instruction(row: Mapping[str, Any], position: Position) -> Iterator[Messages]:
    given = _joined(row["instruction"], row.get("input") or row.get("context"), position)
    yield _turns(row.get("system"), given, row["output"] if "output" in row else row["response"])


def _from_instances(row: Mapping[str, Any], position: Position) -> Iterator[Messages]:
    instances = row["instances"]
    if not isinstance(instances, list) or not all(isinstance(instance, Mapping) for instance in instances):
        raise _wrong('"instances" is not a list of objects', position)
    for instance in instances:
        given = _joined(row["instruction"], instance.get("input"), position)
        yield _turns(None, given, instance.get("output"))


def _from_prompt(row: Mapping[str, Any], position: Position) -> Iterator[Messages]:
    prompt, completion = row["prompt"], row["completion"] if "completion" in row else row["response"]
    if isinstance(prompt, list) and isinstance(completion, list):
        yield prompt + completion
    else:
        yield _turns(row.get("system"), prompt, completion)


def _from_question(row: Mapping[str, Any], position: Position) -> Iterator[Messages]:
    yield _turns(row.get("system"), row["question"], row["answer"])


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any], Position], Iterator[Messages]]], ...] = (
    (("messages",), _from_messages),
    (("conversations",), _from_sharegpt),
    (("instruction", "output"), _from_instruction),
    (("instruction", "response"), _from_instruction),
    (("instruction", "instances"), _from_instances),
    (("prompt", "completion"), _from_prompt),
    (("prompt", "response"), _from_prompt),
    (("question", "answer"), _from_question),
)
"""The columns that tell a shape, and what turns such a row into conversations. The first that fits counts."""


def _shape_of(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any], Position], Iterator[Messages]] | None:
    for columns, shape in _SHAPES:
        if all(row.get(column) is not None for column in columns):
            return shape
    return None


def _joined(instruction: Any, given: Any, position: Position) -> str:
    """An instruction and what it is about, as one message."""
    if not isinstance(instruction, str) or not (given is None or isinstance(given, str)):
        raise _wrong('"instruction" and "input" must be strings', position)
    return f"{instruction}\n\n{given}" if given and given.strip() else instruction


def _turns(system: Any, user: Any, assistant: Any) -> Messages:
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return [{"role": "system", "content": system}, *turns] if system else turns


# What a conversation must be


def _checked(messages: Any, position: Position) -> Messages:
    """The messages without keys that are null; raises DataError for anything that is no conversation."""
    if not isinstance(messages, list) or not messages:
        raise _wrong('"messages" must be a list with at least one message', position)
    checked = [checked_message(row, f"message {number}", position) for number, row in enumerate(messages, 1)]
    if not any(message["role"] == "assistant" for message in checked):
        raise _wrong("no message is the assistant's, so there is nothing to learn", position)
    return checked


def checked_message(message: Any, which: str, position: Position) -> dict[str, Any]:
    """One message without keys that are null; raises DataError, with `which` of them, for what is none."""
    if not isinstance(message, Mapping):
        raise _wrong(f"{which} is not an object", position)
    kept = {key: value for key, value in message.items() if value is not None}
    if kept.get("role") not in ROLES:
        raise _wrong(f"{which} has the role {kept.get('role')!r}, not one of {', '.join(ROLES)}", position)
    content = kept.get("content")
    acts = kept.get("tool_calls") or kept.get("reasoning_content")
    speaks_otherwise = kept["role"] == "assistant" and acts
    if isinstance(content, list):
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
            raise _wrong(f"{which} has content that is not text", position)
    elif not isinstance(content, str) and not (content is None and speaks_otherwise):
        raise _wrong(f'{which} has no "content" that is a string', position)
    if not isinstance(kept.get("reasoning_content", ""), str):
        raise _wrong(f'{which} has a "reasoning_content" that is not a string', position)
    if "tool_calls" in kept:
        _check_tool_calls(kept["tool_calls"], which, position)
    _check_strings(kept, position)
    return kept


def _check_tool_calls(calls: Any, which: str, position: Position) -> None:
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise _wrong(f'{which} has a tool call without {{"function": {{"name", "arguments"}}}}', position)


def checked_tools(tools: Any, position: Position) -> list[dict[str, Any]]:
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise _wrong('"tools" is not a list of objects', position)
    _check_strings(tools, position)
    return [dict(tool) for tool in tools]


def _check_strings(value: Any, position: Position) -> None:
    """Every string inside must be text that UTF-8 can write."""
    if isinstance(value, str):
        check_text(value, position)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_strings(key, position)
            _check_strings(item, position)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item, position)


def _wrong(what: str, position: Position) -> DataError:
    return DataError(what, where=position, fix=_FIX)
