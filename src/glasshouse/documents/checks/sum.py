"""A total that has to add up, as far as its figures are rounded."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from glasshouse.documents.checks.rule import Path, Rule, value_at, values_at
from glasshouse.documents.result import CheckFinding
from glasshouse.documents.values.figures import figure_of


class Sum(Rule[Literal["sum"]]):
    """`total` is the sum of `parts`, less that of `minus`.

    Every figure may be off by half of its last digit. Nothing is said where a figure is missing, nor where
    some have a scale or a unit ("$5 million") that others lack.
    """

    total: Path
    parts: tuple[Path, ...] = Field(min_length=1)
    minus: tuple[Path, ...] = ()

    def paths(self) -> tuple[str, ...]:
        return (self.total, *self.parts, *self.minus)

    def finding(self, fields: Mapping[str, Any], text: str) -> CheckFinding | None:
        total = figure_of(value_at(fields, self.total))
        if total is None:
            return None
        added, paths, terms = Decimal(0), [self.total], []
        slack = total.step
        for sign, part in [*((1, part) for part in self.parts), *((-1, part) for part in self.minus)]:
            found = values_at(fields, part)
            if not found:
                return None
            for path, value in found:
                figure = figure_of(value)
                if figure is None or figure.unit != total.unit or bool(figure.power) != bool(total.power):
                    return None
                added += sign * figure.value
                slack += figure.step
                paths.append(path)
                terms.append(f"{'+' if sign > 0 else '−'} {figure.text}")
        passed = abs(total.value - added) <= slack / 2
        sum_ = " ".join(terms).removeprefix("+ ")
        exact = added.scaleb(-total.power).normalize()
        what = f"{sum_} is {exact:f}, and {self.total} says {total.text}"
        return self._found(passed, what, tuple(paths))
