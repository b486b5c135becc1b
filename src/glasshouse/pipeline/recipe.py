"""Recipes: a YAML file, its shipped relatives, and the settings given on the command line, as one object.

    name: my-model          # also the default run folder, runs/my-model
    extends: pocket         # optional: take another recipe's settings and change some
    seed: 1
    tokenizer: {vocab_size: 1024}
    sft: null               # leaves a stage out

A stage runs when its section is there. Every default stands in the class of the room that reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from glasshouse.core.config import Config, apply_overrides, load_yaml, nearest
from glasshouse.core.errors import ConfigError
from glasshouse.core.model_folders import TRAINING_STAGES, resolve_model
from glasshouse.model import ModelConfig, read_config
from glasshouse.pipeline.stages.calibrate import CalibrateStage
from glasshouse.pipeline.stages.constitution import EXACT, ConstitutionStage
from glasshouse.pipeline.stages.context import ContextStage
from glasshouse.pipeline.stages.corpus import CorpusConfig
from glasshouse.pipeline.stages.evaluate import EvaluateConfig
from glasshouse.pipeline.stages.own_samples import RejectionStage, RoundsStage
from glasshouse.pipeline.stages.preferences import DPOStage, RewardStage
from glasshouse.pipeline.stages.pretrain import PretrainStage
from glasshouse.pipeline.stages.reinforcement import GRPOStage, PPOStage
from glasshouse.pipeline.stages.report import ReportConfig
from glasshouse.pipeline.stages.sft import SFTStage
from glasshouse.pipeline.stages.tokenizer import TokenizerConfig
from glasshouse.world import WorldConfig

STAGES = ("corpus", "tokenizer", *TRAINING_STAGES, "evaluate", "report")

ALIGNMENT_STAGES: dict[str, type[Any]] = {
    "reward": RewardStage,
    "rejection": RejectionStage,
    "dpo": DPOStage,
    "grpo": GRPOStage,
    "ppo": PPOStage,
    "rounds": RoundsStage,
    "constitution": ConstitutionStage,
    "calibrate": CalibrateStage,
}
"""Stages after sft, which learn from the user's `data` or from the recipe's world."""

SECTIONS_WITH_ROWS: dict[str, type[Any]] = {"pretrain": PretrainStage, "sft": SFTStage} | {
    name: stage for name, stage in ALIGNMENT_STAGES.items() if "sequence_length" in stage.model_fields
}


class Recipe(Config):
    name: str = Field(min_length=1, pattern=r"^[\w][\w.-]*$")
    seed: int = Field(1, ge=0)
    device: str = "auto"
    rate_per_hour: float | None = Field(None, ge=0)
    """What an hour of this machine costs, for the report; left out, costs stay unknown."""
    base: str | None = None
    """A model folder to start from, with its tokenizer, instead of an untrained model."""
    world: WorldConfig | None = None
    corpus: CorpusConfig | None = None
    tokenizer: TokenizerConfig | None = None
    model: ModelConfig | None = None
    pretrain: PretrainStage | None = None
    context: ContextStage | None = None
    sft: SFTStage | None = None
    reward: RewardStage | None = None
    rejection: RejectionStage | None = None
    dpo: DPOStage | None = None
    grpo: GRPOStage | None = None
    ppo: PPOStage | None = None
    rounds: RoundsStage | None = None
    constitution: ConstitutionStage | None = None
    calibrate: CalibrateStage | None = None
    evaluate: EvaluateConfig | None = None
    report: ReportConfig | None = None

    @classmethod
    def parse(cls, mapping: Mapping[str, Any], source: str = "settings") -> Self:
        """Validate a recipe. `base` may be any MODEL of the command line and becomes its folder.

        Raises ConfigError for the recipe, UsageError or ModelError for a base that is not there or broken.
        """
        return super().parse(_on_its_base(mapping, source), source)

    @model_validator(mode="before")
    @classmethod
    def _vocabulary_from_tokenizer(cls, data: Any) -> Any:
        """The model is as wide as its tokenizer: its size is written once, in the tokenizer's section."""
        if not isinstance(data, Mapping) or not isinstance(data.get("model"), Mapping):
            return data
        if "vocab_size" in data["model"]:
            raise ConfigError("model.vocab_size is the tokenizer's", fix="set tokenizer.vocab_size")
        section = data.get("tokenizer")
        default = TokenizerConfig.model_fields["vocab_size"].default
        size = section.get("vocab_size", default) if isinstance(section, Mapping) else default
        return {**data, "model": {**data["model"], "vocab_size": size}}

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        own_text = self.corpus is not None and bool(self.corpus.data)
        if own_text and self.world is not None:
            raise ConfigError(
                "this recipe's text comes from its invented world",
                fix="take the recipe own-text for your data",
            )
        if self.corpus is not None and not own_text and self.world is None:
            raise ConfigError("there is no text to read", fix="name your files or folders with --data PATH")
        alone = self.sft is not None and self.corpus is None and self.pretrain is None and self.model is None
        if self.base is None and alone:
            raise ConfigError("there is no model to start from", fix="name one with --base MODEL")
        if self.base is None:
            needs = {"tokenizer": "corpus", "model": "tokenizer", "pretrain": "model", "sft": "pretrain"}
            needs["context"] = "pretrain"
        else:
            needs = {"pretrain": "corpus", "context": "corpus"}
            if self.tokenizer is not None or self.model is not None:
                raise ConfigError(
                    "the base model brings its own tokenizer and shape",
                    where="base",
                    fix="leave out the sections tokenizer and model",
                )
        for section, before in needs.items():
            if getattr(self, section) is not None and getattr(self, before) is None:
                raise ConfigError(f"{section} needs the section {before}", fix=f"add {before} to the recipe")
        if self.sft is not None and not self.sft.data and self.world is None:
            raise ConfigError(
                "sft has no conversations to learn from",
                fix="name your files with --data PATH, or set sft.data",
            )
        for name in ("sft", "rejection"):
            section = getattr(self, name)
            if section is not None and section.replay and self.corpus is None:
                fix = f"add a corpus, or set {name}.replay=0"
                raise ConfigError(f"{name}.replay has no documents to take", fix=fix)
        if self.sft is not None and self.sft.validation_fraction and not self.sft.data:
            raise ConfigError(
                "sft.validation_fraction holds out rows of sft.data, which names no file",
                fix="set sft.data, or sft.validation_fraction=0",
            )
        held_out = self.sft is not None and bool(self.sft.validation_fraction)
        if self.evaluate is not None and self.corpus is None and self.world is None and not held_out:
            raise ConfigError(
                "evaluate has nothing to ask",
                fix="set sft.validation_fraction=0.05, or add a corpus or a world to the recipe",
            )
        self._alignment_fits()
        self._rows_fit_the_context()
        return self

    def _alignment_fits(self) -> None:
        for name in ALIGNMENT_STAGES:
            section = getattr(self, name)
            if section is None:
                continue
            if self.base is None and self.pretrain is None:
                raise ConfigError(f"{name} has no model to start from", fix="name one: base: MODEL")
            if not section.data and self.world is None:
                raise ConfigError(f"{name} has nothing to learn from", fix=f"set {name}.data, or add a world")
        if self.calibrate is not None and self.calibrate.replay and self.corpus is None:
            raise ConfigError(
                "calibrate.replay has no documents to take", fix="add a corpus, or set calibrate.replay=0"
            )
        if self.ppo is not None and self.reward is None and self.ppo.reward_model is None:
            raise ConfigError(
                "ppo has no reward model", fix="add the section reward, or set ppo.reward_model"
            )
        for name, policy in (("ppo", self.ppo), ("grpo", self.grpo)):
            if policy is not None and policy.ptx_coef and not policy.earlier_data and self.sft is None:
                raise ConfigError(
                    f"{name}.ptx_coef has no conversations to rehearse",
                    fix=f"set {name}.earlier_data, add the section sft, or set {name}.ptx_coef=0",
                )
            if policy is not None and policy.ptx_coef and policy.ptx_replay and self.corpus is None:
                raise ConfigError(
                    f"{name}.ptx_replay has no documents to take",
                    fix=f"add a corpus, or set {name}.ptx_replay=0",
                )
        if self.constitution is not None:
            self._constitution_fits(self.constitution)

    def _constitution_fits(self, section: ConstitutionStage) -> None:
        own = self.world is None or bool(section.data)
        if section.critic == EXACT and own:
            raise ConfigError(
                "the exact critic knows the invented world's requests alone",
                where="constitution.critic",
                fix='set constitution.critic to "self" or to a model, or leave out constitution.data',
            )
        if section.ai_share < 1 and own:
            raise ConfigError(
                "only the invented world has raters who label the other pairs",
                where="constitution.ai_share",
                fix="set constitution.ai_share=1",
            )
        if section.rehearses and self.sft is None:
            raise ConfigError(
                "constitution.rehearsal and constitution.grpo.ptx_coef have no conversations to take",
                fix="add the section sft, or set both to 0",
            )
        if section.supervised is not None and section.supervised.replay and self.corpus is None:
            raise ConfigError(
                "constitution.supervised.replay has no documents to take",
                fix="add a corpus, or set constitution.supervised.replay=0",
            )

    def _rows_fit_the_context(self) -> None:
        for name in TRAINING_STAGES:
            stage = getattr(self, name)
            if name == "context":
                continue
            context = self.model.max_position_embeddings if self.model is not None else None
            key = "model.max_position_embeddings"
            if name != "pretrain" and self.context is not None and self.context.scaling != "dynamic":
                context, key = self.context.max_position_embeddings, "context.max_position_embeddings"
            if stage is not None and context is not None and stage.sequence_length > context:
                raise ConfigError(
                    f"{name}.sequence_length ({stage.sequence_length}) is longer than the model's context "
                    f"({context})",
                    fix=f"set {key}={stage.sequence_length}",
                )

    @property
    def stages(self) -> list[str]:
        """The stages of this recipe, in order."""
        return [stage for stage in STAGES if getattr(self, stage) is not None]

    def settings(self) -> dict[str, Any]:
        """Everything as resolved, as plain YAML values: parsing it again gives the same recipe."""
        result = {
            name: section_settings(value) if isinstance(value, Config) else value
            for name, value in ((name, getattr(self, name)) for name in type(self).model_fields)
            if value is not None
        }
        result.get("model", {}).pop("vocab_size", None)
        return result

    def to_yaml(self, versions: Mapping[str, Any]) -> str:
        head = "".join(f"# {name}: {value}\n" for name, value in versions.items())
        return head + yaml.safe_dump(self.settings(), sort_keys=False, allow_unicode=True, width=100)


def _on_its_base(settings: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The settings with `base` as a folder, and rows as long as its context allows where nothing is said.

    Raises ConfigError for rows that are set to be longer.
    """
    base = settings.get("base")
    if not isinstance(base, str):
        return settings
    folder = resolve_model(base)
    result = {**settings, "base": str(folder)}
    context = read_config(folder).max_position_embeddings
    for name, stage in SECTIONS_WITH_ROWS.items():
        section = settings.get(name)
        if not isinstance(section, Mapping) or "sequence_length" not in stage.model_fields:
            continue
        length = section.get("sequence_length")
        if length is None:
            default: int = stage.model_fields["sequence_length"].default
            result[name] = {**section, "sequence_length": min(default, context)}
        elif isinstance(length, int) and length > context:
            raise ConfigError(
                f"{name}.sequence_length ({length}) is longer than the context of the base ({context})",
                where=source,
                fix=f"set {name}.sequence_length={context}, or leave it out",
            )
    return result


def section_settings(section: Config) -> dict[str, Any]:
    """A section's values; a seed or device that is not its own but the recipe's is left out."""
    inherited = {"seed", "device"} - section.model_fields_set
    return section.model_dump(mode="json", exclude=inherited)


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("glasshouse") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(
    recipe: str | Path,
    *,
    data: Iterable[str] = (),
    overrides: Iterable[str] | Mapping[str, Any] = (),
    device: str | None = None,
) -> Recipe:
    """Resolve a shipped recipe's name or a YAML file; raises ConfigError naming the key and the fix.

    `overrides`: ["sft.tokens=7"] or {"sft.tokens": 7}. `data` names the user's own text; a recipe that has no
    corpus takes it as its conversations and documents to fine-tune on.

    >>> load_recipe("own-text", data=["books/"], overrides={"seed": 7}).seed
    7
    """
    settings, source = _read(str(recipe))
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    settings = apply_overrides(settings, overrides)
    if data := tuple(data):
        tuned_only = settings.get("corpus") is None and settings.get("sft") is not None
        section = "sft" if tuned_only else "corpus"
        settings = apply_overrides(settings, [f"{section}.data={json.dumps([str(d) for d in data])}"])
    if device is not None:
        settings["device"] = device
    return Recipe.parse(settings, source)


def _read(recipe: str, seen: tuple[str, ...] = ()) -> tuple[dict[str, Any], str]:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        settings, source = load_yaml(path), str(path)
    else:
        names = shipped_recipes()
        if recipe not in names:
            close = nearest(recipe, names)
            hint = f"did you mean '{close}'? " if close else ""
            raise ConfigError(
                f"no recipe is called '{recipe}'", fix=f"{hint}take one of {', '.join(names)}, or a YAML file"
            )
        text = (resources.files("glasshouse") / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
        settings, source = yaml.safe_load(text), f"recipe {recipe}"
    parent = settings.pop("extends", None)
    if parent is not None:
        if not isinstance(parent, str) or recipe in seen:
            raise ConfigError("'extends' must name one other recipe, without a circle", where=source)
        settings = _merge(_read(parent, (*seen, recipe))[0], settings)
    return settings, source


def _merge(base: Any, change: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        return {**base, **{key: _merge(base.get(key), value) for key, value in change.items()}}
    return change
