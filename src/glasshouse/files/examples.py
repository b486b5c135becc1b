"""What a model is to be adapted to: conversations and documents, in one stream and told apart row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.core.progress import say
from glasshouse.files import rows, text
from glasshouse.files.conversations import conversations_of, is_conversation
from glasshouse.files.documents import SUFFIXES, document_of
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
        blank = count = 0
        for position, row in rows.read_rows(file.path):
            count += 1
            if is_conversation(row):
                yield from conversations_of(row, position, file.name)
                continue
            if "text" not in row:
                raise DataError(
                    "neither a conversation nor a document in this row; it has "
                    f"{', '.join(map(repr, row)) or 'nothing'}"[:300],
                    where=position,
                    fix=_FIX,
                )
            document = document_of(row, position, file.name)
            if document["text"].strip():
                yield document
            else:
                blank += 1
        if blank == count:
            raise DataError('every row has an empty "text"', where=file.path, fix="leave the file out")
        if blank:
            say(f'{file.path}: left out {blank:,} of {count:,} rows, their "text" is empty')
