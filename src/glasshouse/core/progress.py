"""Progress of long work: a bar with rate and time left on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_LINE_SECONDS = 10.0
"""Outside a terminal (logs, CI) a line at most this often."""

console = Console(stderr=True, highlight=False, quiet=bool(os.environ.get("GLASSHOUSE_QUIET")))


def say(text: str) -> None:
    """Print one line of news about the work (to stderr: standard output is for results)."""
    console.print(text, markup=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(
            "" if speed is None else f"{_short(speed)} {task.fields['unit']}/s", style="progress.data.speed"
        )


def _short(number: float) -> str:
    """1234567 -> '1.2M': three digits are enough to follow a bar."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{suffix}"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


class Bar:
    """Told how far the work is; shows it."""

    def __init__(self, title: str, total: float, unit: str, progress: Progress | None) -> None:
        self.title, self.total, self.unit = title, total, unit
        self._progress = progress
        self._task = progress.add_task(title, total=total, unit=unit, shown="") if progress else None
        self._start = self._last = time.monotonic()
        self._from: float | None = None

    def update(self, completed: float, **shown: object) -> None:
        """`completed` counts from 0 to the total; `shown` are values to show beside it, like loss="1.93"."""
        details = "  ".join(f"{name} {value}" for name, value in shown.items())
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=completed, shown=details)
            return
        now = time.monotonic()
        if self._from is None:
            self._from = completed  # a resumed run does not start at 0
        if now - self._last < PLAIN_LINE_SECONDS and completed < self.total:
            return
        self._last = now
        rate = (completed - self._from) / max(now - self._start, 1e-9)
        left = (
            f", {(self.total - completed) / rate:.0f} s left" if rate > 0 and completed < self.total else ""
        )
        done = f"{_short(completed)}/{_short(self.total)} {self.unit}, {_short(rate)}/s"
        say(f"{self.title}: {done}{left}  {details}".rstrip())


@contextmanager
def bar(title: str, total: float, unit: str = "tok") -> Iterator[Bar]:
    """Show a progress bar while the block runs.

    >>> with bar("pretrain", total=8, unit="step") as progress:
    ...     progress.update(8, loss="2.31")
    """
    if not console.is_terminal or console.quiet:
        yield Bar(title, total, unit, None)
        return
    columns = [
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f}%"),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    ]
    with Progress(*columns, console=console, refresh_per_second=5) as progress:
        yield Bar(title, total, unit, progress)
