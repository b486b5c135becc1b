"""The figures of an evaluation as rows for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = ("field", "n", "accuracy", "95% interval", "F1", "ECE", "Brier", "verbatim", "labelled passage")
COLUMNS += ("$ each", "s each")

UNKNOWN = "–"


def table_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One for each field, all together last. What nobody knows is a dash, never 0."""
    return [_row(name, found) for name, found in figures["fields"].items()]


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy, f1, passage = found["accuracy"], found["f1"], found["labelled_passage"]
    return (
        name,
        str(accuracy["n"]),
        f"{accuracy['value']:.3f}",
        f"{accuracy['low']:.3f} – {accuracy['high']:.3f}",
        _number(None if f1 is None else f1["value"]),
        _number(found["ece"]),
        _number(found["brier"]),
        _number(found["quotes_verbatim"]),
        _number(None if passage is None else passage["value"]),
        _number(found["cost"], 5),
        _number(found["seconds"], 1),
    )


def _number(value: float | None, digits: int = 3) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"
