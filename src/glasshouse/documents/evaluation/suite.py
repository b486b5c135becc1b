"""The suite `documents` of `glasshouse eval`: contracts and annual reports, a sample of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.progress import bar
from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.evaluation import cuad, tatqa
from glasshouse.documents.evaluation.example import Example
from glasshouse.documents.evaluation.run import Report, evaluate
from glasshouse.llm.blocking import wait
from glasshouse.llm.interface import LLM

Name = Literal["cuad", "tatqa"]

DOMAINS: dict[Name, str] = {"cuad": "legal", "tatqa": "financial"}


class SuiteConfig(Config):
    """What `--set` changes."""

    sets: tuple[Name, ...] = Field(("cuad", "tatqa"), min_length=1)
    n: int = Field(20, ge=1)  # contracts, and questions
    seed: int = 0  # of the samples
    fields: tuple[str, ...] = cuad.FIELDS  # of cuad, by name; cuad.CATEGORIES has all 41
    domain: str | None = None  # a pack's name or folder; None: legal for cuad, financial for tatqa
    votes: int = Field(1, ge=1)
    chunk_tokens: int | None = Field(None, ge=1)  # of a part of a document; None: what the context leaves
    at_once: int = Field(8, ge=1)  # calls of the model
    dollars: float | None = Field(None, ge=0)  # the most that all calls together may cost


def run_documents(llm: LLM, folder: str | Path, config: SuiteConfig) -> dict[str, Report]:
    """Data set -> its report. All samples are read before the first question is asked.

    Raises DataError where the data is not in `folder`, UsageError for a field that is none, and what the
    model raises.
    """
    loaders: dict[Name, Callable[[], list[Example]]] = {
        "cuad": lambda: cuad.load(folder, config.n, config.seed, config.fields),
        "tatqa": lambda: tatqa.load(folder, config.n, config.seed),
    }
    examples = {name: loaders[name]() for name in config.sets}
    reports = {}
    for name in config.sets:
        domain = config.domain or DOMAINS[name]
        analyzer = Analyzer(llm, domain=domain, votes=config.votes, chunk_tokens=config.chunk_tokens)
        with bar(name, total=len(examples[name]), unit="doc") as progress:
            reports[name] = wait(evaluate(analyzer, examples[name], progress=progress.update))
    return reports
