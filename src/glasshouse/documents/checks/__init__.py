"""Rules that the fields of an answer have to keep, declared in a pack: one kind of rule a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from glasshouse.documents.checks.one_of import OneOf
from glasshouse.documents.checks.order import Order
from glasshouse.documents.checks.percentage import Percentage
from glasshouse.documents.checks.range import Range
from glasshouse.documents.checks.sum import Sum
from glasshouse.documents.checks.unit import Unit
from glasshouse.documents.result import CheckFinding

Check = Annotated[Sum | Order | Percentage | Unit | Range | OneOf, Field(discriminator="kind")]

KINDS: dict[str, type[Sum | Order | Percentage | Unit | Range | OneOf]] = {
    "sum": Sum,
    "order": Order,
    "percentage": Percentage,
    "unit": Unit,
    "range": Range,
    "one_of": OneOf,
}


def run_checks(checks: Iterable[Check], fields: Mapping[str, Any], text: str) -> list[CheckFinding]:
    """What each rule says about an answer, passed or not, in the order of the rules.

    `fields`: the value of an extraction; `text`: the document's. A rule whose fields are not mentioned, or
    hold nothing that it could judge, says nothing.
    """
    return [finding for check in checks if (finding := check.finding(fields, text)) is not None]
