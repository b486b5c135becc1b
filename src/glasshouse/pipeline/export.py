"""Models go out: a clean Hugging Face folder with a card, a GGUF file, or our own weights in few bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glasshouse.core.errors import UsageError
from glasshouse.core.model_folders import resolve_model
from glasshouse.pipeline.evaluate import held_out_rows, texts_for
from glasshouse.pipeline.model_card import card

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel
    from glasshouse.pipeline.held_out import HeldOut

TEXT_BYTES = 200_000
"""Held-out text on which few-bit weights are compared with the whole ones, about."""

FORMATS = ("hf", "gguf", "int8", "int4", "nf4")


@dataclass(frozen=True)
class Exported:
    """What was written; `bits_per_byte` before and after where precision was lost and there is text."""

    path: Path
    bytes_before: int
    bytes_after: int
    bits_per_byte: tuple[float, float] | None = None


def export_model(
    model: str | None,
    to: str,
    out: str | Path,
    *,
    precision: str = "F16",
    license: str | None = None,
    data: Iterable[str] = (),
) -> Exported:
    """Write MODEL in another form. `precision` is that of a GGUF file; `data` are texts to measure few-bit
    weights on, by default what the model's own run held out.

    Raises UsageError for an unknown form and where `out` exists, ModelError where the form cannot hold the
    model exactly as it is.
    """
    if to not in FORMATS:
        raise UsageError(f"no format is called '{to}'", fix=f"use one of: {', '.join(FORMATS)}")
    folder, out = resolve_model(model), Path(out)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UsageError("something is there already", where=out, fix="choose another path")
    before = _size(folder)
    if to == "gguf":
        return Exported(out, before, _to_gguf(folder, out, precision))
    if to == "hf":
        return Exported(out, before, _to_hf(folder, out, license))
    data = tuple(data)
    texts = texts_for(folder, data, TEXT_BYTES)
    rows = held_out_rows(folder) if not data and not texts else None
    return _to_few_bits(folder, out, to, texts, rows, before)


def _to_hf(folder: Path, out: Path, license: str | None) -> int:
    from glasshouse.core.storage import write_text
    from glasshouse.inference import LanguageModel
    from glasshouse.model import save

    found = LanguageModel.load(folder, device="cpu")
    save(found.model, found.tokenizer, out)
    write_text(out / "README.md", card(folder, out, license))
    return _size(out)


def _size(model: Path) -> int:
    """Bytes of a GGUF file, or of a folder's weights."""
    files = [model] if model.is_file() else model.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def _to_gguf(folder: Path, out: Path, precision: str) -> int:
    from glasshouse.inference import LanguageModel
    from glasshouse.model.gguf_file import save_gguf

    found = LanguageModel.load(folder, device="cpu")
    save_gguf(found.model, found.tokenizer, out, precision)  # type: ignore[arg-type]
    return out.stat().st_size


def _to_few_bits(
    folder: Path, out: Path, scheme: str, texts: list[str], rows: HeldOut | None, before: int
) -> Exported:
    from glasshouse.inference import LanguageModel
    from glasshouse.model import save
    from glasshouse.model.quantize import quantize_model

    model = LanguageModel.load(folder, device="cpu")
    plain = _measured(model, texts, rows)
    quantize_model(model.model, scheme)  # type: ignore[arg-type]
    save(model.model, model.tokenizer, out)
    after = _size(out)
    rounded = _measured(model, texts, rows)
    change = None if plain is None or rounded is None else (plain, rounded)
    return Exported(out, before, after, change)


def _measured(model: LanguageModel, texts: list[str], rows: HeldOut | None) -> float | None:
    """Bits per byte of the texts, or else of the rows."""
    from glasshouse.evaluation import bits_per_byte
    from glasshouse.pipeline import held_out

    if texts:
        return bits_per_byte(model, texts).value
    estimate = held_out.bits_per_byte(model, rows, TEXT_BYTES) if rows is not None else None
    return None if estimate is None else estimate.value
