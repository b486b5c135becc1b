"""Outcomes of experiments in one SQLite file, beside the plan that each was started with."""

from __future__ import annotations

import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from glasshouse.core.config import nearest
from glasshouse.core.errors import ConfigError, DataError, StorageError
from glasshouse.core.sqlite import write_ahead
from glasshouse.llm.experiments.plan import Plan

_TABLES = """
CREATE TABLE IF NOT EXISTS experiments (name TEXT PRIMARY KEY, plan TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (
  id INTEGER PRIMARY KEY,
  experiment TEXT NOT NULL REFERENCES experiments (name),
  key TEXT NOT NULL,
  arm TEXT NOT NULL,
  asked INTEGER NOT NULL,  -- when the arm was drawn, nanoseconds since 1970
  value REAL,              -- of the metric; NULL: not known yet
  seconds REAL, cost REAL, refused INTEGER, invalid INTEGER, failed INTEGER
);
CREATE INDEX IF NOT EXISTS outcomes_of_key ON outcomes (experiment, key);
"""

COLUMNS = ("seconds", "cost", "refused", "invalid", "failed")


@dataclass(frozen=True)
class Outcome:
    """One call, or a judgement that came without one."""

    key: str
    arm: str
    value: float | None = None
    seconds: float | None = None
    cost: float | None = None
    refused: bool | None = None
    invalid: bool | None = None
    failed: bool | None = None


class Outcomes:
    """The file. Several processes may write to it at once."""

    def __init__(self, file: str | Path, *, create: bool = True) -> None:
        """Raises DataError for a file that is missing and not to be made, StorageError for one of no use."""
        if not create and not Path(file).is_file():
            raise DataError("no such file", where=file, fix="name the file that the experiment writes to")
        try:
            self._database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
            if create:
                write_ahead(self._database, 30)
                self._database.execute("PRAGMA synchronous=NORMAL")  # commits need no fsync
                self._database.executescript(_TABLES)
            else:
                self._database.execute("SELECT 1 FROM experiments")
        except sqlite3.Error as error:
            raise StorageError(f"cannot be used for outcomes: {error}", where=file) from None
        self._file, self._lock = file, threading.Lock()

    def start(self, plan: Plan) -> None:
        """Begin an experiment, or go on with it. Raises ConfigError where it was begun with another plan."""
        with self._lock:
            self._database.execute(
                "INSERT OR IGNORE INTO experiments VALUES (?, ?, ?)",
                (plan.name, plan.model_dump_json(), time.time()),
            )
        if self.plan(plan.name) != plan:
            raise ConfigError(
                f"the experiment '{plan.name}' was begun with other arms, shares or aims",
                where=self._file,
                fix="give the changed experiment another name: outcomes of two plans cannot be added up",
            )

    def plan(self, name: str | None = None) -> Plan:
        """The plan of an experiment; without a name, of the only one. Raises DataError."""
        with self._lock:
            plans = dict(self._database.execute("SELECT name, plan FROM experiments ORDER BY created"))
        if name is None and len(plans) == 1:
            (name,) = plans
        if name not in plans:
            close = nearest(name or "", list(plans))
            raise DataError(
                f"there is no experiment '{name}'" if name else "say which experiment",
                where=self._file,
                fix=f"did you mean '{close}'?" if close else f"there is {', '.join(plans) or 'none'}",
            )
        return Plan.model_validate_json(plans[name])

    def add(self, experiment: str, outcome: Outcome, asked: int | None = None) -> None:
        """`asked`: when the arm was drawn, nanoseconds since 1970; by default now."""
        row = (
            experiment,
            outcome.key,
            outcome.arm,
            time.time_ns() if asked is None else asked,
            outcome.value,
            *(getattr(outcome, name) for name in COLUMNS),
        )
        with self._lock:
            self._database.execute(
                f"INSERT INTO outcomes (experiment, key, arm, asked, value, {', '.join(COLUMNS)})"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def judge(self, experiment: str, key: str, arm: str, value: float) -> None:
        """The value of a key's earliest call that has none yet; without one, of a call made elsewhere."""
        with self._lock:
            changed = self._database.execute(
                "UPDATE outcomes SET value = ? WHERE id = (SELECT min(id) FROM outcomes"
                " WHERE experiment = ? AND key = ? AND value IS NULL AND failed IS NOT 1)",
                (value, experiment, key),
            ).rowcount
        if not changed:
            self.add(experiment, Outcome(key, arm, value))

    def firsts(self, experiment: str, column: str) -> list[tuple[str, float]]:
        """(arm, value) of every key's first value in a column, in the order in which their arms were drawn.

        A key's later values say nothing new about the draw: they would count the same person twice.
        """
        assert column in ("value", *COLUMNS)
        with self._lock:
            return self._database.execute(
                f"SELECT arm, {column} FROM outcomes WHERE id IN (SELECT min(id) FROM outcomes"
                f" WHERE experiment = ? AND {column} IS NOT NULL GROUP BY key) ORDER BY asked, id",
                (experiment,),
            ).fetchall()

    def totals(self, experiment: str) -> dict[str, tuple[int, int, float | None, int]]:
        """For each arm: keys, calls, US dollars of all calls whose cost is known, and how many those are."""
        with self._lock:
            rows = self._database.execute(
                "SELECT arm, count(DISTINCT key), count(*), sum(cost), count(cost) FROM outcomes"
                " WHERE experiment = ? GROUP BY arm",
                (experiment,),
            ).fetchall()
        return {arm: tuple(rest) for arm, *rest in rows}

    def close(self) -> None:
        with self._lock:
            self._database.close()
