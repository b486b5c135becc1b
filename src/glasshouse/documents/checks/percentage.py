"""A percentage that has to agree with the two figures it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import model_validator

from glasshouse.documents.checks.rule import Path, Rule, value_at
from glasshouse.documents.result import CheckFinding
from glasshouse.documents.values.figures import Figure, figure_of


class Percentage(Rule[Literal["percentage"]]):
    """`percentage` is `part` of `whole` (a margin: income of revenue), or the change from `old` to `new`.

    A number without "%" is one of hundredths: 12.5 is 12.5 %. Each of the three figures may be off by half of
    its last digit, and the rule fails where no such figures agree. A fall is negative; against a figure below
    zero, a change counts by that figure as it stands or without its sign, as both are in use.
    """

    percentage: Path
    part: Path | None = None
    whole: Path | None = None
    new: Path | None = None
    old: Path | None = None

    @model_validator(mode="after")
    def _two_figures(self) -> Self:
        given = [name for name in ("part", "whole", "new", "old") if getattr(self, name) is not None]
        if given not in (["part", "whole"], ["new", "old"]):
            raise ValueError("needs either 'part' and 'whole', or 'new' and 'old'")
        return self

    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.percentage, *self._two()) if path)

    def _two(self) -> tuple[str, str]:
        return (self.part or self.new or "", self.whole or self.old or "")

    def finding(self, fields: Mapping[str, Any], text: str) -> CheckFinding | None:
        above, below = self._two()
        stated = figure_of(value_at(fields, self.percentage))
        top, bottom = figure_of(value_at(fields, above)), figure_of(value_at(fields, below))
        if stated is None or top is None or bottom is None or bottom.value == 0:
            return None
        if top.unit != bottom.unit or bool(top.power) != bool(bottom.power):
            return None
        share = 1 if stated.unit == "%" else Decimal("0.01")
        value, slack = stated.value * share, stated.step * share / 2
        ranges = self._ranges(top, bottom)
        passed = any(low - slack <= value <= high + slack for low, high in ranges)
        exact = (100 * (top.value / bottom.value - (0 if self.part else 1))).quantize(Decimal("0.01"))
        of = f"{top.text} of {bottom.text}" if self.part else f"from {bottom.text} to {top.text}"
        return self._found(
            passed, f"{of} is {exact:f} %, and {self.percentage} says {stated.text}", self.paths()
        )

    def _ranges(self, top: Figure, bottom: Figure) -> list[tuple[Decimal, Decimal]]:
        """The least and the most that it can be, by figures that round to those written."""
        bottoms = [bottom.value - bottom.step / 2, bottom.value + bottom.step / 2]
        if bottoms[0] <= 0 <= bottoms[1]:
            bottoms = [bottom.value]
        shares = [(top.value + half) / one for half in (-top.step / 2, top.step / 2) for one in bottoms]
        low, high = min(shares), max(shares)
        if self.part:
            return [(low, high)]
        changes = [(low - 1, high - 1)]
        if bottom.value < 0:
            changes.append((1 - high, 1 - low))
        return changes
