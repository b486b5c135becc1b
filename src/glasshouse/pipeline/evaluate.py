"""The probes of any model, outside of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glasshouse.core.config import apply_overrides
from glasshouse.core.errors import UsageError
from glasshouse.core.model_folders import resolve_model
from glasshouse.pipeline.held_out import HeldOut, of_run, stretches
from glasshouse.pipeline.recipe import Recipe, load_recipe
from glasshouse.pipeline.run import load
from glasshouse.pipeline.stages.corpus import VALIDATION
from glasshouse.pipeline.stages.evaluate import EvaluateConfig, ask, ask_held_out, held_out_texts
from glasshouse.pipeline.summary import RECIPE


def evaluate_model(
    model: str | None = None,
    *,
    suite: str | None = None,
    data: Iterable[str] = (),
    settings: Iterable[str] = (),
    device: str | None = None,
    like: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Probe -> {"value", "low", "high", "n"}. A model of a run is asked about that run's world, text or rows.

    `suite` is "world" or "text"; the latter reads `data`, or else what the run held out. `like`: another
    model, to be compared with, whose run says what is asked. Raises UsageError where there is nothing to ask.
    """
    folder = resolve_model(model)
    asked = folder if like is None else resolve_model(like)
    run = asked.parent.parent
    recipe = load_recipe(run / RECIPE) if (run / RECIPE).is_file() else None
    given = recipe.evaluate.model_dump() if recipe is not None and recipe.evaluate is not None else {}
    config = EvaluateConfig.parse(apply_overrides(given, settings), "eval")
    data = tuple(data)
    if suite is None:
        suite = "text" if data or recipe is None or recipe.world is None else "world"
    if suite == "world":
        return ask(config, load(folder, device or "auto"), _world(recipe), [])
    texts = texts_for(asked, data, config.text_bytes)
    rows = held_out_rows(asked) if not data and not texts else None
    if not texts and rows is None:
        raise UsageError("there is no text to score", fix="name some with --data PATH")
    opened = load(folder, device or "auto")
    return ask_held_out(config, opened, rows)[0] if rows is not None else ask(config, opened, None, texts)


def texts_for(folder: Path, data: tuple[str, ...], limit: int) -> list[str]:
    """About `limit` bytes of the user's texts, or of what the model's own run held out; else nothing."""
    held_out = folder.parent.parent / "corpus" / VALIDATION
    if data:
        return _texts(data, limit)
    return held_out_texts(held_out, limit) if held_out.is_file() else []


def held_out_rows(folder: Path) -> HeldOut | None:
    """The rows that the model's own run kept from fine-tuning, if any."""
    run = folder.parent.parent
    recipe = load_recipe(run / RECIPE) if (run / RECIPE).is_file() else None
    return None if recipe is None or recipe.sft is None else of_run(run, recipe.sft.sequence_length)


def _world(recipe: Recipe | None) -> Any:
    """The world of the model's own run; any other model is asked about the default recipe's."""
    from glasshouse.world import World

    if recipe is None or recipe.world is None:
        recipe = load_recipe("pocket")
    assert recipe.world is not None
    return World(recipe.world, recipe.seed)


def _texts(data: Iterable[str], limit: int) -> list[str]:
    """The first `limit` bytes, about, of the user's documents, in stretches."""
    from glasshouse.files import read_documents

    texts: list[str] = []
    left = limit
    for document in read_documents([Path(path) for path in data]):
        for piece in stretches(document["text"]):
            texts.append(piece)
            left -= len(piece.encode("utf-8"))
            if left <= 0:
                return texts
    return texts
