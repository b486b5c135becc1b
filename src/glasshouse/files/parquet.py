"""Parquet tables, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files.position import Position

SUFFIXES = (".parquet",)

_BATCH = 256
"""Rows decoded at a time: enough for speed, and long documents still fit in memory."""


def read_parquet(path: Path) -> Iterator[tuple[Position, dict[str, Any]]]:
    """Rows of a Parquet file. Raises DataError for a file that is broken, unreadable or without rows."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield Position(path, number), row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        reason = next(iter(str(error).splitlines()), repr(error))
        raise DataError(
            f"not readable as Parquet after row {number}: {reason}",
            where=path,
            fix="write the file again, for instance with pyarrow or pandas",
        ) from None
    if number == 0:
        raise DataError("the table has no rows", where=path, fix="leave the file out")
