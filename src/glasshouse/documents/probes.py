"""What the analyzer reads out of the invented world's reports, whose truth is known.

analysis_field_accuracy    fields that are right, of extraction and of classification (its kinds), a document
                           counting as one
analysis_schema_validity   replies that follow their schema
analysis_quotes_verbatim   quotes that stand in the report up to white space, of those the model gave
analysis_ece               how far the calibrated confidence of a field is from its chance to be right, over
                           ten bins, on documents that the calibration was not fitted on
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.calibrator import Calibrator, Labelled, Setting
from glasshouse.documents.result import FieldResult, Result, Task
from glasshouse.evaluation.intervals import Estimate, mean, proportion
from glasshouse.files.document import Document
from glasshouse.inference import LanguageModel
from glasshouse.llm.batch import Batch
from glasshouse.llm.blocking import wait
from glasshouse.llm.local import LocalLLM
from glasshouse.world import World, analyses, filings
from glasshouse.world.filings import Filing

PROBES = (
    "analysis_field_accuracy",
    "analysis_schema_validity",
    "analysis_quotes_verbatim",
    "analysis_ece",
)
ASKED: tuple[Task, ...] = ("extraction", "classification")
DOMAIN = "land"
NAME = "world"
"""What the model is called in the settings of a calibration: its path may change."""

AT_ONCE = 32
"""Reports in work: each has a grammar of its own, which takes some megabytes."""


@dataclass(frozen=True)
class Read:
    """A report, and what the analyzer made of it."""

    filing: Filing
    result: Result

    @property
    def truth(self) -> dict[str, Any]:
        return analyses.REPLIES[self.result.task](self.filing)

    @property
    def share_right(self) -> float:
        """Of the five fields, or of the kinds: the primary one and the set of the others."""
        value, truth = self.result.value or {}, self.truth
        if self.result.task == "extraction":
            right = [name in value and value[name] == part["value"] for name, part in truth.items()]
        else:
            right = [
                value.get("primary") == truth["primary"],
                "secondary" in value and set(value["secondary"]) == set(truth["secondary"]),
            ]
        return sum(right) / len(right)

    def is_right(self, field: FieldResult) -> bool:
        """Whether one field of the result is true; an item of a list, whether the true list has it."""
        truth, name = self.truth, field.path.partition("[")[0].partition(".")[0]
        if self.result.task == "extraction":
            return bool(field.value == truth[name]["value"])
        if not isinstance(truth[name], list):
            return bool(field.value == truth[name])
        known = [part["feature"] if isinstance(part, dict) else part for part in truth[name]]
        return field.value in known

    def labelled(self) -> list[Labelled]:
        result = self.result
        setting = Setting(model=result.model, task=result.task, domain=result.domain, prompt=result.prompt)
        return [Labelled.of(field, setting, self.is_right(field), result.document) for field in result.fields]


def read_reports(world: World, model: LanguageModel, n: int, stream: str = "probe") -> list[Read]:
    """`n` unseen reports, each extracted and classified. `stream` names an independent draw."""
    drawn = list(islice(filings.filings(world.land, world.rng("analysis", stream), "heldout"), n))

    async def work(llm: LocalLLM) -> list[Result]:
        analyzer = Analyzer(Batch(llm, AT_ONCE), domain=DOMAIN)
        return await asyncio.gather(
            *(
                analyzer.run(Document.of_text(f"{stream}-{number}", filing.text), task)
                for task in ASKED
                for number, filing in enumerate(drawn)
            )
        )

    # The engine is made here: what prepares its weights would leave PyTorch's threads in the loop's thread as
    # long as that lives, and beside them those of a later training sleep where they would wait awake.
    with LocalLLM(model, NAME) as llm:
        results = wait(work(llm))
    return [Read(drawn[i % len(drawn)], result) for i, result in enumerate(results)]


def scores(reads: Sequence[Read]) -> dict[str, Estimate]:
    """The probes; `analysis_ece` only where there are enough fields for a calibration."""
    results = [read.result for read in reads]
    quotes = [quote for result in results for field in result.fields for quote in field.quotes]
    dropped = sum(result.quotes_dropped for result in results)
    found = {
        "analysis_field_accuracy": mean([read.share_right for read in reads]),
        "analysis_schema_validity": proportion([result.success for result in results]),
        "analysis_quotes_verbatim": proportion(
            [quote.status == "verbatim" for quote in quotes] + [False] * dropped or [False]
        ),
    }
    calibrator = calibrated(reads)
    if calibrator is not None:
        worst = max((fitted.ece for fitted in calibrator.fitted), key=lambda figure: figure.value)
        found["analysis_ece"] = Estimate(worst.value, worst.low, worst.high, worst.n)
    return found


def calibrated(reads: Sequence[Read]) -> Calibrator | None:
    """What the labels say about the model's confidence; None where they are too few."""
    try:
        return Calibrator.fit(row for read in reads for row in read.labelled())
    except DataError:
        return None
