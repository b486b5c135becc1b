"""What the verbs print: tables for people, JSON for programs. Results go to stdout, news to stderr."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from glasshouse.core.model_folders import MODEL_STAGES
from glasshouse.pipeline.summary import (
    CALIBRATION_FIGURES,
    WINDOW_MODELS,
    Summary,
    probe_names,
    show_duration,
    show_value,
)

if TYPE_CHECKING:
    from glasshouse.core.record import Record
    from glasshouse.pipeline.compare import Comparison
    from glasshouse.pipeline.run_folder import Problem


WIDE = 200
"""Columns of a table that goes to a file or a pipe, where nothing needs to be cut."""


def _table(*columns: str, numbers: Collection[str] = ()) -> Table:
    """A plain table with these columns; those in `numbers` stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(table)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def show_run(path: Path) -> None:
    """Each probe before and after each stage, the report, and what to type next."""
    summary = Summary.read(path)
    if summary.models:
        models = [model.replace("_", " ") for model in summary.models]
        table = _table("probe (95% interval)", *models, numbers=set(models))
        for probe in probe_names(summary):
            values = [show_value(summary.probes[model].get(probe)) for model in summary.models]
            table.add_row(probe, *values)
        _print(table)
    if summary.windows.get("bits_per_byte"):
        models = [model.replace("_", " ") for model in WINDOW_MODELS]
        table = _table("bits per byte by position", *models, numbers=set(models))
        for row in summary.windows["bits_per_byte"]:
            values = [show_value(row.get(model)) for model in WINDOW_MODELS]
            table.add_row(f"{row['from']:,} to {row['to']:,}", *values)
        _print(table)
    if quality := summary.reward_quality:
        table = _table(f"reward model on {quality['pairs']:,} held-out pairs", "value (95% interval)")
        table.add_row("accuracy", show_value(quality["accuracy"]))
        table.add_row("error of its probabilities", show_value(quality["calibration"]["ece"]))
        table.add_row("prefers the longer reply", show_value(quality["prefers_longer"]))
        table.add_row("the raters chose the longer", show_value(quality["chosen_longer"]))
        _print(table)
    if calibration := summary.calibration:
        table = _table("on held-out questions", "before", "after", numbers={"before", "after"})
        before, after = calibration["figures"]["before"], calibration["figures"]["after"]
        for key, label in CALIBRATION_FIGURES.items():
            table.add_row(label, f"{before[key]:.3f}", f"{after[key]:.3f}")
        _print(table)
    seconds = [record.duration_seconds or 0.0 for record in summary.records.values()]
    typer.echo(f"time    {show_duration(sum(seconds))}")
    if (path / "report.html").is_file():
        typer.echo(f"report  {path / 'report.html'}")
    trained = [name for name in MODEL_STAGES if (path / name / "model").is_dir()]
    if (path / "reward" / "model").is_dir():
        typer.echo(f"reward  {path / 'reward' / 'model'}")
    if trained:
        typer.echo(f"model   {path / trained[-1] / 'model'}")
        typer.echo(f"chat    glasshouse chat {path}")
        if trained[-1] in ("pretrain", "context"):
            typer.echo(f"next    glasshouse train sft --model {path} --data chats.jsonl --out {path}-chat")


def show_probes(probes: Mapping[str, Mapping[str, Any]]) -> None:
    table = _table("probe", "value", "95% interval", "n", numbers={"value", "n"})
    for name, probe in probes.items():
        known = probe.get("low") is not None and probe.get("high") is not None
        interval = f"{probe['low']:.3f} – {probe['high']:.3f}" if known else "–"
        table.add_row(name, f"{probe['value']:.3f}", interval, str(probe.get("n", "–")))
    _print(table)


def show_documents(name: str, figures: Mapping[str, Any]) -> None:
    """The evaluation on one set of labelled documents, field by field."""
    from glasshouse.documents.evaluation.table import COLUMNS, table_rows

    failed = f", {figures['failed']} failed" if figures["failed"] else ""
    typer.echo(f"\n{name}: {figures['documents']} documents{failed}, {figures['model']}, {figures['prompt']}")
    table = _table(*COLUMNS, numbers=COLUMNS[1:])
    for row in table_rows(figures):
        table.add_row(*row)
    _print(table)
    for told in figures["calibration"]:
        ece = told["ece"]
        typer.echo(
            f"calibrated on these labels: ECE {ece['value']:.3f} ({ece['low']:.3f} – {ece['high']:.3f}) "
            f"on documents it was not fitted on, {told['rows']} values"
        )


def show_comparison(comparison: Comparison) -> None:
    first, second = comparison.names
    if comparison.settings:
        table = _table("setting", first, second)
        for setting in comparison.settings:
            table.add_row(setting.key, setting.first, setting.second)
        _print(table)
        typer.echo()
    else:
        typer.echo("the recipes are the same\n")
    figures = {first, second, "difference"}
    table = _table("after", "probe", first, second, "difference", "", numbers=figures)
    for row in comparison.probes:
        if row.difference is not None and row.model not in comparison.same_models:
            difference = f"{row.difference:+.3f}"
            table.add_row(
                row.model, row.probe, show_value(row.first), show_value(row.second), difference, row.verdict
            )
    _print(table)
    if comparison.same_models:
        typer.echo(f"the same in both: {', '.join(comparison.same_models)}")
    typer.echo("* the 95% intervals do not overlap\n")


def show_verification(run: Path, records: Mapping[str, Record], problems: list[Problem]) -> None:
    if not problems:
        files = sum(len(record.files) for record in records.values())
        typer.echo(f"{run}: {files} files of {len(records)} stages are as they were recorded")
        return
    table = _table("stage", "file", "problem")
    for problem in problems:
        table.add_row(problem.stage, problem.file, problem.what)
    _print(table)
