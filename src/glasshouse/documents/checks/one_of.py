"""A value that can only be one of a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from glasshouse.core.config import nearest
from glasshouse.documents.checks.rule import Path, Rule, values_at
from glasshouse.documents.result import CheckFinding


class OneOf(Rule[Literal["one_of"]]):
    """The value is one of `values`, whatever its capitals and spaces."""

    path: Path
    values: tuple[str, ...] = Field(min_length=1)

    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def finding(self, fields: Mapping[str, Any], text: str) -> CheckFinding | None:
        known = {_plain(value): value for value in self.values}
        found = values_at(fields, self.path)
        for path, value in found:
            if _plain(str(value)) not in known:
                close = nearest(_plain(str(value)), known)
                meant = f" (did it mean '{known[close]}'?)" if close else ""
                return self._found(
                    False, f"{path} is '{value}', none of the {len(known)} known{meant}", (path,)
                )
        if not found:
            return None
        return self._found(True, "one of the known values", tuple(path for path, _ in found))


def _plain(value: str) -> str:
    return " ".join(value.casefold().split())
