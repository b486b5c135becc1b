"""metrics.jsonl: one row a log step, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from glasshouse.core.storage import disk_errors, write_text

TIMING_FIELDS = ("seconds", "tokens_per_second")
"""The fields that differ between two runs of the same numbers."""


class MetricsFile:
    """Append rows to a JSONL file; every row is whole and on disk before the next step begins."""

    def __init__(self, path: Path, done: int) -> None:
        """Keep the rows of the first `done` steps, which the checkpoint knows, and drop later ones."""
        self.path = path
        kept = [line for line, row in _rows(path) if row["step"] <= done]
        write_text(path, "".join(kept))

    def append(self, row: dict[str, Any]) -> None:
        with disk_errors(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Make sure that the rows outlive a power cut: a checkpoint is about to rely on them."""
        with disk_errors(self.path), open(self.path, "rb") as file:
            os.fsync(file.fileno())


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                rows.append((line, json.loads(line)))
            except ValueError:
                break  # the row that was being written when the process was killed
    return rows
