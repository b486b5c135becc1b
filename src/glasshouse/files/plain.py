"""Plain text: paragraphs stand between empty lines, pages between form feeds."""

from __future__ import annotations

import re

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.charset import decode
from glasshouse.files.document import Document, Flag
from glasshouse.files.invisible import smuggled_flags, visible

MAX_BYTES = 200_000_000

_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # not tabs, line ends, form feeds, escapes
_EMPTY_LINES = re.compile(r"\n(?:[ \t\x0b]*+\n)+")


def read_plain(data: bytes, name: str) -> Document:
    """A text file. Lines stay as they are; pages are counted where the text has form feeds.

    Raises DataError for an empty file, for one beyond 200 MB, and for bytes that are not a text.
    """
    text, flags = plain_text(data, name)
    builder = Builder()
    pages = text.strip("\f \n").split("\f")
    for number, page in enumerate(pages, start=1):
        for paragraph in _EMPTY_LINES.split(page):
            builder.add(paragraph, page=number if len(pages) > 1 else None)
    return builder.document(name, "text", pages=len(pages) if len(pages) > 1 else None, flags=flags)


def plain_text(data: bytes, name: str) -> tuple[str, tuple[Flag, ...]]:
    """The characters of a text file, its lines ending in "\\n", and what to know about them.

    Raises DataError as `read_plain` does.
    """
    if len(data) > MAX_BYTES:
        raise DataError(
            f"the file has {len(data):,} bytes, at most {MAX_BYTES:,} are read",
            where=name,
            fix="split the file",
        )
    text = decode(data)
    head = text[:100_000]
    if len(_CONTROLS.findall(head)) > 0.02 * len(head):
        raise DataError("this is not a text", where=name, fix="name the file by its true format")
    text, smuggled = visible(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        raise DataError("the file is empty", where=name, fix="leave it out")
    flags: list[Flag] = []
    if broken := text.count("\ufffd") - data.count("\ufffd".encode()):
        flags.append(Flag("broken", f"{broken:,} characters are not in the encoding of the others."))
    return text, (*flags, *smuggled_flags([(smuggled, None)]))
