"""`glasshouse export`: a model for other programs, or smaller."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glasshouse.cli.run import Data, MoreData, all_data


class Format(StrEnum):
    hf = "hf"
    gguf = "gguf"
    int8 = "int8"
    int4 = "int4"
    nf4 = "nf4"


class Precision(StrEnum):
    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"
    Q4_0 = "Q4_0"


def register(app: typer.Typer) -> None:
    app.command(
        epilog="\b\nExample:\n  glasshouse export runs/pocket-mini --to gguf --precision Q8_0 --out mini.gguf"
    )(export)


def export(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run or model folder.", show_default="the newest run"),
    ] = None,
    *,
    to: Annotated[
        Format,
        typer.Option(
            help="A Hugging Face folder with a model card, a llama.cpp file, or our weights in few bits."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="File (gguf) or folder to write.")],
    precision: Annotated[Precision, typer.Option(help="Of a GGUF file's matrices.")] = Precision.F16,
    license: Annotated[
        str | None, typer.Option(help="Licence for the model card, such as apache-2.0.")
    ] = None,
    data: Data = None,
    more: MoreData = None,
) -> None:
    """Write a model in another form. Few-bit weights are compared on held-out text, or on --data."""
    from glasshouse.pipeline.export import export_model

    done = export_model(
        model, to.value, out, precision=precision.value, license=license, data=all_data(data, more)
    )
    typer.echo(f"{done.path}  {done.bytes_before / 1e6:.2f} MB -> {done.bytes_after / 1e6:.2f} MB")
    if done.bits_per_byte is not None:
        before, after = done.bits_per_byte
        typer.echo(f"bits per byte  {before:.4f} -> {after:.4f}  ({after / before - 1:+.2%})")
