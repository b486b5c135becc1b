"""The base of every kind of rule, and how a rule names fields."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

from pydantic import StringConstraints

from glasshouse.core.config import Config
from glasshouse.documents.result import CheckFinding

Path = Annotated[str, StringConstraints(pattern=r"^[^.\[\]]+(\[\])?(\.[^.\[\]]+(\[\])?)*$")]
"""Of a field: "revenue", "guarantor.name"; of that of every item in a list: "segments[].revenue"."""


Kind = TypeVar("Kind", bound=str)


class Rule(Config, Generic[Kind]):
    """A rule of a pack. `name` is how a finding calls it; without one it is the kind with its fields."""

    kind: Kind
    name: str | None = None

    @abstractmethod
    def finding(self, fields: Mapping[str, Any], text: str) -> CheckFinding | None:
        """What the rule says about an answer to `text`; None where there is nothing to judge."""
        ...

    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """Every field that the rule names, as its pack does."""
        ...

    def _found(self, passed: bool, what: str, paths: tuple[str, ...]) -> CheckFinding:
        name = self.name or f"{self.kind} of {', '.join(self.paths())}"
        return CheckFinding(check=name, paths=paths, what=what, passed=passed)


def values_at(fields: Mapping[str, Any], path: str) -> list[tuple[str, Any]]:
    """(path, value) of what is mentioned there: one at most, or one for each item where the path has "[]"."""
    found: list[tuple[str, Any]] = [("", fields)]
    for part in re.findall(r"[^.]+", path):
        key = part.removesuffix("[]")
        inner = [
            (f"{above}.{key}" if above else key, value[key])
            for above, value in found
            if isinstance(value, Mapping) and value.get(key) is not None
        ]
        if part.endswith("[]"):
            inner = [
                (f"{above}[{place}]", item)
                for above, items in inner
                if isinstance(items, list | tuple)
                for place, item in enumerate(items)
                if item is not None
            ]
        found = inner
    return found


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """The one value at a path without "[]"; None where it is not mentioned."""
    found = values_at(fields, path)
    return found[0][1] if found else None
