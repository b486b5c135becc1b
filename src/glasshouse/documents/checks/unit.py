"""A figure that has to have the unit and the scale which the text gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from glasshouse.documents.checks.rule import Path, Rule, value_at
from glasshouse.documents.result import CheckFinding
from glasshouse.documents.values.figures import Figure, figure_of, figures

_POWERS = {"": 0, "none": 0, "one": 0, "unit": 0, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}


class Unit(Rule[Literal["unit"]]):
    """The figure stands in the text, and its unit and scale stand beside it, or above it: "(in millions)".

    What a field says counts: its own text ("$5 million"), or the fields that `unit` and `scale` name (a
    currency's three letters or sign, or "%"; "thousand", "million", "billion"). Without either, the field has
    to say whatever stands beside its figure in the text.
    """

    path: Path
    unit: Path | None = None
    scale: Path | None = None

    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.path, self.unit, self.scale) if path)

    def finding(self, fields: Mapping[str, Any], text: str) -> CheckFinding | None:
        value = value_at(fields, self.path)
        figure = figure_of(value)
        if figure is None:
            return None
        unit, power = figure.unit, figure.power
        if self.unit is not None and (said := value_at(fields, self.unit)):
            unit = _unit(str(said))
        if self.scale is not None and (said := value_at(fields, self.scale)):
            power = _POWERS.get(str(said).lower().removesuffix("s"), power)
        there = [one for one in _figures(text) if abs(one.number) == abs(figure.number)]
        there = there or [one for one in _figures(text) if abs(one.value) == abs(figure.number.scaleb(power))]
        if not there:
            return self._found(
                False, f"{self.path} ({value}) stands nowhere in the text as a figure", self.paths()
            )
        paths = self.paths()
        wrong = None
        for one in there:
            wrong = _difference(one, figure, unit, power, text)
            if wrong is None:
                return self._found(True, f"{self.path} ({value}) has the unit of '{one.text}'", paths)
        return self._found(False, f"{self.path} ({value}): {wrong}", paths)


def _difference(there: Figure, said: Figure, unit: str | None, power: int, text: str) -> str | None:
    """What speaks against this place in the text as the figure's; None: nothing."""
    same = abs(there.value) == abs(said.number.scaleb(power))
    if there.unit is not None and there.unit != unit:
        return f"the text has it as '{there.text}'" + (f", not in {unit}" if unit else "")
    if there.unit is None and unit not in (None, "%") and not _anywhere(unit, text):
        return f"nothing in the text says that '{there.text}' is in {unit}"
    if there.power and not same:
        return f"the text has it as '{there.text}'"
    if not there.power and not same and not _in_scale(power, text):
        return f"nothing in the text says that '{there.text}' is in units of 10^{power}"
    return None


def _unit(said: str) -> str:
    """A currency as its three letters, whatever way it is written."""
    found = figures(f"1 {said}")
    return (found[0].unit if found else None) or said


def _anywhere(unit: str | None, text: str) -> bool:
    return any(figure.unit == unit for figure in _figures(text)) or bool(
        re.search(rf"(?<![A-Za-z]){re.escape(unit or '')}(?![A-Za-z])", text)
    )


@lru_cache(maxsize=2)
def _figures(text: str) -> tuple[Figure, ...]:
    return tuple(figures(text))


def _in_scale(power: int, text: str) -> bool:
    words = {
        3: r"thousands?|000s?",
        6: r"millions?|mm|mn|[€£$]m",
        9: r"billions?|bn",
        12: "trillions?",
    }
    return power in words and re.search(rf"(?<!\w)(?:{words[power]})(?!\w)", text, re.I) is not None
