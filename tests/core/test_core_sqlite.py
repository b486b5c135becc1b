"""A SQLite file that several processes share."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from glasshouse.core.sqlite import write_ahead


def connect(path, timeout):
    return sqlite3.connect(path, isolation_level=None, timeout=timeout)


def test_a_new_file_can_be_opened_by_many_at_once(tmp_path):
    """SQLite alone answers 'database is locked' here, without waiting."""
    workers, rounds = 6, 60
    barrier = threading.Barrier(workers, timeout=10)  # one that fails must not hold up the rest

    def open_each(_):
        for number in range(rounds):
            barrier.wait()
            base = connect(tmp_path / f"{number}.db", timeout=30)
            write_ahead(base, 30)
            base.execute("create table if not exists rows (value integer)")
            base.execute("insert into rows values (1)")
            base.close()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(open_each, range(workers)))
    for number in range(rounds):
        base = connect(tmp_path / f"{number}.db", timeout=0)
        assert base.execute("select count(*) from rows").fetchone() == (workers,)
        assert base.execute("pragma journal_mode").fetchone() == ("wal",)
        base.close()


def test_a_file_that_stays_locked_is_told(tmp_path):
    holder, other = (connect(tmp_path / "held.db", timeout=0) for _ in range(2))
    holder.execute("create table rows (value integer)")
    holder.execute("begin exclusive")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(other, 0.05)
    holder.execute("rollback")
    write_ahead(other, 0.05)
    holder.close()
    other.close()


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to have a header " * 10)
    base = connect(tmp_path / "notes.txt", timeout=0)
    with pytest.raises(sqlite3.DatabaseError):
        write_ahead(base, 0.05)
    base.close()
