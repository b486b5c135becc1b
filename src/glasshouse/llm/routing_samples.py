"""Labelled requests: which tiers answered them well, how sure those were, what it cost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from glasshouse.classify import TextClassifier
from glasshouse.core.config import Config
from glasshouse.core.errors import DataError, UsageError
from glasshouse.files.jsonl import read_jsonl
from glasshouse.llm.confidence import Confidence, asked
from glasshouse.llm.difficulty import likely_right, request_text
from glasshouse.llm.interface import LLM, Request

LEAST_SAMPLES = 30
"""Below, no rule can be found, whatever could be proved of it."""


class Sample(Config):
    """One labelled request. Lists go by tier, the cheapest first."""

    text: str  # what the user asked
    right: tuple[bool, ...] = Field(min_length=2)
    sure: tuple[float | None, ...] = ()  # each tier's confidence but the last's; none: the words alone decide
    cost: tuple[float | None, ...] = ()  # of each tier's answer, US dollars


@dataclass(frozen=True)
class Table:
    """Labelled requests in columns: (n, tiers) right and cost, (n, tiers - 1) sure and likely."""

    right: np.ndarray
    cost: np.ndarray
    sure: np.ndarray | None
    likely: np.ndarray | None

    def rows(self, chosen: np.ndarray) -> Table:
        pick = [None if column is None else column[chosen] for column in (self.sure, self.likely)]
        return Table(self.right[chosen], self.cost[chosen], *pick)


def read_samples(path: str | Path) -> list[Sample]:
    """Rows of a JSONL file: {"text", "right": [...], "sure": [...], "cost": [...]}, the last two optional."""
    return [Sample.parse(row, str(position)) for position, row in read_jsonl(Path(path))]


async def collect(
    tiers: Sequence[LLM],
    questions: Sequence[tuple[Request, Callable[[str], bool]]],
    confidence: Confidence | None,
    at_once: int = 8,
) -> list[Sample]:
    """Ask every tier every question, and let each question's check say which replies are right.

    Questions should be drawn as those come in that the policy is for. Errors of the models are passed on.
    """
    check_able(tiers, confidence)
    slots = asyncio.Semaphore(at_once)

    async def one(request: Request, check: Callable[[str], bool]) -> Sample:
        right, sure, cost = [], [], []
        async with slots:
            for tier in tiers:
                if confidence is None or tier is tiers[-1]:
                    completion = await tier.complete(request)
                else:
                    completion, found = await asked(confidence, tier, request)
                    sure.append(found)
                right.append(bool(check(completion.text)))
                cost.append(completion.cost)
        return Sample(text=request_text(request), right=tuple(right), sure=tuple(sure), cost=tuple(cost))

    return list(await asyncio.gather(*(one(*question) for question in questions)))


def check_able(tiers: Sequence[LLM], confidence: Confidence | None) -> None:
    """Raises UsageError for a tier that cannot give the confidence."""
    for tier in tiers[:-1]:
        if confidence is not None and (why := confidence.missing(tier)):
            fix = "take another confidence: MeanLogprob, Agreement, or a function by Judged"
            raise UsageError(f"'{tier.name}' {why}, which '{confidence.name}' needs", fix=fix)


def table_of(
    samples: Sequence[Sample], classifier: TextClassifier | None, costs: Sequence[float] | None
) -> tuple[Table, Literal["US dollars", "given"]]:
    """The samples in columns, and their unit of cost. Raises DataError where they do not fit together."""
    if len(samples) < LEAST_SAMPLES:
        raise DataError(f"{len(samples)} labelled requests", fix=f"label {LEAST_SAMPLES} or more")
    tiers = len(samples[0].right)
    with_sure = len(samples[0].sure) > 0
    for row, sample in enumerate(samples, 1):
        if len(sample.right) != tiers or len(sample.sure) != with_sure * (tiers - 1):
            fix = f"{tiers} of 'right' and {with_sure * (tiers - 1)} of 'sure' in every row, as in the first"
            raise DataError("another number of tiers", where=f"sample {row}", fix=fix)
        if costs is None and (len(sample.cost) != tiers or None in sample.cost):
            fix = "give `costs`, of a request to each tier, in any unit"
            raise DataError("a cost is unknown", where=f"sample {row}", fix=fix)
    if costs is not None and (len(costs) != tiers or min(costs) < 0 or costs[-1] <= 0):
        raise UsageError(f"{len(costs)} costs for {tiers} tiers, or not all of them positive")
    if costs is None and not any(sample.cost[-1] for sample in samples):
        raise DataError("the last tier costs nothing, so nothing can be saved", fix="give `costs`")
    if classifier is None and not with_sure:
        raise UsageError("neither confidences nor a classifier", fix="train_difficulty makes a classifier")
    sure = np.array([[math.nan if s is None else s for s in x.sure] for x in samples]) if with_sure else None
    table = Table(
        np.array([sample.right for sample in samples]),
        np.array([costs or sample.cost for sample in samples], dtype=np.float64),
        sure,
        None if classifier is None else likely_right(classifier, [x.text for x in samples], tiers),
    )
    return table, "US dollars" if costs is None else "given"
