"""Does the steps of a plan: finds the inputs of each in the run folder and calls its stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glasshouse.core.model_folders import MODEL_STAGES, resolve_model, reward_folder
from glasshouse.core.progress import say
from glasshouse.core.storage import read_json
from glasshouse.pipeline.plan import Step, init_seed, stage_seed
from glasshouse.pipeline.recipe import ALIGNMENT_STAGES, Recipe
from glasshouse.pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel
    from glasshouse.model import Transformer
    from glasshouse.pipeline.held_out import HeldOut
    from glasshouse.pipeline.stages.evaluate import RewardedBy
    from glasshouse.pipeline.stages.reinforcement import GRPOStage, PPOStage
    from glasshouse.tokenizer import Tokenizer
    from glasshouse.world import World


class Work:
    """The steps of one recipe in one folder; what several of them need is made once."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        self.recipe, self.folder = recipe, folder
        self._peaks: dict[tuple[str, str], float] = {}

    @cached_property
    def world(self) -> World | None:
        from glasshouse.world import World

        return None if self.recipe.world is None else World(self.recipe.world, self.recipe.seed)

    @cached_property
    def base(self) -> Path | None:
        return None if self.recipe.base is None else resolve_model(self.recipe.base)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from glasshouse.tokenizer import Tokenizer

        return Tokenizer.load(self.base or self.folder.stage("tokenizer"))

    def do(self, step: Step, out: Path) -> dict[str, Any]:
        """Returns what the stage reports about itself."""
        if step.evaluates is not None:
            return self._evaluate(step.evaluates, out)
        match step.name:
            case "corpus":
                return self._corpus(out)
            case "tokenizer":
                return self._tokenizer(out)
            case "pretrain":
                return self._pretrain(out)
            case "context":
                return self._context(step, out)
            case "sft":
                return self._sft(step, out)
            case "reward":
                return self._reward(step, out)
            case "rejection":
                return self._rejection(step, out)
            case "rounds":
                return self._rounds(step, out)
            case "dpo":
                return self._dpo(step, out)
            case "grpo":
                return self._grpo(step, out)
            case "ppo":
                return self._ppo(step, out)
            case "constitution":
                return self._constitution(step, out)
            case "calibrate":
                return self._calibrate(step, out)
        raise AssertionError(f"no stage {step.name}")

    def _corpus(self, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.corpus import corpus

        assert self.recipe.corpus is not None
        return corpus(self.recipe.corpus, out, self.recipe.seed, self.world)

    def _tokenizer(self, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.tokenizer import tokenizer

        assert self.recipe.tokenizer is not None
        return tokenizer(self.recipe.tokenizer, self.folder.stage("corpus"), out, self.recipe.seed)

    def _pretrain(self, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.pretrain import pretrain

        config = self._here(self.recipe.pretrain, "pretrain")
        return pretrain(config, self._start(), self.tokenizer, self.folder.stage("corpus"), out)

    def _context(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.context import context

        config = self._here(self.recipe.context, "context")
        encoded = out if self.recipe.pretrain is None else self.folder.stage("pretrain")
        before, corpus = self._model_before(step), self.folder.stage("corpus")
        return context(config, before, self.tokenizer, corpus, out, encoded / "shards")

    def _sft(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.sft import sft

        config = self._here(self.recipe.sft, "sft")
        corpus = self.folder.stage("corpus") if self.recipe.corpus is not None and config.replay else None
        return sft(config, self._model_before(step), self._rows, out, corpus)

    def _reward(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.preferences import reward

        return reward(self._here(self.recipe.reward, "reward"), self._model_before(step), out, self.world)

    def _rejection(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.replay import replayed
        from glasshouse.pipeline.stages.own_samples import rejection

        config = self._here(self.recipe.rejection, "rejection")
        reward = self.folder.stage("reward") / "model" if "reward" in step.inputs else None
        if config.reward_model is not None:
            reward = reward_folder(config.reward_model)
        corpus = self.folder.stage("corpus") if config.replay else None
        texts = replayed(corpus, "rejection", config.seed)
        return rejection(config, self._model_before(step), out, self.world, reward, texts)

    def _rounds(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.own_samples import rounds

        return rounds(self._here(self.recipe.rounds, "rounds"), self._model_before(step), out, self.world)

    def _dpo(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.preferences import dpo

        return dpo(self._here(self.recipe.dpo, "dpo"), self._model_before(step), out, self.world)

    def _grpo(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.reinforcement import grpo

        config = self._here(self.recipe.grpo, "grpo")
        conversations, corpus = self._rehearsed(config)
        return grpo(config, self._model_before(step), out, self.world, conversations, corpus)

    def _ppo(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.reinforcement import ppo

        config = self._here(self.recipe.ppo, "ppo")
        reward = self.folder.stage("reward") / "model"
        if config.reward_model is not None:
            reward = reward_folder(config.reward_model)
        conversations, corpus = self._rehearsed(config)
        return ppo(config, self._model_before(step), reward, out, self.world, conversations, corpus)

    def _constitution(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.constitution import constitution

        config = self._here(self.recipe.constitution, "constitution")
        replays = config.supervised is not None and config.supervised.replay
        return constitution(
            config,
            self._model_before(step),
            out,
            self.world,
            self._rehearsal if config.rehearses else tuple,
            self.folder.stage("corpus") if replays else None,
        )

    def _rehearsed(self, config: GRPOStage | PPOStage) -> tuple[Iterable[Mapping[str, Any]], Path | None]:
        """The conversations that a policy's stage rehearses, and the folder of its documents."""
        from glasshouse.files import read_examples

        if not config.ptx_coef:
            return (), None
        corpus = self.folder.stage("corpus") if config.ptx_replay else None
        return read_examples(config.earlier_data) if config.earlier_data else self._rehearsal(), corpus

    def _rehearsal(self) -> Iterable[Mapping[str, Any]]:
        """The conversations that sft has learnt from, as far as a later stage should repeat them."""
        from glasshouse.pipeline.replay import settled
        from glasshouse.pipeline.stages.sft import CONVERSATIONS, read

        assert self.recipe.sft is not None
        stored = read(self.folder.stage("sft") / CONVERSATIONS)
        rows = (row for row in stored if "messages" in row)
        return rows if self.recipe.sft.data else settled(rows)

    def _calibrate(self, step: Step, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.calibrate import calibrate

        config = self._here(self.recipe.calibrate, "calibrate")
        corpus = self.folder.stage("corpus") if self.recipe.corpus is not None and config.replay else None
        return calibrate(config, self._model_before(step), out, self.world, corpus)

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        """What sft learns from and holds out, from the beginning."""
        assert self.recipe.sft is not None
        if self.recipe.sft.data:
            return self.recipe.sft.rows()
        assert self.world is not None
        return self.world.conversations("train")

    @cached_property
    def _held_out(self) -> HeldOut | None:
        """The user's rows to measure on, in a recipe without a world and a corpus."""
        from glasshouse.pipeline.held_out import HeldOut, split

        config = self.recipe.sft
        if config is None or self.recipe.world is not None or self.recipe.corpus is not None:
            return None
        rows = [row for part, row in split(self._rows, config.validation_fraction) if part == "held out"]
        if not rows:
            say("notice: too few conversations to hold one out, so nothing measures the model on them")
        return HeldOut(rows, config.sequence_length)

    def _evaluate(self, model: str, out: Path) -> dict[str, Any]:
        from glasshouse.pipeline.stages.corpus import VALIDATION
        from glasshouse.pipeline.stages.evaluate import evaluate, score_baselines

        config, held_out = self.recipe.evaluate, self.folder.stage("corpus") / VALIDATION
        assert config is not None
        if model == "baselines":
            assert self.world is not None
            score_baselines(config, self.tokenizer, self.world, out)
        else:
            validation = held_out if self.recipe.corpus is not None else None
            evaluate(
                config,
                self._language_model(model),
                out,
                world=self.world,
                validation=validation,
                held_out=self._held_out,
                rewards=self._rewarded_by(model),
                last=model == self._last_model,
            )
        return {}

    @property
    def _last_model(self) -> str | None:
        grown = [stage for stage in MODEL_STAGES if getattr(self.recipe, stage) is not None]
        return grown[-1] if grown else None

    def _rewarded_by(self, model: str) -> RewardedBy | None:
        """None for models that were never taught to reply."""
        from glasshouse.pipeline.stages.evaluate import RewardedBy

        if model != "sft" and model not in ALIGNMENT_STAGES:
            return None
        before = {
            name: self.folder.stage(name) / "model" if getattr(self.recipe, name) is not None else None
            for name in ("sft", "reward")
        }
        return RewardedBy(before["sft"], before["reward"]) if model != "sft" else RewardedBy()

    def _here(self, section: Any, stage: str) -> Any:
        """A training section with the seed and device that it takes from the recipe."""
        device = section.device if "device" in section.model_fields_set else self.recipe.device
        return section.model_copy(update={"seed": stage_seed(self.recipe, stage), "device": device})

    def _start(self) -> Transformer:
        """The weights before the first training stage."""
        from glasshouse.model import load
        from glasshouse.pipeline.stages.pretrain import untrained

        if self.base is not None:
            return load(self.base)
        assert self.recipe.model is not None
        return untrained(self.recipe.model, self.tokenizer, init_seed(self.recipe))

    def _model_before(self, step: Step) -> Path:
        stage = next((name for name in step.inputs if name in MODEL_STAGES), None)
        if stage is not None:
            return self.folder.stage(stage) / "model"
        assert self.base is not None
        return self.base

    def _language_model(self, model: str) -> LanguageModel:
        from glasshouse.inference import LanguageModel

        if model == "init":
            return LanguageModel(self._start(), self.tokenizer)
        folder = self.base if model == "base" else self.folder.stage(model) / "model"
        assert folder is not None
        return LanguageModel.load(folder, device=self.recipe.device)

    def peak(self, out: Path) -> float | None:
        """What the machine can do at best with the number format that a stage used; measured once.

        Only for a recipe with a report: nothing else shows it, and the measurement takes a moment.
        """
        from glasshouse.core.devices import peak_flops
        from glasshouse.training.environment import STATE

        environment = out / STATE
        if self.recipe.report is None or not environment.is_file():
            return None
        settled = read_json(environment)
        kind = (settled["device"], settled["dtype"])
        if kind not in self._peaks:
            self._peaks[kind] = peak_flops(*kind)
        return self._peaks[kind]
