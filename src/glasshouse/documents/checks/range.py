"""A figure that can only lie between two others."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import model_validator

from glasshouse.documents.checks.rule import Path, Rule, values_at
from glasshouse.documents.result import CheckFinding
from glasshouse.documents.values.figures import figure_of


class Range(Rule[Literal["range"]]):
    """`min` ≤ the figure ≤ `max`; percentages in hundredths: 12 % is 12."""

    path: Path
    min: Decimal | None = None
    max: Decimal | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs 'min', 'max' or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"'min' ({self.min}) is above 'max' ({self.max})")
        return self

    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def finding(self, fields: Mapping[str, Any], text: str) -> CheckFinding | None:
        judged: list[str] = []
        for path, value in values_at(fields, self.path):
            figure = figure_of(value)
            if figure is None:
                continue
            judged.append(path)
            number = figure.value * (100 if figure.unit == "%" else 1)
            if self.min is not None and number < self.min:
                return self._found(False, f"{path} ({value}) is below {self.min}", (path,))
            if self.max is not None and number > self.max:
                return self._found(False, f"{path} ({value}) is above {self.max}", (path,))
        if not judged:
            return None
        limits = [
            f"{word} {limit}" for word, limit in (("from", self.min), ("to", self.max)) if limit is not None
        ]
        return self._found(True, f"within its range ({' '.join(limits)})", tuple(judged))
