"""A table as text: a row per line, cells joined by " | ", a merged cell once."""

from __future__ import annotations

MAX_COLUMNS = 1_000
"""Columns that are kept apart; cells beyond follow each other."""

MAX_WORK = 1_000_000
"""Columns that merged cells of one table may cover or push others over: more are made to take time."""

BETWEEN = " | "


class Grid:
    """Cells come row by row, as in HTML: a cell may span columns and rows."""

    def __init__(self) -> None:
        self._rows: list[dict[int, str]] = []
        self._column = 0  # of the next cell
        self._taken: dict[int, int] = {}  # column -> the first row in which it is free again
        self._work = 0
        self._cells = 0

    @property
    def empty(self) -> bool:
        return self._cells == 0

    def row(self) -> None:
        """The next cells stand in a new row."""
        self._rows.append({})
        self._column = 0

    def cell(self, text: str, columns: int = 1, rows: int = 1) -> None:
        if not self._rows:
            self.row()
        at = len(self._rows) - 1
        while self._taken.get(self._column, 0) > at and self._work < MAX_WORK:
            self._column += 1
            self._work += 1
        columns = min(max(columns, 1), max(MAX_COLUMNS - self._column, 1))
        text = " ".join(text.split())
        if text:
            self._rows[-1][self._column] = text
            self._cells += 1
        if rows > 1 and self._work < MAX_WORK:
            self._work += columns
            for column in range(self._column, self._column + columns):
                self._taken[column] = at + rows
        self._column += columns

    def text(self) -> str:
        """Rows and columns without any text are left out."""
        rows = [row for row in self._rows if row]
        used = sorted({column for row in rows for column in row})
        if len(rows) * len(used) > 20 * self._cells + 1_000:  # hardly any cell is where the others are
            return "\n".join(BETWEEN.join(row.values()) for row in rows)
        lines = []
        for row in rows:
            last = max(row)
            lines.append(BETWEEN.join(row.get(column, "") for column in used if column <= last))
        return "\n".join(lines)
