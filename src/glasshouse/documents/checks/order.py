"""Dates that have to follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal

from pydantic import Field

from glasshouse.documents.checks.rule import Path, Rule, value_at
from glasshouse.documents.result import CheckFinding
from glasshouse.documents.values.dates import days_of


class Order(Rule[Literal["order"]]):
    """None of the `dates` lies before one that is named earlier; the same day is in order.

    What may be in order passes: "October 2019" after "October 20, 2019". Fields without a date are left out.
    """

    dates: tuple[Path, ...] = Field(min_length=2)

    def paths(self) -> tuple[str, ...]:
        return self.dates

    def finding(self, fields: Mapping[str, Any], text: str) -> CheckFinding | None:
        values = {path: value_at(fields, path) for path in self.dates}
        days = {path: found for path, value in values.items() if (found := days_of(value)) is not None}
        if len(days) < 2:
            return None
        for earlier, later in combinations(days, 2):
            if days[earlier].first > days[later].last:
                what = f"{earlier} ({values[earlier]}) lies after {later} ({values[later]})"
                return self._found(False, what, (earlier, later))
        told = ", ".join(f"{path} ({values[path]})" for path in days)
        return self._found(True, f"in order: {told}", tuple(days))
