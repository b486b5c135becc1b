"""What a log of calls says about the last minutes: of all calls, by model and prompt, and over time."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from glasshouse.core.errors import DataError
from glasshouse.llm import genai
from glasshouse.llm.interface import Usage
from glasshouse.llm.monitoring.call import CANCELLED, Call
from glasshouse.llm.monitoring.call_log import check_schema
from glasshouse.llm.monitoring.drift import Alert, DriftAlerts, group_of
from glasshouse.llm.monitoring.judge import Agreement, standing
from glasshouse.llm.monitoring.kappa import Kappa

BUCKETS = 60
"""Points of a curve over time."""

DRIFT_CALLS = 100_000
"""Newest calls that are searched for drift; the first of them are the reference."""


@dataclass(frozen=True)
class Figures:
    """Of a set of calls. None: nobody told, or there is nothing to take it of."""

    calls: int
    calls_per_minute: float
    seconds_p50: float | None  # of calls that brought a reply
    seconds_p95: float | None
    first_token_p50: float | None
    first_token_p95: float | None
    prompt_tokens: int
    new_tokens: int
    cached_tokens: int
    cost: float | None  # US dollars, of the calls whose cost is known
    unpriced: int  # calls whose cost nobody knows
    errors: int
    error_rate: float | None  # of calls that nobody cancelled
    cancelled: int
    refusals: int
    refusal_rate: float | None  # of replies
    validation_failures: int
    validation_failure_rate: float | None  # calls with one or more, of those with a reply of any kind
    retries: int
    cache_hits: int
    cache_hit_rate: float | None  # of replies
    judged: int
    quality: float | None  # mean score of judges that agree with people beyond chance
    quality_standing: str  # what the judge's word is worth; "" where nobody judged


@dataclass(frozen=True)
class Group:
    """Calls of one kind; "" where a name does not matter or was not given."""

    model: str
    prompt: str
    version: str
    experiment: str
    arm: str
    figures: Figures


Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Series:
    """One value for each of BUCKETS equal stretches of time; None where there is nothing to take it of."""

    calls_per_minute: tuple[float, ...]
    seconds_p50: tuple[float | None, ...]
    seconds_p95: tuple[float | None, ...]
    first_token_p50: tuple[float | None, ...]
    tokens_per_minute: tuple[float, ...]
    cost_per_minute: tuple[float, ...]
    errors: tuple[int, ...]
    refusals: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """The window that ends at `now` (seconds since 1970), and alerts of all the log's newest calls."""

    file: str
    now: float
    minutes: float
    newest: float | None  # when the newest call of the file began
    all: Figures
    by_model: tuple[Group, ...]  # most calls first
    by_prompt: tuple[Group, ...]
    errors: dict[str, int]  # by kind
    series: Series
    alerts: tuple[Alert, ...]  # those that are on first, then the newest
    judges: tuple[Agreement, ...]
    lost: int  # calls that the disk did not take

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"alerts": [alert.as_dict() for alert in self.alerts]}


class LogReader:
    """Reads a CallLog's file, which may be written meanwhile; changes nothing. Use it in a `with` block.

    Raises DataError where there is no such file or it is something else.
    """

    def __init__(self, path: str | Path, alerts: DriftAlerts | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(
                "no such file",
                where=path,
                fix="name the file that a CallLog writes; docs/monitor.md shows how",
            )
        self._alerts = alerts or DriftAlerts()
        self._number: int | None = None  # the newest call that was searched for drift
        self._judged = 0.0
        self._file = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            check_schema(self._file, self.path)
        except sqlite3.Error as error:
            self._file.close()
            raise DataError(f"cannot be read: {error}", where=path) from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def snapshot(self, minutes: float = 60.0, now: float | None = None) -> Snapshot:
        """The last `minutes` before `now`, which defaults to this moment."""
        now = time.time() if now is None else now
        began = now - 60 * minutes
        judges = self.judges()
        rows = self._calls("began > ? AND began <= ? ORDER BY began", (began, now))
        by_model: defaultdict[Key, list[_Row]] = defaultdict(list)
        by_prompt: defaultdict[Key, list[_Row]] = defaultdict(list)
        for row in rows:
            call = row.call
            by_model[(call.model, "", "", "", "")].append(row)
            by_prompt[(call.model, call.prompt, call.version, call.experiment, call.arm)].append(row)
        return Snapshot(
            str(self.path),
            now,
            minutes,
            self._file.execute("SELECT max(began) FROM calls").fetchone()[0],
            _figures(rows, minutes, judges),
            _groups(by_model, minutes, judges),
            _groups(by_prompt, minutes, judges),
            dict(Counter(row.call.error for row in rows if row.call.failed and row.call.error).most_common()),
            _series(rows, began, now),
            tuple(self._catch_up(judges)),
            tuple(judges.values()),
            self._file.execute("SELECT coalesce(sum(calls), 0) FROM lost").fetchone()[0],
        )

    def judges(self) -> dict[str, Agreement]:
        """Judges whose agreement with people was measured, by name."""
        found = self._file.execute(
            "SELECT name, kappa, low, high, n, share, measured FROM judges ORDER BY name"
        )
        return {
            name: Agreement(name, Kappa(kappa, low, high, n), share, measured)
            for name, kappa, low, high, n, share, measured in found
        }

    def _calls(self, where: str, values: Sequence[Any]) -> list[_Row]:
        return [
            _row(row) for row in self._file.execute(f"SELECT {_COLUMNS} FROM calls WHERE {where}", values)
        ]

    def _catch_up(self, judges: dict[str, Agreement]) -> list[Alert]:
        """Search what has come since the last time for drift."""
        newest = self._file.execute("SELECT coalesce(max(number), 0) FROM calls").fetchone()[0]
        if self._number is None:
            self._number = max(0, newest - DRIFT_CALLS)
        for row in self._calls("number > ? AND number <= ? ORDER BY number", (self._number, newest)):
            self._alerts.record(row.call)
        first = max(0, newest - DRIFT_CALLS) if not self._judged else 0
        for row in self._calls("judged > ? AND number > ? ORDER BY judged, number", (self._judged, first)):
            self._judged = row.judged or self._judged
            agreement = judges.get(row.judge or "")
            if agreement is not None and agreement.beyond_chance and row.quality is not None:
                when = row.call.began + row.call.seconds
                self._alerts.see(group_of(row.call), when, {"quality": row.quality})
        self._number = newest
        on = self._alerts.current()
        over = [alert for alert in self._alerts.alerts if alert.ended is not None]
        return [*reversed(on), *reversed(over)]


_COLUMNS = (
    "id, began, asked, operation, streamed, prompt, version, experiment, arm, model, seconds, "
    "first_token_seconds, cost, finish, refused, error, status, tries, validation_failures, cache_hit, "
    "prompt_tokens, new_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, quality, judge, judged"
)


@dataclass(slots=True)
class _Row:
    call: Call
    quality: float | None
    judge: str | None
    judged: float | None


def _row(row: Sequence[Any]) -> _Row:
    (id, began, asked, operation, streamed, prompt, version, experiment, arm, model, seconds, first) = row[
        :12
    ]
    (cost, finish, refused, error, status, tries, invalid, hit) = row[12:20]
    call = Call(
        id,
        began,
        asked,
        operation,
        bool(streamed),
        prompt,
        version,
        experiment,
        arm,
        model,
        seconds,
        first,
        None if row[20] is None else Usage(*row[20:25]),
        cost,
        finish,
        bool(refused),
        error,
        status,
        tries,
        invalid,
        bool(hit),
    )
    return _Row(call, *row[25:])


def _groups(found: dict[Key, list[_Row]], minutes: float, judges: dict[str, Agreement]) -> tuple[Group, ...]:
    groups = [
        Group(model, prompt, version, experiment, arm, _figures(rows, minutes, judges))
        for (model, prompt, version, experiment, arm), rows in found.items()
    ]
    return tuple(sorted(groups, key=lambda g: (-g.figures.calls, g.model, g.prompt, g.version, g.arm)))


def _figures(rows: Sequence[_Row], minutes: float, judges: dict[str, Agreement]) -> Figures:
    calls = [row.call for row in rows]
    replied = [
        call for call in calls if call.finish is not None or (call.operation != genai.CHAT and not call.error)
    ]
    seconds = [call.seconds for call in replied]
    first = [call.first_token_seconds for call in replied if call.first_token_seconds is not None]
    usage = sum((call.usage for call in calls if call.usage is not None), Usage())
    costs = [call.cost for call in calls if call.cost is not None]
    cancelled = sum(call.error == CANCELLED for call in calls)
    errors = sum(call.failed for call in calls)
    refusals, hits = sum(call.refused for call in replied), sum(call.cache_hit for call in replied)
    invalid = sum(call.validation_failures > 0 for call in calls)
    checked = sum(call.finish is not None or call.validation_failures > 0 for call in calls)
    judged = [row for row in rows if row.quality is not None]
    vouched = [row for row in judged if row.judge in judges and judges[row.judge].beyond_chance]
    judge = Counter(row.judge or "" for row in vouched or judged).most_common(1)
    return Figures(
        len(calls),
        len(calls) / minutes,
        *quantiles(seconds),
        *quantiles(first),
        usage.prompt_tokens,
        usage.new_tokens,
        usage.cached_tokens,
        sum(costs) if costs else None,
        len(calls) - len(costs),
        errors,
        _share(errors, len(calls) - cancelled),
        cancelled,
        refusals,
        _share(refusals, len(replied)),
        sum(call.validation_failures for call in calls),
        _share(invalid, checked),
        sum(call.tries - 1 for call in calls),
        hits,
        _share(hits, len(replied)),
        len(judged),
        _share(sum(row.quality or 0.0 for row in vouched), len(vouched)),
        standing(judges.get(judge[0][0])) if judge else "",
    )


def quantiles(values: Sequence[float]) -> tuple[float | None, float | None]:
    """(median, 95% quantile), linear between neighbours; None of nothing."""
    if not values:
        return None, None
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return at(0.5), at(0.95)


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _series(rows: Sequence[_Row], began: float, now: float) -> Series:
    width = (now - began) / BUCKETS
    buckets: list[list[Call]] = [[] for _ in range(BUCKETS)]
    for row in rows:
        buckets[min(BUCKETS - 1, int((row.call.began - began) / width))].append(row.call)
    minutes = width / 60
    seconds = [quantiles([call.seconds for call in calls if call.finish is not None]) for calls in buckets]
    first = [
        quantiles([call.first_token_seconds for call in calls if call.first_token_seconds is not None])[0]
        for calls in buckets
    ]

    def tokens(call: Call) -> int:
        return call.usage.prompt_tokens + call.usage.new_tokens if call.usage is not None else 0

    return Series(
        tuple(len(calls) / minutes for calls in buckets),
        tuple(middle for middle, _ in seconds),
        tuple(high for _, high in seconds),
        tuple(first),
        tuple(sum(map(tokens, calls)) / minutes for calls in buckets),
        tuple(sum(call.cost or 0.0 for call in calls) / minutes for calls in buckets),
        tuple(sum(call.failed for call in calls) for calls in buckets),
        tuple(sum(call.refused for call in calls) for calls in buckets),
    )
