"""The one door to every reader of a document: finds what a file is by its content, then by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath

from glasshouse.core.errors import DataError
from glasshouse.files.document import Document, Flag
from glasshouse.files.formats import SUFFIXES, format_of, has_wrong_extension

__all__ = ["MAX_BYTES", "SUFFIXES", "open_document", "read_document"]

MAX_BYTES = 256 << 20
"""Of one file."""


def open_document(path: str | Path) -> Document:
    """The text of any file that can be read, with the place of each part; its name is the file's name.

    A file whose extension is wrong is read as what it is, with a flag. Raises DataError for a file that is
    missing, empty, larger than 256 MiB, broken, encrypted, or of a format without a reader.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "this is a folder, not a file" if path.is_dir() else "no such file"
            raise DataError(what, where=path, fix="name a file" if path.is_dir() else "check the path")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="check its permissions"
        ) from None
    return read_document(data, path.name)


def read_document(data: bytes, name: str) -> Document:
    """The same of bytes; the name's suffix counts where the content does not tell the format."""
    if len(data) > MAX_BYTES:
        raise DataError(
            f"the file has more than {MAX_BYTES >> 20} MiB, the most that is read",
            where=name,
            fix="split the file",
        )
    format = format_of(data, name)
    document = format.reader()(data, name)
    if has_wrong_extension(format, name):
        suffix = PurePath(name).suffix
        what = f'the name ends in "{suffix}", but the content is {format.name}; it was read as that'
        document = replace(document, flags=(Flag("wrong_extension", what), *document.flags))
    return document
