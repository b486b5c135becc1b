"""Dates in a value, as the days that they may mean: "October 2019" is any of its thirty-one."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

_MONTHS = {name.lower()[:3]: number for number, name in enumerate(calendar.month_name) if name}
_NAME = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:1[5-9]|2[01])\d\d)"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"\b{_YEAR}-(?P<number>[01]?\d)-(?P<day>[0-3]?\d)\b",
        rf"\b{_NAME}\s+{_DAY},?\s+{_YEAR}\b",
        rf"\b{_DAY}\s+(?:day\s+)?(?:of\s+)?{_NAME},?\s+{_YEAR}\b",
        rf"\b(?P<first>[0-3]?\d)[/.](?P<second>[0-3]?\d)[/.]{_YEAR}\b",
        rf"\bQ(?P<quarter>[1-4])\s*(?:of\s+)?{_YEAR}\b",
        rf"\b{_YEAR}\s*[- ]?Q(?P<quarter>[1-4])\b",
        rf"\b{_NAME},?\s+{_YEAR}\b",
        rf"\b{_YEAR}-(?P<number>[01]\d)\b",
        rf"(?<![\d/.-]){_YEAR}\b",
    )
)


@dataclass(frozen=True)
class Days:
    """A span of days, both ends included."""

    first: date
    last: date


def days_of(value: Any) -> Days | None:
    """The first date of a value; None where it has none ("upon termination").

    "3/4/2019" is the third month in America and the fourth elsewhere: both days, and all between them.
    Quarters are those of the calendar.
    """
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    for form in _FORMS:
        match = form.search(str(value))
        if match is not None and (days := _days(match.groupdict())) is not None:
            return days
    return None


def _days(found: dict[str, str | None]) -> Days | None:
    year = int(found["year"] or 0)
    try:
        if found.get("first"):
            first, second = int(found["first"] or 0), int(found["second"] or 0)
            meant = [
                date(year, month, day)
                for month, day in ((first, second), (second, first))
                if 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
            ]
            return Days(min(meant), max(meant)) if meant else None
        if found.get("quarter"):
            month = 3 * int(found["quarter"] or 0)
            return Days(date(year, month - 2, 1), date(year, month, calendar.monthrange(year, month)[1]))
        month = (
            _MONTHS[(found["month"] or "").lower()[:3]]
            if found.get("month")
            else int(found.get("number") or 0)
        )
        if found.get("day"):
            day = date(year, month, int(found["day"] or 0))
            return Days(day, day)
        if month:
            return Days(date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1]))
    except ValueError:
        return None  # the 31st of February
    return Days(date(year, 1, 1), date(year, 12, 31))
