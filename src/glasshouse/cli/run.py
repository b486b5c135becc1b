"""`glasshouse run`, `report`, `compare`, `verify`: run folders."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from glasshouse.cli import tables
from glasshouse.core.errors import UsageError

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=v", help="Change one setting of the recipe; may be repeated."),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="PATH...", help="Files or folders of your own."),
]
MoreData = Annotated[list[str] | None, typer.Argument(metavar="PATH", hidden=True)]
"""What follows the first path of --data: options of this parser take one value."""

Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or mps.", show_default="the recipe's")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    app.command(
        epilog="\b\nExamples:\n  glasshouse run pocket-mini --set seed=7 --out runs/seven\n"
        "  glasshouse run adapt --base hf://HuggingFaceTB/SmolLM2-135M-Instruct --data chats.jsonl",
    )(run)
    app.command(epilog="\b\nExample:\n  glasshouse report runs/pocket-mini")(report)
    app.command(epilog="\b\nExample:\n  glasshouse compare runs/pocket-mini runs/seven")(compare)
    app.command(epilog="\b\nExample:\n  glasshouse verify runs/pocket-mini")(verify)


def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")
    ] = "pocket",
    data: Data = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="Run, model folder or hf://ORG/NAME to start from.",
            show_default="the recipe's",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Run folder.", show_default="runs/<recipe name>"),
    ] = None,
    settings: Settings = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what the folder holds; reuse nothing.")
    ] = False,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Grow a model by a recipe. The same command continues after a stop; finished stages are skipped."""
    from glasshouse.pipeline.run import run as run_recipe

    done = run_recipe(
        recipe,
        out=out,
        data=all_data(data, more),
        overrides=[*([f"base={json_module.dumps(base)}"] if base is not None else []), *(settings or ())],
        until=until,
        fresh=fresh,
        device=device,
    )
    tables.show_run(done.path)


def all_data(data: list[str] | None, more: list[str] | None) -> list[str]:
    """The paths of `--data A B C`; raises UsageError for words that follow no --data."""
    if more and not data:
        raise UsageError(f"unexpected argument '{more[0]}'", fix="name files with --data")
    return [*(data or []), *(more or [])]


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """Write a run's report.html anew: one self-contained file."""
    from glasshouse.pipeline.report import write_report

    typer.echo(write_report(run))


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="The run to hold against it.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="HTML file.", show_default="in the second run's folder"),
    ] = None,
    json: Json = False,
) -> None:
    """Show what differs between two runs: settings, probes, curves, samples; as a table and as HTML."""
    from glasshouse.pipeline.compare import compare_runs, write_comparison

    comparison = compare_runs(first, second)
    path = write_comparison(comparison, out)
    if json:
        tables.print_json({**comparison.as_json(), "html": str(path)})
    else:
        tables.show_comparison(comparison)
        typer.echo(path)


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")], json: Json = False
) -> None:
    """Check every file of a run against the hash that its stage recorded; exit code 1 when one differs."""
    from glasshouse.pipeline.run_folder import RunFolder
    from glasshouse.pipeline.summary import Summary

    folder = RunFolder(Summary.read(run).path)
    problems = folder.verify()
    if json:
        tables.print_json({"run": str(run), "ok": not problems, "problems": [vars(p) for p in problems]})
    else:
        tables.show_verification(run, folder.records(), problems)
    if problems:
        raise typer.Exit(1)
