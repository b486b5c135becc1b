"""Prompts for reinforcement learning: `{"prompt": text or [messages], "answer"?: text}`, one a row.

A conversation `{"messages"}` gives the prompt of its last reply. Everything else in a row is kept, for the
program that judges replies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files import rows
from glasshouse.files.conversations import Messages, checked_message
from glasshouse.files.paths import Found, find_files
from glasshouse.files.position import Position

_FIX = 'write {"prompt": "What is 2 + 2?"} or remove the row'


def read_prompts(paths: str | Path | Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Rows with a "prompt" of messages, of .jsonl, .json and .parquet files and of folders with them.

    Paths are checked at once; raises DataError naming the file, the row and the fix.
    """
    return _prompts(find_files(paths, rows.SUFFIXES))


def _prompts(files: list[Found]) -> Iterator[dict[str, Any]]:
    for file in files:
        for position, row in rows.read_rows(file.path):
            yield {**row, "prompt": _prompt(row, position)}


def _prompt(row: dict[str, Any], position: Position) -> Messages:
    given = row.get("prompt", row.get("messages"))
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise DataError('no "prompt" in this row', where=position, fix=_FIX)
    messages = [
        checked_message(message, f"message {number} of the prompt", position)
        for number, message in enumerate(given, 1)
    ]
    while "prompt" not in row and messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not any(str(message.get("content") or "").strip() for message in messages):
        raise DataError("the prompt is empty: nothing is asked", where=position, fix=_FIX)
    return messages
