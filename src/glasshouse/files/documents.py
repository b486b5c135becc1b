"""Documents to train on: `{"id", "text", "source", "lang"?, "metadata"?}`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.core.progress import say
from glasshouse.files import rows, text
from glasshouse.files.conversations import is_conversation
from glasshouse.files.paths import Found, find_files, format_suffix
from glasshouse.files.position import Position
from glasshouse.files.text import check_text

SUFFIXES = (*text.SUFFIXES, *rows.SUFFIXES)


def read_documents(paths: str | Path | Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Documents of files and folders, one at a time.

    A .txt or .md file is one document; a row of a .jsonl, .json or .parquet file is one and needs "text".
    "id" defaults to the file's name and the row, "source" to the file's name (for text files in a folder, the
    folder's); other columns go into "metadata". Paths are checked at once. Raises DataError naming the file,
    the row and the fix.
    """
    files = find_files(paths, SUFFIXES)
    return _documents(files)


def _documents(files: list[Found]) -> Iterator[dict[str, Any]]:
    for file in files:
        path = file.path
        if format_suffix(path) in text.SUFFIXES:
            yield {"id": file.name, "text": text.read_text(path), "source": file.source}
            continue
        found = ([document_of(row, position, file.name)] for position, row in rows.read_rows(path))
        yield from without_blank(found, path)


def without_blank(found: Iterable[Iterable[dict[str, Any]]], path: Path) -> Iterator[dict[str, Any]]:
    """What each row of the file at `path` gave, less documents without a word, which are counted aloud.

    Raises DataError where every row is such a document.
    """
    blank = count = 0
    for items in found:
        count += 1
        for item in items:
            if "text" in item and not item["text"].strip():
                blank += 1
            else:
                yield item
    if blank == count:
        raise DataError('every row has an empty "text"', where=path, fix="leave the file out")
    if blank:
        say(f'{path}: left out {blank:,} of {count:,} rows, their "text" is empty')


def document_of(row: Mapping[str, Any], position: Position, file: str) -> dict[str, Any]:
    """One row of the file called `file` as a document, its text perhaps blank; raises DataError."""
    words = row.get("text")
    if not isinstance(words, str):
        raise DataError(_what_instead(row), where=position, fix=_fix(row))
    check_text(words, position)
    document: dict[str, Any] = {
        "id": str(row["id"]) if row.get("id") is not None else f"{file}:{position.row}",
        "text": words,
        "source": str(row["source"]) if row.get("source") is not None else file,
    }
    if row.get("lang") is not None:
        document["lang"] = row["lang"]
    given = row.get("metadata")
    metadata = dict(given) if isinstance(given, Mapping) else {} if given is None else {"metadata": given}
    metadata |= {
        key: value for key, value in row.items() if key not in ("id", "text", "source", "lang", "metadata")
    }
    if metadata:
        document["metadata"] = metadata
    return document


def _what_instead(row: Mapping[str, Any]) -> str:
    if "text" in row:
        return f'"text" is {type(row["text"]).__name__}, not a string'
    return f'no "text" in this row; it has {", ".join(map(repr, row)) or "nothing"}'[:300]


def _fix(row: Mapping[str, Any]) -> str:
    if is_conversation(row):
        return "these rows are conversations: give them to fine-tuning (glasshouse train sft --data)"
    return 'rename the column that holds the text to "text"'
