"""rejection and rounds: what is learnt from the policy's own replies, chosen or compared.

rejection/best.jsonl judged.json         the best of n replies to each prompt, as a judge finds
rejection/model/ state/ metrics.jsonl    the model fine-tuned on them; with lora also adapter/
rounds/round-1/ round-2/ ...             what raters compared, a reward model and a policy, again and again
rounds/model/ metrics.jsonl              the last policy, and the rows of all
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glasshouse.alignment.judge import Judge, LearntJudge
from glasshouse.alignment.raters import Rater, higher_score, simulated_rater
from glasshouse.alignment.rejection import RejectionConfig
from glasshouse.alignment.rejection import rejection as learn_from_the_best
from glasshouse.alignment.reward_model import RewardModel
from glasshouse.alignment.rounds import RoundsConfig
from glasshouse.alignment.rounds import rounds as iterate
from glasshouse.alignment.verifiers import ANSWERS
from glasshouse.core.storage import hash_file
from glasshouse.pipeline.stages.reinforcement import PromptData, examples, gold
from glasshouse.tokenizer import Tokenizer
from glasshouse.world import World
from glasshouse.world.raters import RaterConfig


class RejectionStage(RejectionConfig, PromptData):
    reward_model: str | None = None
    """A reward model's folder; left out, that of the recipe's reward stage; without one a program judges."""


class RoundsStage(RoundsConfig, PromptData):
    raters: RaterConfig = RaterConfig()
    """What the world's raters are like; the user's rows are compared by their answers."""


def rejection(
    config: RejectionStage,
    model: Path,
    out: Path,
    world: World | None = None,
    reward: Path | None = None,
    replay: Iterable[str] = (),
) -> dict[str, Any]:
    """Fine-tune the model on its own best replies; returns summary and counts.

    The judge is the reward model in `reward`, else the world's, else the answers in the user's rows. Raises
    ModelError for a reward model of another tokenizer.
    """
    judge: Judge = gold(config, world) or ANSWERS
    if reward is not None:
        scorer = RewardModel.load(reward)
        scorer.check_policy(Tokenizer.load(model))
        judge = LearntJudge(f"reward model {hash_file(reward / 'model.safetensors')}", scorer)
    rows = examples(config, world)
    return learn_from_the_best(model, rows, judge, out, config, replay=replay, gold=gold(config, world))


def rounds(config: RoundsStage, model: Path, out: Path, world: World | None = None) -> dict[str, Any]:
    """Iterate on the policy in `model`; returns a summary of all rounds."""

    def rater_of(number: int) -> Rater:
        if config.data or world is None:
            return higher_score(ANSWERS)
        return simulated_rater(world, config.raters, "round", number)

    return iterate(model, examples(config, world), rater_of, out, config, gold=gold(config, world))
