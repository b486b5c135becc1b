"""Rows of any file of rows, by its suffix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files import jsonl, parquet
from glasshouse.files.paths import format_suffix
from glasshouse.files.position import Position

SUFFIXES = (*jsonl.SUFFIXES, *jsonl.LIST_SUFFIXES, *parquet.SUFFIXES)


def read_rows(path: str | Path) -> Iterator[tuple[Position, dict[str, Any]]]:
    """Rows of a .jsonl, .json or .parquet file (the first two also as .gz or .zst) with their positions.

    Raises DataError naming the file, the row and the fix.
    """
    path = Path(path)
    suffix = format_suffix(path)
    if suffix in jsonl.SUFFIXES:
        return jsonl.read_jsonl(path)
    if suffix in jsonl.LIST_SUFFIXES:
        return jsonl.read_json_list(path)
    if suffix in parquet.SUFFIXES:
        return parquet.read_parquet(path)
    raise DataError("not a file of rows", where=path, fix=f"use one of {', '.join(SUFFIXES)}")
