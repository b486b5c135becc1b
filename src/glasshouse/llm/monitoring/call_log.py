"""Every call in a SQLite file, which others may read meanwhile.

A call is put on a queue and nothing more; one background thread writes what has gathered, four times a
second, in one transaction. A crash of the process therefore loses at most the last moments; so does one of
the machine, since each transaction is flushed to the disk.
"""

from __future__ import annotations

import atexit
import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from glasshouse.core.errors import DataError, StorageError
from glasshouse.core.sqlite import write_ahead
from glasshouse.llm.interface import Request
from glasshouse.llm.monitoring.call import Call
from glasshouse.llm.monitoring.judge import Verdict

FILE = "calls.sqlite"
"""Where the log lies unless somebody says otherwise, and where `glasshouse monitor` looks for it."""

EVERY = 0.25
"""Seconds between two transactions."""

MOST_WAITING = 200_000
"""Calls that may wait for a disk that is slow or full; more are counted, not kept."""

APPLICATION = 0x47686C6C  # "Ghll": tells the file from other SQLite files
VERSION = 1

_SCHEMA = """
CREATE TABLE calls (
    number INTEGER PRIMARY KEY,           -- in the order of writing
    id INTEGER NOT NULL UNIQUE,
    began REAL NOT NULL,                  -- seconds since 1970
    asked TEXT NOT NULL,                  -- the LLM that was asked
    model TEXT NOT NULL,                  -- that answered
    operation TEXT NOT NULL,              -- chat, embeddings
    prompt TEXT NOT NULL,                 -- labels of the request, '' without
    version TEXT NOT NULL,
    experiment TEXT NOT NULL,
    arm TEXT NOT NULL,
    streamed INTEGER NOT NULL,
    seconds REAL NOT NULL,
    first_token_seconds REAL,
    prompt_tokens INTEGER,                -- NULL: nobody told
    new_tokens INTEGER,
    cached_tokens INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    cost REAL,                            -- US dollars, all tries; NULL: not known
    finish TEXT,                          -- stop, length, tool_calls, refusal; NULL: there was no reply
    refused INTEGER NOT NULL,
    error TEXT,                           -- its kind; 'Cancelled': who asked went away
    status INTEGER,
    tries INTEGER NOT NULL,
    validation_failures INTEGER NOT NULL,
    cache_hit INTEGER NOT NULL,
    ignored TEXT NOT NULL,                -- settings that the backend could not follow, with commas
    quality REAL,                         -- a judge's score, 0 to 1; quality only if `judges` vouches for it
    judge TEXT,
    judged REAL,                          -- when, seconds since 1970
    request TEXT,                         -- JSON; only where content is recorded
    reply TEXT
);
CREATE INDEX calls_began ON calls (began);
CREATE INDEX calls_judged ON calls (judged) WHERE judged IS NOT NULL;
CREATE TABLE judges (                     -- measured agreement with people
    name TEXT PRIMARY KEY, kappa REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL, n INTEGER NOT NULL,
    share REAL NOT NULL, measured REAL NOT NULL
);
CREATE TABLE lost (at REAL NOT NULL, calls INTEGER NOT NULL);  -- not kept, because the disk did not take them
"""

_COLUMNS = (
    *("id", "began", "asked", "model", "operation", "prompt", "version", "experiment", "arm", "streamed"),
    *("seconds", "first_token_seconds"),
    *("prompt_tokens", "new_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost"),
    *("finish", "refused", "error", "status", "tries", "validation_failures", "cache_hit", "ignored"),
    *("request", "reply"),
)
_INSERT = f"INSERT INTO calls ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_JUDGED = "UPDATE calls SET quality = ?, judge = ?, judged = ? WHERE id = ?"
_VOUCHED = "INSERT OR REPLACE INTO judges VALUES (?, ?, ?, ?, ?, ?, ?)"

log = logging.getLogger("glasshouse.llm")


_ANOTHER = "choose a file that you may write"

Judged = tuple[Call, Verdict]


class CallLog:
    """A watcher. Close it, or use it in a `with` block; it is closed at the latest when Python ends.

    Raises StorageError where the file cannot be written, DataError where it is something else.
    """

    def __init__(self, path: str | Path = FILE, most_waiting: int = MOST_WAITING) -> None:
        self.path = Path(path)
        self._waiting: deque[Call | Judged] = deque()
        self._most, self._lost = most_waiting, 0
        self._batch: list[Call | Judged] = []  # taken from the queue, not yet written
        self._problem: str | None = None
        self._writing, self._counting, self._closed = threading.Lock(), threading.Lock(), threading.Event()
        self._file = _open(self.path)
        self._thread = threading.Thread(target=self._write_on, name="call log", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def record(self, call: Call) -> None:
        self._put(call)

    def judged(self, call: Call, verdict: Verdict) -> None:
        self._put((call, verdict))

    def _put(self, what: Call | Judged) -> None:
        if self._closed.is_set():
            raise StorageError("this log is closed", where=self.path, fix="close it after the last call")
        if len(self._waiting) < self._most:
            self._waiting.append(what)
        else:
            with self._counting:
                self._lost += 1

    def flush(self) -> None:
        """Write all that was recorded. Raises StorageError where the disk does not take it; it is kept."""
        self._write()
        if self._problem is not None:
            raise StorageError(
                f"{len(self._batch) + len(self._waiting)} calls are not written yet: {self._problem}",
                where=self.path,
                fix="make room for it, or choose another file",
            )

    def close(self) -> None:
        """Write the rest and let go of the file."""
        if self._closed.is_set():
            return
        self._closed.set()
        atexit.unregister(self._at_exit)
        self._thread.join()
        try:
            self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_exit(self) -> None:
        try:
            self.close()
        except StorageError as error:
            log.warning("%s", error)

    def _write_on(self) -> None:
        while not self._closed.wait(EVERY):
            if self._waiting or self._batch or self._lost:
                self._write()

    def _write(self) -> None:
        """What waits, in one transaction; what the disk does not take stays for the next one."""
        with self._writing:
            batch, waiting = self._batch, self._waiting
            while waiting and len(batch) < self._most:
                batch.append(waiting.popleft())
            lost = self._lost
            if not batch and not lost:
                return
            try:
                try:
                    self._transact(batch, lost)
                    with self._counting:
                        self._lost -= lost
                except sqlite3.OperationalError:
                    raise
                except Exception:
                    self._transact_each(batch)
            except sqlite3.OperationalError as error:  # full, locked, gone: it may pass
                if self._problem is None:
                    log.warning("%s cannot be written: %s; calls wait in memory", self.path, error)
                self._problem = str(error)
                return
            self._problem = None
            batch.clear()

    def _transact(self, batch: Sequence[Call | Judged], lost: int) -> None:
        with self._file:  # commits, or rolls back
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany(_INSERT, [_row(one) for one in batch if isinstance(one, Call)])
            for call, verdict in (one for one in batch if isinstance(one, tuple)):
                self._judge(call, verdict)
            if lost:
                self._file.execute("INSERT INTO lost VALUES (?, ?)", (time.time(), lost))

    def _transact_each(self, batch: list[Call | Judged]) -> None:
        """Something in it fits in no file (a count that is no number, say): it must not stop the rest."""
        while batch:
            try:
                self._transact(batch[:1], 0)
            except sqlite3.OperationalError:
                raise
            except Exception as error:
                log.warning("%s: a call cannot be written: %s", self.path, type(error).__name__)
                self._transact((), 1)
            batch.pop(0)

    def _judge(self, call: Call, verdict: Verdict) -> None:
        self._file.execute(_JUDGED, (verdict.score, verdict.judge, time.time(), call.id))
        agreement = verdict.agreement
        if agreement is not None:
            kappa = agreement.kappa
            figures = (kappa.value, kappa.low, kappa.high, kappa.n, agreement.share, agreement.measured)
            self._file.execute(_VOUCHED, (agreement.judge, *figures))


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    except (OSError, sqlite3.OperationalError) as error:
        raise StorageError(
            f"cannot be opened: {error}", where=path, fix="choose a file that you may write"
        ) from None
    try:
        check_schema(file, path, new=True)
        write_ahead(file, 10)
        file.execute("PRAGMA synchronous = FULL")
        with file:
            file.execute("BEGIN IMMEDIATE")
            if not file.execute("PRAGMA user_version").fetchone()[0]:
                for statement in _SCHEMA.split(";\n"):
                    file.execute(statement)
                file.execute(f"PRAGMA application_id = {APPLICATION}")
                file.execute(f"PRAGMA user_version = {VERSION}")
    except sqlite3.OperationalError as error:
        file.close()
        raise StorageError(
            f"cannot be written: {error}", where=path, fix="choose a file that you may write"
        ) from None
    except BaseException:
        file.close()
        raise
    return file


def check_schema(file: sqlite3.Connection, path: Path, *, new: bool = False) -> None:
    """Raises DataError unless this version can read the file as a log of calls; `new`: it may be empty."""
    try:
        application = file.execute("PRAGMA application_id").fetchone()[0]
        version = file.execute("PRAGMA user_version").fetchone()[0]
        empty = not file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise DataError("not a SQLite file", where=path, fix="name the file that a CallLog wrote") from None
    if empty and new:
        return
    if application != APPLICATION:
        raise DataError("not a log of calls", where=path, fix="name the file that a CallLog wrote")
    if version != VERSION:
        raise DataError(
            f"a log of schema {version}; this glasshouse knows {VERSION}",
            where=path,
            fix="use the glasshouse that wrote it, or begin a new file",
        )


def _row(call: Call) -> tuple[Any, ...]:
    usage = call.usage
    return (
        call.id,
        call.began,
        call.asked,
        call.model,
        call.operation,
        call.prompt,
        call.version,
        call.experiment,
        call.arm,
        call.streamed,
        call.seconds,
        call.first_token_seconds,
        *(
            (None,) * 5
            if usage is None
            else (
                usage.prompt_tokens,
                usage.new_tokens,
                usage.cached_tokens,
                usage.cache_write_tokens,
                usage.reasoning_tokens,
            )
        ),
        call.cost,
        call.finish,
        call.refused,
        call.error,
        call.status,
        call.tries,
        call.validation_failures,
        call.cache_hit,
        ",".join(call.ignored),
        None if call.request is None else _request(call.request),
        None if call.reply is None else call.reply.encode("utf-8", "replace").decode(),  # lone surrogates
    )


def _request(request: Request) -> str:
    return json.dumps(request.model_dump(exclude_defaults=True), default=str)
