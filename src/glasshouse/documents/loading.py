"""A file as a document to analyze: its text, where each part of it stood, and what to beware of."""

from __future__ import annotations

from pathlib import Path

from glasshouse.files.document import Document


def load(path: str | Path) -> Document:
    """Read a file of any known format (files/open_document.py lists them); what it is, its content decides.

    Raises DataError for a file that is missing, broken, encrypted, too large or of no known format.
    """
    from glasshouse.files.open_document import open_document  # its readers are loaded when they are needed

    return open_document(path)
