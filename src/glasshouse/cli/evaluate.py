"""`glasshouse eval`: the probes of any model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glasshouse.cli import tables
from glasshouse.cli.run import Data, Device, Json, MoreData, all_data


class Suite(StrEnum):
    world = "world"
    text = "text"


def register(app: typer.Typer) -> None:
    app.command("eval", epilog="\b\nExample:\n  glasshouse eval runs/pocket-mini --suite world --set n=100")(
        evaluate
    )


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run or model folder.", show_default="the newest run"),
    ] = None,
    suite: Annotated[
        Suite | None,
        typer.Option(
            "--suite", help="The invented world's probes, or bits per byte of text.", show_default="the run's"
        ),
    ] = None,
    data: Data = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="key=v", help="Change a setting: n, probes, text_bytes; may be repeated."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the JSON here.")
    ] = None,
    device: Device = None,
    json: Json = False,
    more: MoreData = None,
) -> None:
    """Ask a model the probes, each with a 95% interval. --data names text for the suite `text`."""
    from glasshouse.core.storage import write_json
    from glasshouse.pipeline.evaluate import evaluate_model

    probes = evaluate_model(
        model, suite=suite, data=all_data(data, more), settings=settings or (), device=device
    )
    if out is not None:
        write_json(out, probes)
    if json:
        tables.print_json(probes)
    else:
        tables.show_probes(probes)
