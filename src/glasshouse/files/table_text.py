"""Tables as text: CSV and its kin with semicolons, tabs or bars."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document, Flag
from glasshouse.files.grid import BETWEEN
from glasshouse.files.plain import plain_text

MAX_ROWS = 1_000_000
SAMPLE = 65_536
"""Characters from which the delimiter is told."""

_DELIMITERS = ",;\t|"  # the earlier wins where two fit equally well
_NUMBER = re.compile(r"[-+]?[\d.,' ]*\d[\d.,' ]*%?\Z")


def read_csv(data: bytes, name: str) -> Document:
    """A table file as one block: a row per line, cells joined by " | ", the header row first as in the file.

    The delimiter is the one that splits most rows into the same number of cells (at least two). `metadata`
    has the delimiter, the number of rows and, where the first row looks like one, the header. Rows after the
    millionth are left out and flagged. Raises DataError for an empty file, bytes that are not a text, and a
    quotation mark that is never closed.
    """
    text, flags = plain_text(data, name)
    text = text.replace("\f", " ")
    said = re.match(r"sep=(.)\n", text)  # a line that spreadsheet programs write for each other
    if said:
        text = text[said.end() :]
    delimiter = said[1] if said else _delimiter(text[:SAMPLE])
    lines: list[str] = []
    header: list[str] = []
    more = False
    try:
        for row in _rows(text, delimiter):
            if len(lines) == MAX_ROWS:
                more = True
                break
            if not lines:
                header = row
            lines.append(BETWEEN.join(row))
    except csv.Error as error:
        raise DataError(
            f"row {len(lines) + 1:,} cannot be read: {error}", where=name, fix="check its quotation marks"
        ) from None
    if more:
        flags = (*flags, Flag("cut", f"Only the first {MAX_ROWS:,} rows were read."))
    metadata = {"delimiter": delimiter, "rows": str(len(lines))}
    if len(lines) > 1 and _is_header(header):
        metadata["header"] = BETWEEN.join(header)
    builder = Builder()
    builder.add("\n".join(lines), "table")
    return builder.document(name, "csv", metadata=metadata, flags=flags)


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """Rows with any text in them, each cell on one line."""
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True):
        cells = [" ".join(cell.split()) for cell in row]
        if any(cells):
            yield cells


def _delimiter(sample: str) -> str:
    best, most = ",", 0.0
    for delimiter in _DELIMITERS:
        if delimiter not in sample:
            continue
        try:
            widths = Counter(len(row) for row in itertools.islice(_rows(sample, delimiter), 200))
        except csv.Error:
            continue
        width, rows = max(
            widths.items(), key=lambda item: (item[1] if item[0] > 1 else 0, item[0]), default=(0, 0)
        )
        # More columns break a tie: a text of "a;b,c" lines has commas in its cells, or semicolons.
        score = rows / widths.total() + min(width, 50) / 1000 if width > 1 else 0.0
        if score > most:
            best, most = delimiter, score
    return best


def _is_header(row: list[str]) -> bool:
    """Names, each once, none of them a number."""
    return len(set(row)) == len(row) and all(cell and not _NUMBER.match(cell) for cell in row)
