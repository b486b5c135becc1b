"""Where in a file something stands, for error messages and provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Position:
    """A row of a file, counted from 1. In JSONL it is the line, in Parquet and JSON lists the item."""

    path: Path
    row: int

    def __str__(self) -> str:
        return f"{self.path}, row {self.row}"
