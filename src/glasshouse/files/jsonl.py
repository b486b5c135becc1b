"""JSON Lines (one object a line) and JSON files that hold a list of objects."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files.compression import open_bytes
from glasshouse.files.position import Position

SUFFIXES = (".jsonl", ".ndjson")
LIST_SUFFIXES = (".json",)

LONGEST_ROW = 1 << 28
"""Bytes. A longer line is a file of another kind, or an archive made to fill the memory."""


def read_jsonl(path: Path) -> Iterator[tuple[Position, dict[str, Any]]]:
    """Rows of a JSONL file, one at a time; blank lines are passed over.

    Lines end at "\\n" only: U+2028 and its like may stand inside strings. Raises DataError naming the row for
    bytes that are not UTF-8, invalid JSON, and rows that are not objects; and for a file without rows.
    """
    empty = True
    with open_bytes(path) as file:
        number = 0
        while line := file.readline(LONGEST_ROW):
            number += 1
            position = Position(path, number)
            if len(line) == LONGEST_ROW:
                raise DataError(f"a row of more than {LONGEST_ROW:,} bytes", where=position, fix="split it")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.isspace() or not line:
                continue
            empty = False
            yield position, _object(_parse(line, position), position)
    if empty:
        raise DataError("the file is empty", where=path, fix="put one JSON object on each line")


def read_json_list(path: Path) -> Iterator[tuple[Position, dict[str, Any]]]:
    """Items of a JSON file that holds one list of objects. It is read as a whole."""
    with open_bytes(path) as file:
        data = file.read().removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise DataError("the file is empty", where=path, fix="put a list of JSON objects into it")
    items = _parse(data, path, fix="correct it, or name it .jsonl if it holds one object a line")
    if not isinstance(items, list):
        raise DataError(f"holds {_kind(items)}, not a list", where=path, fix="put the rows in [...]")
    if not items:
        raise DataError("the list is empty", where=path, fix="put JSON objects into it")
    for number, item in enumerate(items, 1):
        position = Position(path, number)
        yield position, _object(item, position)


def _parse(data: bytes, where: Position | Path, fix: str = "correct or remove this row") -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 (byte {data[error.start]:#04x} at {error.start})",
            where=where,
            fix="save the file as UTF-8",
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}", where=where, fix=fix) from None


def _object(value: Any, position: Position) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{_kind(value)}, not an object", where=position, fix='write {"text": "..."} or the like'
        )
    return value


def _kind(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
