"""ppo and grpo: what is learnt from replies of the model's own, and what they are rewarded for.

ppo/model/ state/ metrics.jsonl          a policy, rewarded by the reward stage's model
grpo/model/ state/ metrics.jsonl         a policy, rewarded by a program
ppo/adapter/ grpo/adapter/               with lora

Prompts are the user's, or requests of the recipe's world; then the world's exact judge measures gold reward
beside what is trained on, and is itself the program that rewards grpo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from glasshouse.alignment.grpo import GRPOConfig
from glasshouse.alignment.grpo import grpo as optimise_by_groups
from glasshouse.alignment.judge import AgainstReference, LearntJudge, Program
from glasshouse.alignment.ppo import PPOConfig
from glasshouse.alignment.ppo import ppo as optimise
from glasshouse.alignment.reward_model import HELD_OUT, RewardModel
from glasshouse.alignment.shared_trunk import on_trunk
from glasshouse.alignment.verifiers import ANSWERS
from glasshouse.core.config import Config
from glasshouse.core.errors import UsageError
from glasshouse.core.progress import say
from glasshouse.core.storage import hash_file, read_json
from glasshouse.files import read_prompts
from glasshouse.inference import LanguageModel
from glasshouse.model import Transformer
from glasshouse.pipeline.replay import replayed
from glasshouse.tokenizer import Tokenizer
from glasshouse.training.environment import settle
from glasshouse.world import World
from glasshouse.world.judge import judge
from glasshouse.world.preferences import PreferenceCounts


class PromptData(Config):
    data: tuple[str, ...] = ()
    """The user's prompts: files or folders; without them requests of the recipe's world."""
    world_prompts: PreferenceCounts = PreferenceCounts()
    """How many requests of each kind of the world there are."""


class EarlierData(Config):
    earlier_data: tuple[str, ...] = ()
    """Conversations to rehearse with ptx_coef: files or folders; left out, those of the stage sft."""


class PPOStage(PPOConfig, PromptData, EarlierData):
    reward_model: str | None = None
    """A reward model's folder; left out, that of the recipe's reward stage."""
    least_reward_accuracy: float = Field(0.6, ge=0, le=1)
    """Of the reward model on held-out pairs, at the low end of its interval; PPO does not start below."""
    centre_advantages: bool = False
    """A reply like the reference's own is rewarded by 0. Below a mean above 0 it would be unlearnt: a model
    praised for its open replies began to deny people whom it knows."""


class GRPOStage(GRPOConfig, PromptData, EarlierData):
    pass


def ppo(
    config: PPOStage,
    model: Path,
    reward: Path,
    out: Path,
    world: World | None = None,
    rehearsal: Iterable[Mapping[str, Any]] = (),
    corpus: Path | None = None,
) -> dict[str, Any]:
    """Train the policy in `model` by the reward model in `reward`; returns summary, counts and alarms.

    Replies are rewarded by how much better they are than what `model` says to the prompt at temperature 0.
    With lora, a reward model that is an adapter on the same weights shares them. `rehearsal` are
    conversations that the model has learnt from, for ptx_coef; `corpus` is the folder of the documents, for
    ptx_replay. Raises UsageError for a reward model that is
    not good enough, ModelError for one of another tokenizer.
    """
    check_accuracy(reward, config.least_reward_accuracy)
    name = f"reward model {hash_file(reward / 'model.safetensors')}"

    prompts = examples(config, world)

    def proxy(policy: Transformer) -> AgainstReference:
        shared = on_trunk(policy, reward) if config.lora is not None else None
        around = settle(out, config)
        scorer = shared or RewardModel.load(reward, device=around.device, products=around.torch_dtype)
        scorer.check_policy(Tokenizer.load(model))
        speaker = LanguageModel.load(model)
        return AgainstReference.greedy(LearntJudge(name, scorer), prompts, speaker, config.max_new_tokens)

    texts = replayed(corpus, "ppo", config.seed)
    exact = gold(config, world)
    return optimise(model, prompts, proxy, out, config, gold=exact, rehearsal=rehearsal, replay=texts)


def grpo(
    config: GRPOStage,
    model: Path,
    out: Path,
    world: World | None = None,
    rehearsal: Iterable[Mapping[str, Any]] = (),
    corpus: Path | None = None,
) -> dict[str, Any]:
    """Train the policy in `model` by a program: the world's judge, or the answers in the user's rows.

    `rehearsal` are conversations that the model has learnt from, for ptx_coef; `corpus` is the folder of the
    documents, for ptx_replay.
    """
    exact = gold(config, world)
    rows = examples(config, world)
    texts = replayed(corpus, "grpo", config.seed)
    return optimise_by_groups(
        model, rows, exact or ANSWERS, out, config, gold=exact, rehearsal=rehearsal, replay=texts
    )


def check_accuracy(reward: Path, least: float) -> None:
    """Raise UsageError unless the reward model is right often enough on pairs that it has not seen."""
    measured = reward.parent / HELD_OUT
    if not measured.is_file():
        say("notice: nothing tells how good this reward model is; watch the replies")
        return
    accuracy = read_json(measured)["accuracy"]
    if accuracy is not None and accuracy["low"] < least:
        raise UsageError(
            f"the reward model is right in {accuracy['value']:.2f} (at least {accuracy['low']:.2f}) of the "
            f"held-out pairs, and PPO would cheat one below {least:g}",
            where=reward,
            fix="train it on more pairs, or go on with least_reward_accuracy=0",
        )


def examples(config: PromptData, world: World | None) -> list[Mapping[str, Any]]:
    """Rows with a prompt, and what else they say."""
    if config.data:
        return list(read_prompts(config.data))
    assert world is not None, "the recipe says where prompts come from"
    rows: list[Mapping[str, Any]] = []
    for kind, count in config.world_prompts.model_dump().items():
        tasks = islice(world.tasks(kind, "feedback", "prompts"), count)
        rows += [{"prompt": task.messages, "kind": kind} for task in tasks]
    world.rng("prompts").shuffle(rows)
    return rows


def gold(config: PromptData, world: World | None) -> Program | None:
    """The world's exact judge, for its own requests."""
    if config.data or world is None:
        return None
    exact = judge(world)
    return Program(f"judge of world {world.seed}", lambda row, reply: exact(row["prompt"], reply))
