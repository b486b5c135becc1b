"""Documents between stages: one JSON object a line, compressed (`zstdcat` shows them)."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zstandard

from glasshouse.core.storage import disk_errors


class DocumentWriter:
    """Stream rows into a `.jsonl.zst` file, which appears whole when the block ends, or not at all."""

    def __init__(self, path: Path) -> None:
        self.path, self._temporary = path, path.with_name(f".{path.name}.tmp")

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self._file = open(self._temporary, "wb")
            self._stream = zstandard.ZstdCompressor(level=3).stream_writer(self._file, closefd=False)
        return self

    def write(self, row: dict[str, Any]) -> None:
        with disk_errors(self.path):
            self._stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            return
        with disk_errors(self.path):
            self._stream.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self.path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file)
        for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
            yield json.loads(line)
