"""One training stage alone: the recipe that a `glasshouse train` command stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glasshouse.core.config import apply_overrides
from glasshouse.core.model_folders import resolve_model
from glasshouse.pipeline.recipe import Recipe, load_recipe
from glasshouse.pipeline.run import Run, run_recipe


def train_sft(
    model: str,
    data: Iterable[str],
    out: str | Path,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """Fine-tune MODEL on conversations and documents; `settings` are those of SFTStage, "epochs=2"."""
    recipe = {
        "name": "sft",
        "base": str(resolve_model(model)),
        "device": device or "auto",
        "sft": apply_overrides({"data": list(data)}, settings),
    }
    return run_recipe(Recipe.parse(recipe, "train sft"), out=out)


def train_stage(
    stage: str,
    model: str,
    section: Mapping[str, Any],
    out: str | Path,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """One stage of alignment, from MODEL: its `section` of a recipe, and `settings` on top ("epochs=2")."""
    recipe = {
        "name": stage,
        "base": str(resolve_model(model)),
        "device": device or "auto",
        stage: apply_overrides(dict(section), settings),
        "report": {},
    }
    return run_recipe(Recipe.parse(recipe, f"train {stage}"), out=out)


def train_pretrain(
    data: Iterable[str],
    out: str | Path,
    model: str | None = None,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """Pre-train on files of text; `settings` are those of PretrainStage, "tokens=2_000_000"."""
    changes = [f"pretrain.{setting}" for setting in settings]
    changes += ["name=pretrain", "evaluate=null", "report=null"]
    if model is not None:
        changes += [f"base={resolve_model(model)}", "tokenizer=null", "model=null"]
    return run_recipe(load_recipe("own-text", data=data, overrides=changes, device=device), out=out)


def train_context(
    model: str,
    data: Iterable[str],
    out: str | Path,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """Extend MODEL's window on files of long texts; `settings` are those of ContextStage."""
    changes = ["context={}", *(f"context.{setting}" for setting in settings)]
    changes += ["name=context", "evaluate=null", "report=null"]
    changes += [f"base={resolve_model(model)}", "tokenizer=null", "model=null", "pretrain=null"]
    return run_recipe(load_recipe("own-text", data=data, overrides=changes, device=device), out=out)
