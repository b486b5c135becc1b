"""Group relative policy optimisation (arXiv:2402.03300): several replies to a prompt, judged by a program.

Each set of rollouts: some prompts, `group` replies to each from the current policy, a reward for each from
the judge, advantages against the others of its group, and `updates` steps on them (grpo_loss.py). No value
head and no reward model: a verifier, such as a calculator or the invented world's own, is the judge.

    out/model/ state/    what the training loop leaves; with lora also adapter/
    out/metrics.jsonl    beside the loop's columns, of the newest rollouts: reward_proxy, reward_gold, kl and
                         kl_k3 (nats a reply), entropy (nats a token), reply_tokens, ended (share),
                         same_reward (share of the groups that teach nothing), clipped_fraction, and
                         rehearsal_loss (nats a token)
    out/rehearsal/       with ptx_coef: the encoded conversations

Rollouts depend on the weights, the step and the seed alone, so a killed run continues exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from glasshouse.alignment.advantages import group_advantages
from glasshouse.alignment.experience import ReplyBatch, RolloutConfig, RolloutObjective, Sampler
from glasshouse.alignment.grpo_loss import Normalisation, grpo_loss, token_weights
from glasshouse.alignment.judge import Judge
from glasshouse.alignment.policy import JudgeOf, Policy
from glasshouse.alignment.ppo_loss import is_clipped
from glasshouse.alignment.rollouts import token_logprobs
from glasshouse.model import Transformer
from glasshouse.training import LossSum, NextToken


class GRPOConfig(RolloutConfig):
    """How replies are sampled, and how GRPO learns from them."""

    group: int = Field(8, ge=2)  # replies to each prompt
    correct_kl: bool = True  # the penalty's gradient is that of KL(policy ‖ reference)
    scale_rewards: bool = True  # divide by the group's deviation
    normalisation: Normalisation = "token"


@dataclass(frozen=True)
class GRPOBatch(ReplyBatch):
    """Rollouts with what the loss needs; (replies, tokens), but for advantages and counts (replies,)."""

    old_logprobs: Tensor
    reference_logprobs: Tensor | None
    weights: Tensor
    advantages: Tensor
    counts: Tensor

    @property
    def count(self) -> int:
        return int(self.counts.sum())


class GRPO(RolloutObjective[GRPOConfig]):
    """The objective: an `Objective` and `OnPolicy` (training/objective.py)."""

    name = "grpo"

    def __init__(self, sampler: Sampler, config: GRPOConfig, rehearsal: NextToken | None = None) -> None:
        super().__init__(sampler, config, rehearsal)
        self._batch: GRPOBatch | None = None
        self._clipped = 0  # tokens in the newest step

    def sample(self, model: Transformer, step: int) -> None:
        config = self.config
        new = self.sampler.experience(model, step // config.updates)
        rows, rewards = new.rows, new.rewards
        weights, counts = token_weights(rows.mask, config.normalisation, config.max_new_tokens)
        advantages = group_advantages(rewards, scale=config.scale_rewards).flatten()
        self._batch = GRPOBatch(
            rows.inputs,
            rows.targets,
            rows.segments,
            new.logprobs,
            new.reference_logprobs,
            weights,
            advantages,
            counts,
        )
        same = (rewards == rewards[:, :1]).all(1).float().mean()
        self._about = {**new.about, "same_reward": float(same)}

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Step and weights decide everything."""

    def batch(self, step: int) -> GRPOBatch:
        assert self._batch is not None, "the loop samples before it asks"
        self._clipped = 0
        return self.with_rehearsal(self._batch, step)

    def loss(self, model: Transformer, batch: GRPOBatch) -> LossSum:
        config = self.config
        logprobs = token_logprobs(model, batch.inputs, batch.targets, batch.segments)
        clips = {"clip": config.clip, "clip_high": config.clip_high}
        # The only update on its rollouts is on the policy's own samples: the ratio is 1, rounding apart.
        old = logprobs.detach() if config.updates == 1 else batch.old_logprobs
        advantages = batch.advantages[:, None]
        clipped = is_clipped(logprobs, old, advantages, **clips)
        self._clipped += int((clipped & (batch.weights > 0)).sum())
        loss = grpo_loss(
            logprobs,
            old,
            batch.advantages,
            batch.weights,
            reference_logprobs=batch.reference_logprobs,
            kl_coef=config.kl_coef,
            correct_kl=config.correct_kl,
            **clips,
        )
        return LossSum(loss + self.rehearsal_loss(model, batch), batch.count)

    def metrics(self) -> dict[str, float]:
        assert self._batch is not None
        clipped = self._clipped / int((self._batch.weights > 0).sum())
        return {**self._about, "clipped_fraction": clipped, **self.rehearsal_metrics()}


def grpo(
    model_folder: str | Path,
    examples: Iterable[Mapping[str, Any]],
    judge: Judge | JudgeOf,
    out: str | Path,
    config: GRPOConfig,
    *,
    gold: Judge | None = None,
    rehearsal: Iterable[Mapping[str, Any]] = (),
    replay: Iterable[str] = (),
) -> dict[str, Any]:
    """Train the Hugging Face folder `model_folder` by the judge's rewards; returns the loop's summary.

    `examples`: {"prompt": [messages]} and whatever else the judge wants to know. Prompts that leave no room
    for `max_new_tokens` in a row are left out and counted. `gold` is only measured, never trained on: what
    is really meant, beside what the judge can check. `rehearsal` are conversations {"messages": [...]} for
    ptx_coef, and `replay` texts of pre-training for ptx_replay. The summary's "alarms" tell what went wrong
    (diagnostics.py). Raises DataError for an empty prompt, or when no prompt or nothing to rehearse is left,
    and ModelError for a reference of other shapes or another tokenizer.
    """
    policy = Policy.open(model_folder, config)
    sampler = policy.sampler(examples, judge, gold, compared=config.kl_coef > 0)
    return policy.learn(GRPO(sampler, config, policy.rehearsal(rehearsal, Path(out), replay)), Path(out))
