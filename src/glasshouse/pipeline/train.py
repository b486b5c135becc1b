"""One training stage alone: the recipe that a `glasshouse train` command stands for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from glasshouse.core.config import apply_overrides
from glasshouse.pipeline.models import resolve_model
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


def train_on_pairs(
    stage: Literal["reward", "dpo"],
    model: str,
    data: Iterable[str],
    out: str | Path,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """Train on preference pairs from MODEL; `settings` are those of RewardStage or DPOStage, "epochs=2"."""
    recipe = {
        "name": stage,
        "base": str(resolve_model(model)),
        "device": device or "auto",
        stage: apply_overrides({"data": list(data)}, settings),
        "report": {},
    }
    return run_recipe(Recipe.parse(recipe, f"train {stage}"), out=out)


def train_on_prompts(
    stage: Literal["rejection", "ppo", "grpo"],
    model: str,
    data: Iterable[str],
    out: str | Path,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """Reward MODEL's own replies; `settings` are those of RejectionStage, PPOStage or GRPOStage, "n=4"."""
    recipe = {
        "name": stage,
        "base": str(resolve_model(model)),
        "device": device or "auto",
        stage: apply_overrides({"data": list(data), "epochs": 1.0}, settings),
        "report": {},
    }
    return run_recipe(Recipe.parse(recipe, f"train {stage}"), out=out)


def train_constitution(
    model: str,
    data: Iterable[str],
    out: str | Path,
    constitution: str,
    critic: str,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """Train MODEL by principles; `settings` are those of ConstitutionStage, "supervised.epochs=3"."""
    section = {"data": list(data), "constitution": constitution, "critic": critic}
    recipe = {
        "name": "constitution",
        "base": str(resolve_model(model)),
        "device": device or "auto",
        "constitution": apply_overrides(section, settings),
        "report": {},
    }
    return run_recipe(Recipe.parse(recipe, "train constitution"), out=out)


def train_calibrate(
    model: str,
    data: Iterable[str],
    out: str | Path,
    settings: Iterable[str] = (),
    device: str | None = None,
) -> Run:
    """Calibrate MODEL on questions with answers; `settings` are those of CalibrateStage, "samples=16"."""
    recipe = {
        "name": "calibrate",
        "base": str(resolve_model(model)),
        "device": device or "auto",
        "calibrate": apply_overrides({"data": list(data)}, settings),
        "report": {},
    }
    return run_recipe(Recipe.parse(recipe, "train calibrate"), out=out)


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
