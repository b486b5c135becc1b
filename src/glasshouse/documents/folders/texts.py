"""The texts of the documents of a run, so that quotes can be shown in their context later."""

from __future__ import annotations

import os
import sqlite3
import zlib
from pathlib import Path

from glasshouse.core.errors import StorageError
from glasshouse.core.sqlite import write_ahead

TEXTS = "texts.sqlite"
"""The file's name in the folder beside the results."""

WAIT_SECONDS = 5.0


class Texts:
    """By SHA-256 of the text, compressed. Raises StorageError where the file cannot be used."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # they may be private
            self._base = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=WAIT_SECONDS
            )
            write_ahead(self._base, WAIT_SECONDS)
            self._base.execute("pragma synchronous = normal")
            self._base.execute(
                "create table if not exists texts (sha256 text primary key, text blob) without rowid"
            )
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from error

    def put(self, sha256: str, text: str) -> None:
        try:
            self._base.execute(
                "insert or ignore into texts values (?, ?)",
                (sha256, zlib.compress(text.encode("utf-8", "surrogatepass"))),
            )
        except sqlite3.Error as error:
            raise self._error(error) from error

    def get(self, sha256: str) -> str | None:
        try:
            found = self._base.execute("select text from texts where sha256 = ?", (sha256,)).fetchone()
            return None if found is None else zlib.decompress(found[0]).decode("utf-8", "surrogatepass")
        except (sqlite3.Error, zlib.error, UnicodeDecodeError) as error:
            raise self._error(error) from error

    def close(self) -> None:
        self._base.close()

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"the texts of the documents cannot be kept or read: {error}",
            where=self.path,
            fix="free some space, or move the file away",
        )
