"""Put a SQLite file that several processes share into write-ahead mode."""

import sqlite3
import time

STEP_SECONDS = 0.005


def write_ahead(base: sqlite3.Connection, wait_seconds: float) -> None:
    """Readers no longer wait for writers (WAL, https://sqlite.org/wal.html). The file stays in that mode.

    Raises sqlite3.Error for a file that is no database, or that stays locked for `wait_seconds`.
    """
    # SQLite's own waiting does not cover this: where two processes open a new file at once, both hold the
    # read lock that the change must raise to an exclusive one, and SQLite fails at once rather than deadlock.
    until = time.monotonic() + wait_seconds
    while True:
        try:
            base.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(STEP_SECONDS)
