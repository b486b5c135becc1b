"""reward and dpo: what is learnt from preference pairs, of the user's files or the world's simulated raters.

reward/pairs/ dpo/pairs/                 the encoded pairs; held_out/: those that it does not learn from
reward/model/ state/ metrics.jsonl       a reward model; reward/held_out.json: how good it is
reward/raters.json                       ... against the world's raters, on requests held out of training
                                         and on people that no rater was asked about
dpo/model/ state/ metrics.jsonl          a policy; with lora also dpo/adapter/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from glasshouse.alignment.dpo import DPOConfig
from glasshouse.alignment.dpo import dpo as optimise
from glasshouse.alignment.rater_agreement import rater_agreement
from glasshouse.alignment.reward_model import RewardConfig, RewardModel, reward_model
from glasshouse.core.config import Config
from glasshouse.core.progress import say
from glasshouse.core.seeds import derive
from glasshouse.core.storage import write_json
from glasshouse.files import read_preferences
from glasshouse.training.environment import settle
from glasshouse.world import World
from glasshouse.world.preferences import PreferenceConfig, preferences

Pair = Mapping[str, Any]

RATERS = "raters.json"


class PreferenceData(Config):
    data: tuple[str, ...] = ()
    """The user's pairs: files or folders; without them the raters of the recipe's world give theirs."""
    validation_fraction: float = Field(0.1, ge=0, lt=0.5)
    """Share of the prompts, with all their pairs, that is kept from training to measure on."""
    world_pairs: PreferenceConfig = PreferenceConfig()
    """How many pairs of the world there are, and what its raters are like."""


class RewardStage(RewardConfig, PreferenceData):
    pass


class DPOStage(DPOConfig, PreferenceData):
    pass


def reward(config: RewardStage, model: Path, out: Path, world: World | None = None) -> dict[str, Any]:
    """Train a reward model on the folder `model`; returns summary, counts and quality."""
    learnt, held_out = pairs(config, world)
    result = reward_model(model, learnt, out, config, held_out)
    if not config.data and world is not None:
        around, raters = settle(out, config), config.world_pairs.raters
        trained = RewardModel.load(out / "model", device=around.device, products=around.torch_dtype)
        others = list(preferences(world, config.world_pairs, "heldout"))
        measured = {"held_out": held_out, "other_people": others}
        found = {name: rater_agreement(trained, rows, raters) for name, rows in measured.items() if rows}
        write_json(out / RATERS, found)
    return result


def dpo(config: DPOStage, model: Path, out: Path, world: World | None = None) -> dict[str, Any]:
    """Train the policy in the folder `model` on pairs; returns summary and counts."""
    learnt, held_out = pairs(config, world)
    return optimise(model, learnt, out, config, held_out)


def pairs(config: PreferenceData, world: World | None) -> tuple[list[Pair], list[Pair]]:
    """(what is learnt from, what is held out)."""
    if config.data:
        return split(read_preferences(config.data), config.validation_fraction)
    assert world is not None, "the recipe says where pairs come from"
    return split(preferences(world, config.world_pairs), config.validation_fraction)


def split(pairs: Iterable[Pair], fraction: float) -> tuple[list[Pair], list[Pair]]:
    """(what is learnt from, what is held out): pairs of one prompt stay together.

    Chosen by the prompt alone, so that another order or more rows move none from one side to the other.
    """
    parts: tuple[list[Pair], list[Pair]] = [], []
    for pair in pairs:
        number = derive(0, json.dumps(pair["prompt"], sort_keys=True)) / (1 << 63)
        parts[number < fraction].append(pair)
    if fraction and not parts[1]:
        say("notice: no prompt happened to be held out of so few, so nothing measures the model on them")
    return parts
