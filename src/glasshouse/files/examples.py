"""What a model is to be adapted to: conversations and documents, in one stream and told apart row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files import rows, text
from glasshouse.files.conversations import conversations_of, is_conversation
from glasshouse.files.documents import SUFFIXES, document_of, without_blank
from glasshouse.files.paths import Found, find_files, format_suffix

_FIX = 'write {"messages": [{"role": "user", "content": "..."}, ...]} or {"text": "..."}, or remove the row'


def read_examples(paths: str | Path | Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Conversations {"messages", "tools"?, "source"} and documents {"id", "text", "source", ...} in turn.

    A .txt or .md file is a document, and so is a row with "text" that has no shape of a conversation.
    Paths are checked at once; raises DataError naming the file, the row and the fix.
    """
    files = find_files(paths, SUFFIXES)
    return _examples(files)


def _examples(files: list[Found]) -> Iterator[dict[str, Any]]:
    for file in files:
        if format_suffix(file.path) in text.SUFFIXES:
            yield {"id": file.name, "text": text.read_text(file.path), "source": file.source}
            continue
        yield from without_blank(_rows(file), file.path)


def _rows(file: Found) -> Iterator[Iterable[dict[str, Any]]]:
    """What each row of a file says: conversations, or one document."""
    for position, row in rows.read_rows(file.path):
        if is_conversation(row):
            yield conversations_of(row, position, file.name)
        elif "text" in row:
            yield [document_of(row, position, file.name)]
        else:
            raise DataError(
                "neither a conversation nor a document in this row; it has "
                f"{', '.join(map(repr, row)) or 'nothing'}"[:300],
                where=position,
                fix=_FIX,
            )
