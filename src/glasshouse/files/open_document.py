"""The one door to every reader of a document: finds what a file is by its content, then by its name."""

from __future__ import annotations

from pathlib import Path

from glasshouse.files.document import Document

SUFFIXES: tuple[str, ...] = (".pdf", ".eml")


def open_document(path: str | Path) -> Document:
    raise NotImplementedError
