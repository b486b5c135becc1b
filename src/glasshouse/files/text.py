"""Plain text and Markdown: one file is one text."""

from __future__ import annotations

import codecs
from pathlib import Path

from glasshouse.core.errors import DataError
from glasshouse.files.compression import open_bytes
from glasshouse.files.position import Position

SUFFIXES = (".txt", ".md")


def read_text(path: Path) -> str:
    """The whole text of a UTF-8 file, compressed or not, unchanged but for a byte-order mark.

    Raises DataError for an empty file and for bytes that are not UTF-8, naming the line.
    """
    with open_bytes(path) as file:
        data = file.read().removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"line {line} is not UTF-8 (byte {data[error.start]:#04x})",
            where=path,
            fix="save the file as UTF-8",
        ) from None
    if not text.strip():
        raise DataError("the file is empty", where=path, fix="put text into it or leave it out")
    return text


def check_text(words: str, position: Position) -> None:
    """Raise DataError for half a character: JSON can write one as an escape, but it is not Unicode text."""
    try:
        words.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a surrogate pair ({words[error.start]!a} at character {error.start}) is not text",
            where=position,
            fix="write the whole character or remove it",
        ) from None
