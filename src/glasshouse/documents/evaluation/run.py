"""Asks an analyzer about labelled documents, and says per field how right, how sure and how dear it is.

A document that fails counts as wrong in every field. Calibration is of every value that came with a
confidence, "not mentioned" too: ECE over ten bins (Guo et al. 2017), and the Brier score. With enough
documents a calibration is fitted on these very labels, and its own error on documents that it was not fitted
on is told beside.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glasshouse.core.errors import DataError
from glasshouse.documents.calibrator import Calibrator, Labelled, Setting
from glasshouse.documents.evaluation.example import Example, Grade
from glasshouse.documents.learning.promotion import Analyzes
from glasshouse.documents.result import FieldResult, Result

if TYPE_CHECKING:
    from glasshouse.evaluation.intervals import Estimate

AT_ONCE = 4
"""Documents that are under way together; how many calls a model gets at a time is for its own layers."""

ALL = "all fields"


@dataclass
class _Field:
    """What is known of one field over all documents."""

    right: list[bool] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    told: list[tuple[FieldResult, bool]] = field(default_factory=list)
    clauses: list[bool] = field(default_factory=list)
    costs: list[float | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, grade: Grade, result: Result, fields: int) -> None:
        self.right.append(grade.right)
        self.f1 += [] if grade.f1 is None else [grade.f1]
        self.told += grade.told
        self.clauses += grade.clauses
        self.costs.append(None if result.cost is None else result.cost / fields)
        self.seconds.append(result.seconds / fields)


@dataclass(frozen=True)
class Report:
    """`figures` is JSON; `labelled` are the judged values, for `Calibrator.fit`."""

    figures: dict[str, Any]
    labelled: tuple[Labelled, ...]


async def evaluate(
    analyzer: Analyzes,
    examples: Sequence[Example],
    *,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Ask about every example. `progress` is told how many are done.

    Raises DataError for no examples, and what the analyzer raises.
    """
    if not examples:
        raise DataError("there is nothing to evaluate on", where="documents", fix="ask for a larger sample")
    results = await _results(analyzer, examples, progress)
    fields: dict[str, _Field] = defaultdict(_Field)
    by_document: list[tuple[int, int]] = []  # right fields, fields
    labelled: list[Labelled] = []
    for example, result in zip(examples, results, strict=True):
        grades = example.grade(result)
        by_document.append((sum(grade.right for grade in grades), len(grades)))
        setting = Setting(model=result.model, task=result.task, domain=result.domain, prompt=result.prompt)
        for grade in grades:
            fields[grade.field].add(grade, result, len(grades))
            labelled += [
                Labelled.of(value, setting, right, example.document.name) for value, right in grade.told
            ]
    first = results[0]
    figures = {
        "model": first.model,
        "domain": first.domain,
        "prompt": first.prompt,
        "documents": len(examples),
        "failed": sum(not result.success for result in results),
        "parsing_failed": sum(result.parsing_failed for result in results),
        "fields": {name: _figures(found) for name, found in sorted(fields.items())}
        | {ALL: _overall(results, list(fields.values()), by_document)},
        "calibration": _calibration(labelled),
    }
    return Report(figures, tuple(labelled))


async def _results(
    analyzer: Analyzes, examples: Sequence[Example], progress: Callable[[int], None] | None
) -> list[Result]:
    slots, done = asyncio.Semaphore(AT_ONCE), 0

    async def one(example: Example) -> Result:
        nonlocal done
        async with slots:
            result = await analyzer.run(
                example.document, "extraction", schema=example.schema, instructions=example.instructions
            )
        done += 1
        if progress is not None:
            progress(done)
        return result

    tasks = [asyncio.ensure_future(one(example)) for example in examples]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _figures(found: _Field) -> dict[str, Any]:
    from glasshouse.evaluation.intervals import mean, proportion

    return {
        "accuracy": proportion(found.right).as_dict(),
        "f1": _clipped(mean(found.f1)) if len(found.f1) > 1 else None,
        **_sureness(found.told),
        **_quotes([value for value, _ in found.told]),
        "labelled_passage": proportion(found.clauses).as_dict() if found.clauses else None,
        "cost": _mean(found.costs),
        "seconds": _mean(found.seconds),
    }


def _overall(
    results: Sequence[Result], fields: Sequence[_Field], by_document: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    told = [each for found in fields for each in found.told]
    return {
        "accuracy": _clustered(by_document),
        "f1": None,
        **_sureness(told),
        **_quotes([value for value, _ in told], sum(result.quotes_dropped for result in results)),
        "labelled_passage": None,
        "cost": _mean([result.cost for result in results]),
        "seconds": _mean([result.seconds for result in results]),
    }


def _clustered(by_document: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Share of right fields; the interval takes documents as drawn, since fields of one go wrong together.

    Where all documents have the same share it would be of no width; there Wilson's over documents stands.
    """
    from glasshouse.evaluation.intervals import proportion, ratio

    right, asked = zip(*by_document, strict=True)
    found: Estimate = ratio(right, asked)
    n = sum(asked)
    if found.value in (0.0, 1.0) or not found.low < found.high:
        bound = proportion([found.value >= 0.5] * len(by_document))
        low, high = (bound.low, 1.0) if found.value >= 0.5 else (0.0, bound.high)
        return {"value": found.value, "low": min(low, found.value), "high": max(high, found.value), "n": n}
    return {**_clipped(found), "n": n}


def _clipped(found: Estimate) -> dict[str, Any]:
    return {
        "value": found.value,
        "low": max(found.low, 0.0),
        "high": min(found.high, 1.0),
        "n": found.n,
    }


def _sureness(told: Sequence[tuple[FieldResult, bool]]) -> dict[str, Any]:
    """None where no value came with a confidence: unknown is not zero."""
    import numpy as np

    from glasshouse.evaluation.confidence import expected_calibration_error

    rated = [(value, right) for value, right in told if value.confidence is not None]
    if not rated:
        return {"ece": None, "brier": None, "rated": 0, "calibrated": None}
    said = np.array([value.confidence for value, _ in rated], dtype=np.float64)
    was = np.array([right for _, right in rated], dtype=np.float64)
    return {
        "ece": float(expected_calibration_error(said, was)),
        "brier": float(((said - was) ** 2).mean()),
        "rated": len(rated),
        "calibrated": sum(value.calibrated for value, _ in rated) / len(rated),
    }


def _quotes(values: Sequence[FieldResult], dropped: int = 0) -> dict[str, Any]:
    """Of the quotes, those that stand in the document word for word; dropped ones stand nowhere."""
    quotes = [quote for value in values for quote in value.quotes]
    asked = len(quotes) + dropped
    verbatim = sum(quote.status == "verbatim" for quote in quotes)
    return {"quotes": asked, "quotes_verbatim": verbatim / asked if asked else None}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _calibration(labelled: Sequence[Labelled]) -> list[dict[str, Any]]:
    """What a calibration that is fitted on these labels makes of it, on documents it has not seen."""
    try:
        fitted = Calibrator.fit(labelled).fitted
    except DataError:
        return []
    return [
        {
            "prompt": each.setting.prompt,
            "rows": each.rows,
            "ece": each.ece.model_dump(),
            "brier": each.brier.model_dump(),
        }
        for each in fitted
    ]
