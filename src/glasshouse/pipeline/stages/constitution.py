"""constitution: a policy learns from written principles, with AI labels instead of raters' or beside them.

constitution/critiques.jsonl         replies, critiques and revisions, readable
constitution/supervised/             fine-tuning on the revisions: model/ state/ metrics.jsonl
constitution/comparisons.jsonl       pairs of replies, and the principle by which one was chosen
constitution/preference_model/       a reward model from them; held_out.json: how good it is
constitution/model/ state/ metrics.jsonl    the policy
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pydantic import Field

from glasshouse.alignment.constitution import Constitution
from glasshouse.alignment.constitutional import ConstitutionalConfig, constitutional
from glasshouse.alignment.critique import Critic, LLMCritic
from glasshouse.alignment.world_critics import ExactCritic, SimulatedRaters
from glasshouse.core.model_folders import resolve_model
from glasshouse.core.storage import hash_folder
from glasshouse.llm import LocalLLM
from glasshouse.pipeline.replay import replayed
from glasshouse.pipeline.stages.reinforcement import PromptData, examples, gold
from glasshouse.world import World
from glasshouse.world.raters import RaterConfig

EXACT, SELF = "exact", "self"


class ConstitutionStage(ConstitutionalConfig, PromptData):
    constitution: str = "general"
    """A YAML file, or the name of a shipped one: general, world."""
    critic: str = SELF
    """"self", the model that is trained; "exact", the judge of the recipe's world; or another MODEL."""
    critique_tokens: int = Field(256, ge=1)
    """Length of what a language model says as a critic."""
    raters: RaterConfig = RaterConfig()
    """The world's raters, who label what ai_share leaves them."""

    @property
    def critic_model(self) -> str | None:
        """The MODEL that is critic beside the one that is trained."""
        return None if self.critic in (EXACT, SELF) else self.critic


def constitution(
    config: ConstitutionStage,
    model: Path,
    out: Path,
    world: World | None = None,
    rehearsal: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
    corpus: Path | None = None,
) -> dict[str, Any]:
    """Train the policy in `model`; returns counts, summary and alarms.

    `rehearsal()` begins the conversations that it has learnt from; `corpus` is the folder of the documents.
    """
    principles = Constitution.load(config.constitution)
    replay = replayed(corpus, "constitution", config.seed)
    folder = model if config.critic_model is None else resolve_model(config.critic_model)
    exact = config.critic == EXACT
    with nullcontext() if exact else LocalLLM.load(folder, config.device, raw=True) as llm:
        if llm is None:
            assert world is not None, "the recipe says whose judge it is"
            critic: Critic = ExactCritic(world, principles)
        else:
            llm.name = hash_folder(folder)  # the path may change while it is the same model
            critic = LLMCritic(llm, config.critique_tokens)
        return constitutional(
            model,
            examples(config, world),
            principles,
            critic,
            out,
            config,
            rehearsal=rehearsal,
            replay=replay,
            raters=None if world is None or config.data else SimulatedRaters(world, config.raters),
            gold=gold(config, world),
        )
