"""What has been spent of a limit, for any number of calls at once, in one process or in several.

A call first reserves the most that it may cost, and settles what it did cost when it is over. Reserved and
spent together never pass a limit, so neither does what is spent, as long as no call costs more than it
reserved.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.errors import StorageError
from glasshouse.core.sqlite import write_ahead
from glasshouse.llm.errors import BudgetExceededError

NANO = 1_000_000_000
"""Money is counted in whole billionths of a dollar, always rounded up: sums of floats would drift."""

POLL_SECONDS = 0.005
"""How often a call that waits for others to settle looks again."""

LEASE_SECONDS = 600.0
"""A reservation that was not settled for so long counts as spent: its process may be gone. When it does
settle, the true amount takes its place."""

DAY = 86_400.0


class Limits(Config):
    """None: no limit. A window begins at multiples of its length since 1970: a day is one of UTC."""

    dollars: float | None = Field(None, ge=0, allow_inf_nan=False)  # altogether
    tokens: int | None = Field(None, ge=0)  # prompt and reply, altogether
    window_dollars: float | None = Field(None, ge=0, allow_inf_nan=False)
    window_tokens: int | None = Field(None, ge=0)
    window_seconds: float = Field(DAY, gt=0, allow_inf_nan=False)

    @property
    def money(self) -> bool:
        """Whether any of them is about money."""
        return self.dollars is not None or self.window_dollars is not None


@dataclass(frozen=True)
class Amount:
    nano: int = 0  # billionths of a US dollar
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.nano + other.nano, self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.nano - other.nano, self.tokens - other.tokens)


def amount(dollars: float | None, tokens: int) -> Amount:
    """Money rounded up to the next billionth; an unknown price counts tokens alone.

    Nothing is below zero, whatever a server tells of its tokens: a call cannot give money back.
    """
    return Amount(0 if dollars is None else max(math.ceil(dollars * NANO - 1e-6), 0), max(tokens, 0))


@dataclass(frozen=True)
class Held:
    """A reservation. A call is booked in the window in which it was made."""

    asked: Amount
    window: int
    row: int = 0  # in the file


@dataclass(frozen=True)
class Spent:
    """`settled` for good, and `open`: reserved by calls that are under way."""

    settled: Amount
    open: Amount
    window_settled: Amount
    window_open: Amount


class Spending:
    """Shared by every Budget that draws on the same limits. Safe between threads and event loops.

    `file`: an SQLite file that keeps what was spent under `name`, for later processes and for others at the
    same time; they should name the same limits. Raises StorageError when it cannot be used: a limit that
    cannot be kept is not a limit. `wait`: seconds that a call waits for others' reservations.
    """

    def __init__(
        self,
        limits: Limits,
        file: str | Path | None = None,
        name: str = "default",
        wait: float = 120.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.limits, self.wait, self._clock, self._sleep = limits, wait, clock, sleep
        self._book = _Memory() if file is None else _File(Path(file), name)
        self._waiting = 0
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def dollars(self) -> float:
        """Spent for good."""
        return self._spent().settled.nano / NANO

    @property
    def tokens(self) -> int:
        return self._spent().settled.tokens

    @property
    def open_dollars(self) -> float:
        """Reserved by calls that are under way."""
        return self._spent().open.nano / NANO

    def settle_abandoned(self) -> None:
        """Count at once as spent what calls reserved that never settled, not only when their lease is over:
        for who knows that no other process draws on the file and none of its own calls is under way."""
        while not self._book.settle_all():
            time.sleep(POLL_SECONDS / 5)

    def close(self) -> None:
        self._book.close()

    def try_reserve(self, asked: Amount) -> Held | None:
        """At once or not at all, and never before somebody who waits."""
        return None if self._waiting else self._take(asked)

    async def reserve(self, asked: Amount) -> Held:
        """Waits, in order, for calls that are under way where only their reservations are in the way.

        Raises BudgetExceededError where what is spent leaves too little, or where they do not end in time:
        who asks in the middle of a stream waits for a reservation that is its own.
        """
        held = self.try_reserve(asked)
        if held is not None:
            return held
        loop = asyncio.get_running_loop()
        turn = self._turns.setdefault(loop, asyncio.Lock())
        until = self._clock() + self.wait
        self._waiting += 1
        try:
            async with turn:
                while (held := self._take(asked)) is None:
                    self._refuse(asked, self._clock() >= until)
                    await self._sleep(POLL_SECONDS)
                return held
        finally:
            self._waiting -= 1

    def settle(self, held: Held, used: Amount) -> None:
        """What a reserved call did cost, once."""
        while not self._book.settle(held, used):
            time.sleep(POLL_SECONDS / 5)  # another process is just writing; what was spent must not be lost

    def _window(self) -> int:
        return int(self._clock() // self.limits.window_seconds)

    def _spent(self) -> Spent:
        return self._book.spent(self._window(), self._clock() - LEASE_SECONDS)

    def _take(self, asked: Amount) -> Held | None:
        now = self._clock()
        window = self._window()
        return self._book.take(
            asked, window, now, now - LEASE_SECONDS, lambda spent: self._short(asked, spent, True) is None
        )

    def _refuse(self, asked: Amount, late: bool) -> None:
        short = self._short(asked, self._spent(), late)
        if short is not None:
            short += f" or reserved by calls that did not end within {self.wait:g} s" if late else ""
            raise BudgetExceededError(short, fix="raise the limit, or ask for fewer tokens")

    def _short(self, asked: Amount, spent: Spent, with_open: bool) -> str | None:
        """What stands against a call, in one sentence; None: nothing."""
        limits, nothing = self.limits, Amount()
        total = spent.settled + (spent.open if with_open else nothing)
        window = spent.window_settled + (spent.window_open if with_open else nothing)
        of = "a day" if limits.window_seconds == DAY else f"{limits.window_seconds:g} seconds"
        for limit, used, period in (
            (limits.dollars, total.nano, ""),
            (limits.window_dollars, window.nano, f" for {of}"),
        ):
            if limit is not None and used + asked.nano > math.floor(limit * NANO + 1e-6):
                asks, gone = asked.nano / NANO, used / NANO
                return f"the call may cost up to ${asks:.6f}, ${gone:.6f} of ${limit:.6f}{period} are spent"
        for limit, used, period in (
            (limits.tokens, total.tokens, ""),
            (limits.window_tokens, window.tokens, f" for {of}"),
        ):
            if limit is not None and used + asked.tokens > limit:
                return f"the call may take up to {asked.tokens} tokens, {used} of {limit}{period} are spent"
        return None


class _Memory:
    """What one process spends. One window is kept: the newest that was seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled, self._open = Amount(), Amount()
        self._window, self._window_settled, self._window_open = 0, Amount(), Amount()

    def spent(self, window: int, lapsed: float) -> Spent:
        with self._lock:
            return self._now(window)

    def take(
        self, asked: Amount, window: int, now: float, lapsed: float, fits: Callable[[Spent], bool]
    ) -> Held | None:
        with self._lock:
            if not fits(self._now(window)):
                return None
            self._open += asked
            self._window_open += asked
            return Held(asked, self._window)

    def settle(self, held: Held, used: Amount) -> bool:
        with self._lock:
            self._open -= held.asked
            self._settled += used
            if held.window == self._window:
                self._window_open -= held.asked
                self._window_settled += used
            return True

    def settle_all(self) -> bool:
        with self._lock:
            self._settled += self._open
            self._window_settled += self._window_open
            self._open, self._window_open = Amount(), Amount()
        return True

    def close(self) -> None:
        pass

    def _now(self, window: int) -> Spent:
        if window > self._window:
            self._window, self._window_settled, self._window_open = window, Amount(), Amount()
        return Spent(self._settled, self._open, self._window_settled, self._window_open)


_TABLES = """
create table if not exists settled (name text, window integer, nano integer, tokens integer,
    primary key (name, window)) without rowid;
create table if not exists reserved (id integer primary key, name text, window integer, nano integer,
    tokens integer, at real);
"""


class _File:
    """The same in SQLite: a transaction that writes locks out other processes while it looks and books.

    It does not wait for the disk at each commit (synchronous = NORMAL): after a power cut the last calls may
    be missing, after a killed process nothing is. A transaction takes some tens of microseconds.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name, self._lock = path, name, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            write_ahead(self._base, 5)
            self._base.execute("pragma synchronous = normal")
            self._base.executescript(_TABLES)
            self._base.execute("pragma busy_timeout = 0")  # from here on whoever asks waits without blocking
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"what was spent cannot be read: {error}",
                where=path,
                fix="name another file, or move it away",
            ) from error

    def spent(self, window: int, lapsed: float) -> Spent:
        with self._lock, self._told():
            return self._now(window, lapsed)

    def take(
        self, asked: Amount, window: int, now: float, lapsed: float, fits: Callable[[Spent], bool]
    ) -> Held | None:
        with self._lock, self._told():
            if not self._begin():
                return None
            try:
                row = None
                if fits(self._now(window, lapsed)):
                    values = (self._name, window, asked.nano, asked.tokens, now)
                    row = self._base.execute(
                        "insert into reserved (name, window, nano, tokens, at) values (?, ?, ?, ?, ?)", values
                    ).lastrowid
                self._base.execute("commit")
            except BaseException:
                self._back()
                raise
            return None if row is None else Held(asked, window, row)

    def settle(self, held: Held, used: Amount) -> bool:
        with self._lock, self._told():
            if not self._begin():
                return False
            try:
                self._base.execute("delete from reserved where id = ?", (held.row,))
                self._base.execute(
                    "insert into settled values (?, ?, ?, ?) on conflict do update "
                    "set nano = nano + excluded.nano, tokens = tokens + excluded.tokens",
                    (self._name, held.window, used.nano, used.tokens),
                )
                self._base.execute("commit")
            except BaseException:
                self._back()
                raise
            return True

    def settle_all(self) -> bool:
        with self._lock, self._told():
            if not self._begin():
                return False
            try:
                self._base.execute(
                    "insert into settled select name, window, sum(nano), sum(tokens) from reserved "
                    "where name = ? group by name, window on conflict do update "
                    "set nano = nano + excluded.nano, tokens = tokens + excluded.tokens",
                    (self._name,),
                )
                self._base.execute("delete from reserved where name = ?", (self._name,))
                self._base.execute("commit")
            except BaseException:
                self._back()
                raise
            return True

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def _begin(self) -> bool:
        try:
            self._base.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise
        return True

    def _back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._base.execute("rollback")

    def _now(self, window: int, lapsed: float) -> Spent:
        sums = (
            "coalesce(sum(nano), 0), coalesce(sum(tokens), 0), "
            "coalesce(sum(nano * (window = ?)), 0), coalesce(sum(tokens * (window = ?)), 0)"
        )
        mine = (window, window, self._name)
        done = self._base.execute(f"select {sums} from settled where name = ?", mine).fetchone()
        gone = self._base.execute(
            f"select {sums} from reserved where name = ? and at <= ?", (*mine, lapsed)
        ).fetchone()
        live = self._base.execute(
            f"select {sums} from reserved where name = ? and at > ?", (*mine, lapsed)
        ).fetchone()
        return Spent(
            Amount(done[0] + gone[0], done[1] + gone[1]),
            Amount(live[0], live[1]),
            Amount(done[2] + gone[2], done[3] + gone[3]),
            Amount(live[2], live[3]),
        )

    @contextlib.contextmanager
    def _told(self):
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"what was spent cannot be written: {error}",
                where=self._path,
                fix="free space, or name another file",
            ) from error
