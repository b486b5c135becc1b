"""Proximal policy optimisation from a reward (arXiv:1707.06347, as in InstructGPT, arXiv:2203.02155).

Each set of rollouts: replies to some prompts, a reward for each from the judge (a reward model, or a
program), less a KL penalty at every token; advantages by GAE from a value head on the policy's trunk; and
`updates` steps on them, each on one of `minibatches` parts.

    out/model/ state/    what the training loop leaves; the model is saved without its value head. With lora
                         also adapter/: the reference is then the same weights with it switched off
    out/metrics.jsonl    beside the loop's columns, of the newest rollouts: reward_proxy, reward_gold, kl and
                         kl_k3 (nats a reply), kl_coef, entropy (nats a token), reply_tokens, ended (share),
                         explained_variance (of the returns, before learning), clipped_fraction, and
                         rehearsal_loss (nats a token)
    out/rehearsal/       with ptx_coef: the encoded conversations

Weights, step, seed and the KL coefficient decide the rollouts; all are in a checkpoint, so a killed run
continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from torch import Tensor

from glasshouse.alignment.advantages import gae, token_rewards, whiten
from glasshouse.alignment.diagnostics import explained_variance
from glasshouse.alignment.experience import ReplyBatch, RolloutConfig, RolloutObjective, Sampler
from glasshouse.alignment.judge import Judge
from glasshouse.alignment.kl import AdaptiveCoefficient, FixedCoefficient, k1
from glasshouse.alignment.packed_rows import pack_rows
from glasshouse.alignment.policy import JudgeOf, Policy
from glasshouse.alignment.ppo_loss import entropy, is_clipped, policy_loss, value_loss
from glasshouse.alignment.value_head import add_value_head, score_values, values_of
from glasshouse.data import IGNORE
from glasshouse.model import Transformer
from glasshouse.training import LossSum, NextToken


class PPOConfig(RolloutConfig):
    """How replies are sampled, and how PPO learns from them."""

    group: int = Field(1, ge=1)  # replies to each prompt
    updates: int = Field(4, gt=0)  # steps on each set of rollouts
    minibatches: int = Field(1, gt=0)  # parts of a set; each step takes the next one
    kl_target: float | None = Field(None, gt=0)  # nats a reply, to which a kl_coef above 0 adapts
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)  # of GAE
    value_coef: float = Field(0.1, ge=0)
    value_clip: float | None = Field(0.2, gt=0)  # None: no clip
    entropy_coef: float = Field(0.0, ge=0)
    whiten_rewards: bool = False  # to mean square 1
    whiten_advantages: bool = True  # to mean square 1
    centre_advantages: bool = True  # and to mean 0, when whitened; not where a reward of 0 means "as before"

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.updates % self.minibatches or self.rows_per_batch % self.minibatches:
            raise ValueError(
                f"{self.minibatches} minibatches must divide {self.updates} updates and "
                f"{self.rows_per_batch} replies, or some would be learnt from more often"
            )
        return self


@dataclass(frozen=True)
class PPOBatch(ReplyBatch):
    """Rollouts with what the loss needs, all (replies, tokens)."""

    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


class PPO(RolloutObjective[PPOConfig]):
    """The objective: an `Objective` and `OnPolicy` (training/objective.py) for a model with a value head."""

    name = "ppo"

    def __init__(self, sampler: Sampler, config: PPOConfig, rehearsal: NextToken | None = None) -> None:
        """`sampler` needs a reference: the KL is measured even where it costs nothing."""
        assert sampler.reference is not None
        super().__init__(sampler, config, rehearsal)
        self.coefficient: FixedCoefficient | AdaptiveCoefficient = FixedCoefficient(config.kl_coef)
        if config.kl_target is not None and config.kl_coef:
            self.coefficient = AdaptiveCoefficient(config.kl_coef, config.kl_target)
        self._batch: PPOBatch | None = None
        self._clipped = self._tokens = 0  # of the newest step

    def state(self) -> dict[str, float]:
        return {"kl_coef": self.coefficient.value}

    def restore(self, state: dict[str, float]) -> None:
        if isinstance(self.coefficient, AdaptiveCoefficient):
            assert self.config.kl_target is not None
            self.coefficient = AdaptiveCoefficient(state["kl_coef"], self.config.kl_target)

    def sample(self, model: Transformer, step: int) -> None:
        config = self.config
        new = self.sampler.experience(model, step // config.updates)
        rows, mask = new.rows, new.rows.mask
        assert new.reference_logprobs is not None
        kl = k1(new.logprobs, new.reference_logprobs)
        rewards = token_rewards(new.rewards.flatten(), kl, mask, self.coefficient.value)
        if config.whiten_rewards:
            rewards = whiten(rewards, mask, centre=False)
        values = score_values(model, rows.inputs, rows.targets, rows.segments, config.micro_batch_rows)
        advantages, returns = gae(rewards, values, mask, config.gamma, config.lam)
        self._about = {**new.about, "kl_coef": self.coefficient.value}
        explained = explained_variance(values, returns, mask)
        if not math.isnan(explained):
            self._about["explained_variance"] = explained
        if config.whiten_advantages:
            advantages = whiten(advantages, mask, centre=config.centre_advantages)
        self._batch = PPOBatch(
            rows.inputs, rows.targets, rows.segments, new.logprobs, values, advantages, returns
        )
        self.coefficient = self.coefficient.after(new.about["kl"])

    def batch(self, step: int) -> PPOBatch:
        assert self._batch is not None, "the loop samples before it asks"
        self._clipped = self._tokens = 0
        part, parts = step % self.config.updates % self.config.minibatches, self.config.minibatches
        return self.with_rehearsal(self._batch.each(lambda tensor: tensor[part::parts]), step)

    def loss(self, model: Transformer, batch: PPOBatch) -> LossSum:
        """Summed over the replies' tokens: policy + value_coef · value - entropy_coef · entropy; and as many
        times ptx_coef · the mean loss on what is rehearsed."""
        config, mask = self.config, batch.targets != IGNORE
        packed = pack_rows(batch.inputs, batch.targets, batch.segments, model.config.context)
        states = packed.states(model).index_select(0, packed.places[mask])
        logits = model.head(states).float()  # (tokens, vocab); all that follows is (tokens,)
        logprobs = logits.gather(-1, batch.targets[mask][:, None])[:, 0] - logits.logsumexp(-1)
        old, advantages = batch.old_logprobs[mask], batch.advantages[mask]
        loss = policy_loss(logprobs, old, advantages, config.clip, config.clip_high)
        if config.value_coef:
            values = values_of(model, states)
            error = value_loss(values, batch.old_values[mask], batch.returns[mask], config.value_clip)
            loss = loss + config.value_coef * error
        if config.entropy_coef:
            loss = loss - config.entropy_coef * entropy(logits)
        self._clipped += int(is_clipped(logprobs, old, advantages, config.clip, config.clip_high).sum())
        self._tokens += len(loss)
        return LossSum(loss.sum() + self.rehearsal_loss(model, batch), batch.count)

    def metrics(self) -> dict[str, float]:
        clipped = self._clipped / max(1, self._tokens)
        return {**self._about, "clipped_fraction": clipped, **self.rehearsal_metrics()}


def ppo(
    model_folder: str | Path,
    examples: Iterable[Mapping[str, Any]],
    judge: Judge | JudgeOf,
    out: str | Path,
    config: PPOConfig,
    *,
    gold: Judge | None = None,
    rehearsal: Iterable[Mapping[str, Any]] = (),
    replay: Iterable[str] = (),
) -> dict[str, Any]:
    """Train the Hugging Face folder `model_folder` by the judge's rewards; returns the loop's summary.

    `examples`: {"prompt": [messages]} and whatever else the judge wants to know. Prompts that leave no room
    for `max_new_tokens` in a row are left out and counted. `gold` is only measured, never trained on.
    `rehearsal` are conversations {"messages": [...]} for ptx_coef, and `replay` texts of pre-training for
    ptx_replay. The summary's "alarms" tell what went wrong (diagnostics.py). Raises DataError for an empty
    prompt, or when no prompt or nothing to rehearse is left, and ModelError for a reference of other shapes
    or another tokenizer.
    """
    out = Path(out)
    policy = Policy.open(model_folder, config)
    add_value_head(policy.model)
    sampler = policy.sampler(examples, judge, gold)
    return policy.learn(PPO(sampler, config, policy.rehearsal(rehearsal, out, replay)), out)
