"""What a recipe will do: its steps in order, each with the key that says when two results are the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glasshouse.alignment.constitution import Constitution
from glasshouse.core.config import nearest
from glasshouse.core.errors import DataError, UsageError
from glasshouse.core.model_folders import MODEL_STAGES, TRAINING_STAGES, resolve_model
from glasshouse.core.record import stage_key
from glasshouse.core.seeds import derive
from glasshouse.core.storage import hash_file, hash_folder
from glasshouse.model import read_config
from glasshouse.pipeline.recipe import ALIGNMENT_STAGES, STAGES, Recipe, section_settings
from glasshouse.world import CONVERSATION_FIELDS


@dataclass(frozen=True)
class Step:
    """One stage, or the evaluation of one model; both have a folder, a key and a record of their own."""

    name: str  # its folder in the run: "pretrain", "evaluation/pretrain"
    until: str  # the step belongs to a run `--until` this stage
    config: dict[str, Any]  # everything of the recipe that its result depends on
    seed: int
    inputs: dict[str, str] = field(default_factory=dict)  # step name -> key
    user_files: dict[str, str] = field(default_factory=dict)  # path -> hash of its content
    key: str = ""

    @property
    def evaluates(self) -> str | None:
        """The model that this step evaluates: a stage's, or "init" / "base" for what came before all."""
        return self.name.removeprefix("evaluation/") if self.name.startswith("evaluation/") else None


def plan(recipe: Recipe) -> list[Step]:
    """The steps of a recipe; reads the user's files for their hashes, and raises DataError without them."""
    steps: dict[str, Step] = {}

    def add(name: str, until: str, config: dict[str, Any], inputs: Iterable[str], **rest: Any) -> None:
        keys = {before: steps[before].key for before in inputs if before in steps}
        seed, user_files = rest.get("seed", recipe.seed), rest.get("user_files", {})
        key = stage_key(name, config, keys, user_files, seed)
        steps[name] = Step(name, until, config, seed, keys, user_files, key)

    world = {"world": recipe.world.model_dump(mode="json")} if recipe.world is not None else {}
    # What is said in conversations changes no document and no probe: such a setting regrows sft only.
    land = {}
    if recipe.world is not None:
        land["world"] = recipe.world.model_dump(mode="json", exclude=set(CONVERSATION_FIELDS))
    base = _hashes([str(resolve_model(recipe.base))]) if recipe.base is not None else {}
    if recipe.context is not None:
        recipe.context.after(recipe.model or read_config(resolve_model(recipe.base)))
    if recipe.corpus is not None:
        config = recipe.corpus.model_dump(mode="json", exclude={"data"})
        add("corpus", "corpus", {**config, **land}, [], user_files=_hashes(recipe.corpus.data))
    if recipe.tokenizer is not None:
        add("tokenizer", "tokenizer", recipe.tokenizer.model_dump(mode="json"), ["corpus"])

    # Without a world and a corpus the rows that sft does not learn from are what a model is measured on.
    measured_on, rows = {}, {}
    if recipe.sft is not None and recipe.world is None and recipe.corpus is None:
        kept = {"validation_fraction", "sequence_length"}
        measured_on = {"held_out": recipe.sft.model_dump(mode="json", include=kept)}
        rows = _hashes(recipe.sft.data)

    start = {"model": recipe.model.model_dump(mode="json")} if recipe.model is not None else {}
    model_steps = [stage for stage in TRAINING_STAGES if getattr(recipe, stage) is not None]

    def add_evaluation(model: str, until: str, config: dict[str, Any], **rest: Any) -> None:
        if recipe.evaluate is None:
            return
        config = {
            **recipe.evaluate.model_dump(mode="json", exclude={"baselines"}),
            **land,
            **measured_on,
            **config,
        }
        rest["user_files"] = {**rest.get("user_files", {}), **rows}
        measured_with = ["sft", "reward"] if model in ALIGNMENT_STAGES else []
        add(f"evaluation/{model}", until, config, ["corpus", "tokenizer", *measured_with, model], **rest)

    if model_steps:
        first = "init" if recipe.base is None else "base"
        weights = {**start, "init_seed": init_seed(recipe)} if recipe.base is None else {}
        add_evaluation(first, model_steps[0], weights, user_files=base)
    for i, stage in enumerate(model_steps):
        section = getattr(recipe, stage)
        config = _training_settings(section)
        # A reward model is no policy: what comes after it starts from the model before.
        inputs = [before for before in model_steps[:i] if before in MODEL_STAGES][-1:]
        user_files = {} if inputs else base
        if stage == "pretrain":
            config, inputs = {"model": start.get("model"), **config}, ["corpus", "tokenizer"]
        if stage == "context":
            inputs += ["corpus", "tokenizer"]
        if stage == "sft":
            config.pop("data")
            if not section.weights:
                config.pop("weights")
            config.update(world if not section.data else {})
            inputs += ["corpus"] if section.replay else []
            user_files = {**user_files, **_hashes(section.data)}
        if stage in ALIGNMENT_STAGES:
            config.pop("data")
            config.update(land if not section.data else {})
            user_files = {**user_files, **_hashes(section.data)}
        if stage == "calibrate":
            config.pop("earlier_data")
            config.update(world if not section.data else {})
            inputs += ["corpus"] if section.replay else []
            user_files |= _hashes(section.earlier_data)
        if stage == "rejection":
            inputs += ["corpus"] if section.replay else []
        if getattr(section, "reference", None) is not None:
            user_files |= _hashes([section.reference])
        if stage in ("ppo", "rejection"):
            inputs += ["reward"] if section.reward_model is None else []
            user_files |= _hashes([section.reward_model] if section.reward_model is not None else [])
        if stage in ("ppo", "grpo"):
            config.pop("earlier_data")
            user_files |= _hashes(section.earlier_data)
            rehearses = section.ptx_coef and not section.earlier_data
            inputs += ["sft"] if rehearses and "sft" not in inputs else []
            inputs += ["corpus"] if section.ptx_coef and section.ptx_replay else []
        if stage == "constitution":
            config["constitution"] = Constitution.load(section.constitution).model_dump(mode="json")
            inputs += ["sft"] if section.rehearses and "sft" not in inputs else []
            inputs += ["corpus"] if section.supervised is not None and section.supervised.replay else []
            if section.critic_model is not None:
                config.pop("critic")
                user_files |= _hashes([str(resolve_model(section.critic_model))])
        seed = stage_seed(recipe, stage)
        add(stage, stage, config, inputs, seed=seed, user_files=user_files)
        if stage in MODEL_STAGES:
            add_evaluation(stage, stage, {})
    if recipe.evaluate is not None and recipe.evaluate.baselines and recipe.world is not None:
        add_evaluation("baselines", "evaluate", world, user_files=base)
    return list(steps.values())


def stage_seed(recipe: Recipe, stage: str) -> int:
    """A training stage's seed: its own where the recipe gives one, else a stream of the recipe's.

    32 bits of it, so that every reader of JSON keeps the number exactly.
    """
    section = getattr(recipe, stage)
    return section.seed if "seed" in section.model_fields_set else derive(recipe.seed, stage) >> 31


def init_seed(recipe: Recipe) -> int:
    """The seed of the untrained weights."""
    return stage_seed(recipe, "pretrain") if recipe.pretrain is not None else recipe.seed


def _training_settings(section: Any) -> dict[str, Any]:
    """Where the work runs does not name the result; its seed stands beside the settings."""
    settings = section_settings(section)
    return {name: value for name, value in settings.items() if name not in ("seed", "device")}


def _hashes(paths: Iterable[str]) -> dict[str, str]:
    result = {}
    for path in paths:
        if not Path(path).exists():
            raise DataError("no such file or folder", where=path, fix="check the path")
        try:
            result[path] = hash_folder(path) if Path(path).is_dir() else hash_file(path)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=error.filename or path) from None
    return result


def up_to(steps: list[Step], recipe: Recipe, until: str | None) -> list[Step]:
    """The steps of a run that ends with the stage `until`; raises UsageError when the recipe lacks it."""
    if until is None:
        return steps
    if until not in recipe.stages:
        close = nearest(until, recipe.stages)
        hint = f"did you mean {close}? " if close else ""
        raise UsageError(
            f"the recipe {recipe.name} has no stage '{until}'",
            fix=f"{hint}its stages are {', '.join(recipe.stages)}",
        )
    last = STAGES.index(until)
    return [step for step in steps if STAGES.index(step.until) <= last]
