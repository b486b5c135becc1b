"""Values under keys in an SQLite file, that keep out of the way of whoever waits for a reply.

A value is read where it is asked for, by its key: some ten microseconds. What is written waits in memory,
where readers find it already, for a thread that writes many at once; so a killed process loses at most the
last fraction of a second, and nothing where a store writes through. Python's own sqlite3: SQLAlchemy's core
took three times as long for such a read, and a third of a second to import. Another database would cost each
hit a thread and a round trip.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from glasshouse.core.progress import say
from glasshouse.core.sqlite import write_ahead

BATCH_SECONDS = 0.05
"""How long the first of a batch waits for others."""

LOCKED_SECONDS = 5.0
"""How long the writing thread waits for another process."""

KEEP = 0.9
"""Share of the largest size to which the longest unused are removed, so that it is not done at each write.
After writing the rest of it all entries are weighed again, since other processes write too."""

_TABLE = """
create table if not exists entries (key blob primary key, value blob, born real, used real);
create index if not exists entries_used on entries (used);
"""


class CacheStore:
    """A file that cannot be used is told once, and from then on every look-up misses: no call fails by it.

    `max_bytes` of keys and values; the file itself is somewhat larger. Several processes may share one.
    `write_through`: `put` returns when the value is in the file, some hundred microseconds later, so that not
    even a killed process loses it.
    """

    def __init__(
        self,
        path: str | Path,
        max_bytes: int = 2**30,
        clock: Callable[[], float] = time.time,
        *,
        write_through: bool = False,
    ) -> None:
        self.path, self.max_bytes, self._clock = Path(path), max_bytes, clock
        self._changed = threading.Condition()  # guards what follows
        self._pending: dict[bytes, tuple[bytes, float]] = {}  # key -> value, born
        self._used: dict[bytes, float] = {}
        self._closing = self._told = False
        self._room = 0  # bytes that may be written before all entries are weighed
        self._thread: threading.Thread | None = None
        self._read: sqlite3.Connection | None = None
        self._through: sqlite3.Connection | None = None
        self._writing = threading.Lock()  # guards _room and the connection that writes through
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # replies may be private
            self._read = self._open()
            self._read.executescript(_TABLE)
            self._read.execute("pragma busy_timeout = 0")  # a reader never waits: it misses
            if write_through:
                self._through = self._open()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def get(self, key: bytes) -> tuple[bytes, float] | None:
        """(value, time of birth). Counts as a use."""
        found = self._pending.get(key)
        if found is None:
            if self._read is None:
                return None
            try:
                found = self._read.execute("select value, born from entries where key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                self._failed(error)
                return None
            if found is None:
                return None
        with self._changed:
            self._used[key] = self._clock()
            self._wake()
        return found

    def put(self, key: bytes, value: bytes) -> None:
        if self._read is None:
            return
        if self._through is not None:
            now = self._clock()
            try:
                with self._writing:
                    self._write(self._through, {key: (value, now)}, {})
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
            return
        with self._changed:
            now = self._clock()
            self._pending[key] = (value, now)
            self._used[key] = now
            self._wake()

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        atexit.unregister(self.close)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        for base in (self._through, self._read):
            if base is not None:
                base.close()
        self._through = self._read = None

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=LOCKED_SECONDS
        )
        write_ahead(base, LOCKED_SECONDS)
        base.execute("pragma synchronous = normal")
        return base

    def _wake(self) -> None:
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._work, name="llm cache", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        elif len(self._used) == 1:  # otherwise it has been told
            self._changed.notify_all()

    def _work(self) -> None:
        base: sqlite3.Connection | None = None
        while True:
            with self._changed:
                while not self._used and not self._closing:
                    self._changed.wait()
                if not self._closing:
                    self._changed.wait_for(lambda: self._closing, BATCH_SECONDS)
                pending, used, last = dict(self._pending), self._used, self._closing
                self._used = {}
            try:
                base = base or self._open()
                with self._writing:
                    self._write(base, pending, used)
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
            with self._changed:
                for key, entry in pending.items():
                    if self._pending.get(key) is entry:
                        del self._pending[key]
            if last:
                break
        if base is not None:
            base.close()

    def _write(
        self, base: sqlite3.Connection, pending: dict[bytes, tuple[bytes, float]], used: dict[bytes, float]
    ) -> None:
        base.execute("begin immediate")
        try:
            base.executemany(
                "insert or replace into entries values (?, ?, ?, ?)",
                [(key, value, born, used.get(key, born)) for key, (value, born) in pending.items()],
            )
            base.executemany(
                "update entries set used = ? where key = ?",
                [(at, key) for key, at in used.items() if key not in pending],
            )
            self._make_room(base, sum(len(key) + len(value) for key, (value, _) in pending.items()))
            base.execute("commit")
        except BaseException:
            if base.in_transaction:
                base.execute("rollback")
            raise

    def _make_room(self, base: sqlite3.Connection, written: int) -> None:
        self._room -= written
        if self._room >= 0:
            return
        size = "length(key) + length(value)"
        (total,) = base.execute(f"select coalesce(sum({size}), 0) from entries").fetchone()
        if total > self.max_bytes:
            gone = []
            for key, weight in base.execute(f"select key, {size} from entries order by used"):
                if total <= self.max_bytes * KEEP:
                    break
                gone.append((key,))
                total -= weight
            base.executemany("delete from entries where key = ?", gone)
        self._room = min(self.max_bytes - total, int(self.max_bytes * (1 - KEEP)))

    def _failed(self, error: Exception) -> None:
        """Locked for too long: what waited is dropped. Anything else ends the use of the file."""
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                self._tell(f"the cache is locked by another process, some replies are not kept: {self.path}")
                return
        self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._read = None
        self._tell(f"the cache cannot be used, calls go on without it: {error} ({self.path})")

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            say(text)
