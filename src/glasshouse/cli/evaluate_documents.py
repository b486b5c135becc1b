"""`glasshouse eval --suite documents`: how right a model is on contracts and reports that people labelled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from glasshouse.cli import tables
from glasshouse.core.errors import UsageError

VARIABLE = "GLASSHOUSE_TEST_DATA"


def evaluate_documents(
    model: str | None, data: Sequence[str], settings: Sequence[str], out: Path | None, json: bool
) -> None:
    """Ask, write and print. Raises UsageError where no folder of data is named."""
    from glasshouse.core.config import apply_overrides
    from glasshouse.core.model_folders import resolve_model
    from glasshouse.core.storage import write_json
    from glasshouse.documents.evaluation.suite import SuiteConfig, run_documents
    from glasshouse.llm.blocking import wait
    from glasshouse.llm.open import open_llm
    from glasshouse.llm.stack import standard

    config = SuiteConfig.parse(apply_overrides({}, settings), "eval")
    folder = _folder(data)
    opened = open_llm(str(resolve_model(None)) if model is None else model)
    llm = standard(opened, at_once=config.at_once, dollars=config.dollars)
    try:
        reports = run_documents(llm, folder, config)
    finally:
        wait(llm.close())
    figures = {name: report.figures for name, report in reports.items()}
    if out is not None:
        write_json(out, figures)
    if json:
        tables.print_json(figures)
        return
    for name, told in figures.items():
        tables.show_documents(name, told)


def _folder(data: Sequence[str]) -> str:
    named = list(data) or [path for path in [os.environ.get(VARIABLE)] if path]
    if len(named) != 1:
        raise UsageError(
            "the suite 'documents' needs one folder of labelled documents",
            where="--data",
            fix=f"name it with --data FOLDER or {VARIABLE}; docs/document-evaluation.md says what it holds",
        )
    return named[0]
