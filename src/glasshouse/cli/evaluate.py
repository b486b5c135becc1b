"""`glasshouse eval`: the probes of any model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glasshouse.cli import tables
from glasshouse.cli.run import Data, Device, Json, MoreData, all_data
from glasshouse.core.errors import UsageError


class Suite(StrEnum):
    world = "world"
    text = "text"
    documents = "documents"


def register(app: typer.Typer) -> None:
    app.command(
        "eval",
        epilog="\b\nExamples:\n  glasshouse eval runs/pocket-mini --suite world --set n=100\n"
        "  glasshouse eval --suite documents --model ollama:qwen3 --data labelled --set n=20",
    )(evaluate)


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run or model folder.", show_default="the newest run"),
    ] = None,
    suite: Annotated[
        Suite | None,
        typer.Option(
            "--suite",
            help="The invented world's probes, bits per byte of text, or labelled documents.",
            show_default="the run's",
        ),
    ] = None,
    model_option: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The same as MODEL; for documents any model: openai:NAME, ollama:NAME, ...",
            show_default="MODEL",
        ),
    ] = None,
    data: Data = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="key=v",
            help="Change a setting: n, probes, text_bytes; of documents: n, seed, sets, fields, votes, "
            "dollars, ...; may be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the JSON here.")
    ] = None,
    device: Device = None,
    json: Json = False,
    more: MoreData = None,
) -> None:
    """Ask a model the probes, each with a 95% interval.

    --data names text for the suite `text`, and the folder of labelled documents for the suite `documents`.
    """
    from glasshouse.core.storage import write_json
    from glasshouse.pipeline.evaluate import evaluate_model

    if model is not None and model_option is not None:
        raise UsageError("the model is named twice", where="eval", fix="leave MODEL or --model out")
    model = model_option if model is None else model
    if suite is Suite.documents:
        from glasshouse.cli.evaluate_documents import evaluate_documents

        if device is not None:
            raise UsageError("the suite 'documents' takes no --device", where="eval", fix="leave it out")
        evaluate_documents(model, all_data(data, more), settings or (), out, json)
        return
    probes = evaluate_model(
        model, suite=suite, data=all_data(data, more), settings=settings or (), device=device
    )
    if out is not None:
        write_json(out, probes)
    if json:
        tables.print_json(probes)
    else:
        tables.show_probes(probes)
