"""Preference pairs: `{"prompt": [messages], "chosen": [messages], "rejected": [messages], "source"}`.

`margin` says by how much the chosen reply is better, in the units of the reward; `tie` that the raters found
neither better. Rows of the usual data sets are turned into this shape:

    {"prompt", "chosen", "rejected"}              lists of messages, or strings
    {"chosen", "rejected"}                        whole conversations: messages, or HH-RLHF's "Human: ..."
    {"instruction", "input"?, "chosen", "rejected"}
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files import rows
from glasshouse.files.conversations import Messages, checked_message, checked_tools
from glasshouse.files.paths import Found, find_files
from glasshouse.files.position import Position

_FIX = 'write {"prompt": [messages], "chosen": [messages], "rejected": [messages]} or remove the row'

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")
"""How the conversations of HH-RLHF (arXiv:2204.05862) name who speaks."""


def read_preferences(paths: str | Path | Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Preference pairs of .jsonl, .json and .parquet files and of folders with them, one at a time.

    A pair has "prompt", "chosen", "rejected" and "source"; "tools", "margin" and "tie" where the row has
    them. Both replies begin with an assistant's message. Paths are checked at once; raises DataError naming
    the file, the row and the fix.
    """
    files = find_files(paths, rows.SUFFIXES)
    return _preferences(files)


def _preferences(files: list[Found]) -> Iterator[dict[str, Any]]:
    for file in files:
        for position, row in rows.read_rows(file.path):
            yield preference_of(row, position, file.name)


def preference_of(row: Mapping[str, Any], position: Position, file: str) -> dict[str, Any]:
    """What one row of the file called `file` says; raises DataError where it is no pair."""
    for key in ("chosen", "rejected"):
        if row.get(key) is None:
            has = ", ".join(map(repr, row)) or "nothing"
            raise _wrong(f"no {key!r} in this row; it has {has}"[:300], position)
    prompt = _prompt(row, position)
    chosen, rejected = (_messages(row[key], key, "assistant", position) for key in ("chosen", "rejected"))
    if chosen == rejected:
        raise _wrong("the chosen reply equals the rejected one, which says nothing about either", position)
    # Whole conversations repeat the prompt, where there is one, and begin alike.
    if not prompt or all(reply[: len(prompt)] == prompt for reply in (chosen, rejected)):
        prompt, chosen, rejected = _parted(chosen, rejected)
    _check(prompt, chosen, rejected, position)
    pair: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if row.get("tools"):
        pair["tools"] = checked_tools(row["tools"], position)
    pair |= _judgement(row, position)
    pair["source"] = str(row.get("source") or file)
    return pair


def _prompt(row: Mapping[str, Any], position: Position) -> Messages:
    """The prompt as the row gives it; empty where the conversations have to tell it."""
    if row.get("prompt") is not None:
        prompt = _messages(row["prompt"], "prompt", "user", position)
        if not prompt:
            raise _wrong("the prompt is empty", position)
    elif row.get("instruction") is not None:
        given = [row["instruction"], row.get("input") or ""]
        if not all(isinstance(text, str) for text in given):
            raise _wrong('"instruction" and "input" must be strings', position)
        prompt = [{"role": "user", "content": "\n\n".join(text for text in given if text.strip())}]
    else:
        return []
    system = row.get("system")
    if isinstance(system, str) and system.strip() and prompt[0]["role"] != "system":
        prompt = [{"role": "system", "content": system}, *prompt]
    return prompt


def _messages(value: Any, key: str, role: str, position: Position) -> Messages:
    """A list of messages, the turns of a conversation in HH-RLHF's writing, or a text that `role` says."""
    if isinstance(value, str):
        value = _turns(value) or [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise _wrong(f'"{key}" is neither a text nor a list of messages', position)
    try:
        return [
            checked_message(message, f'message {number} of "{key}"', position)
            for number, message in enumerate(value, 1)
        ]
    except DataError as error:
        raise _wrong(error.what, position) from None


def _turns(text: str) -> Messages:
    """The turns of a text that begins with a speaker's name; none where it does not."""
    if not text.lstrip().startswith("Human:"):
        return []
    parts = _SPEAKER.split(text.strip())[1:]
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _parted(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """Two whole conversations as the prompt that they share, and what follows in each.

    Where they part in a user's turn, the assistant's turn before it belongs to both replies: what a reply
    begins with is an answer.
    """
    shared = 0
    for ours, theirs in zip(chosen, rejected, strict=False):
        if ours != theirs:
            break
        shared += 1
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    while shared > 0 and not (chosen[shared]["role"] == rejected[shared]["role"] == "assistant"):
        shared -= 1
    shared = max(shared, 0)
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _check(prompt: Messages, chosen: Messages, rejected: Messages, position: Position) -> None:
    if not any(message["role"] != "system" and _says(message) for message in prompt):
        raise _wrong("the prompt is empty: nothing is asked that the replies answer", position)
    for key, reply in (("chosen", chosen), ("rejected", rejected)):
        if not reply or reply[0]["role"] != "assistant":
            raise _wrong(f'"{key}" does not begin with a message of the assistant', position)


def _says(message: Mapping[str, Any]) -> bool:
    """Whether anything stands in a message."""
    content = message.get("content")
    if isinstance(content, list):
        return any(part["text"].strip() for part in content)
    return bool(content and content.strip()) or bool(message.get("tool_calls"))


def _judgement(row: Mapping[str, Any], position: Position) -> dict[str, Any]:
    """The row's margin and tie, where it has them."""
    found: dict[str, Any] = {}
    margin, tie = row.get("margin"), row.get("tie")
    if margin is not None:
        number = isinstance(margin, (int, float)) and not isinstance(margin, bool)
        if not number or not math.isfinite(margin) or margin < 0:
            raise _wrong(f'"margin" is {margin!r}, not a number of at least 0', position)
        found["margin"] = float(margin)
    if tie is not None:
        if not isinstance(tie, bool):
            raise _wrong(f'"tie" is {tie!r}, neither true nor false', position)
        if tie and margin:
            raise _wrong(f"a tie with a margin of {margin}: neither reply can then be better", position)
        found["tie"] = tie
    return found


def _wrong(what: str, position: Position) -> DataError:
    return DataError(what, where=position, fix=_FIX)
