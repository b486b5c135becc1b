"""What a policy learns from: prompts drawn, replies sampled, judged, and scored by policy and reference.

The common half of GRPO and PPO: their settings for it, the samples, the columns that tell of them, and when
the next are due. With ptx_coef every step also rehearses conversations that the policy has learnt before
("PPO-ptx", arXiv:2203.02155, section 3.5), so that what the reward says nothing about is not forgotten.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import zip_longest
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import Field, model_validator
from torch import Tensor

from glasshouse.alignment.judge import Judge, judged
from glasshouse.alignment.kl import k1, k3, per_reply
from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.reference import Reference
from glasshouse.alignment.rollouts import Rows, make_rows, sample_replies, score_rows
from glasshouse.core.errors import ConfigError
from glasshouse.core.seeds import derive
from glasshouse.data import IGNORE
from glasshouse.model import Transformer
from glasshouse.model.lora import LoRAConfig
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import LossSum, NextToken, TrainingConfig
from glasshouse.training.objective import TokenBatch


class RolloutConfig(TrainingConfig):
    """The loop's settings with smaller steps, and how replies are sampled.

    A row is a prompt with one reply: `batch_tokens` / `sequence_length` is the number of replies that are
    sampled at a time, and an epoch is a pass over the prompts.
    """

    batch_tokens: int = 16_384
    sequence_length: int = 256  # tokens of prompt and reply together, at most
    muon_lr: float = 0.001
    embed_lr: float = 0.001
    head_lr: float = 0.0004
    scalar_lr: float = 0.0005
    adapter_lr: float = 0.0002
    momentum_warmup_steps: int = 0
    log_every: int = Field(1, gt=0)
    group: int = Field(8, ge=1)  # replies to each prompt
    max_new_tokens: int = Field(128, gt=0)
    updates: int = Field(1, gt=0)  # steps on each set of rollouts
    clip: float = Field(0.2, gt=0, lt=1)  # matters from the second update on
    clip_high: float | None = Field(None, gt=0)  # None: as clip
    kl_coef: float = Field(0.04, ge=0)  # of the penalty for leaving the reference
    ptx_coef: float = Field(0.0, ge=0)  # of the fine-tuning loss on conversations learnt before
    ptx_rows: int = Field(16, gt=0)  # of sequence_length tokens, in every step
    ptx_replay: float = Field(0.0, ge=0)  # tokens of pre-training documents for each of those conversations'
    reference: str | None = None  # a model's folder; None: the model that training begins with
    lora: LoRAConfig | None = None  # train a low-rank adapter over the frozen model, which is the reference

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.rows_per_batch % self.group:
            raise ValueError(
                f"{self.rows_per_batch} replies at a time (batch_tokens / sequence_length) "
                f"are no whole groups of {self.group}"
            )
        if self.max_new_tokens >= self.sequence_length:
            raise ValueError("max_new_tokens must leave room for a prompt in sequence_length")
        return self

    @property
    def prompts_at_once(self) -> int:
        return self.rows_per_batch // self.group


@dataclass(frozen=True)
class ReplyBatch:
    """What every training batch of replies has (a `TrainingBatch`), all (replies, tokens); see `Rows`. And
    what is rehearsed beside them."""

    inputs: Tensor
    targets: Tensor
    segments: Tensor
    rehearsal: TokenBatch | None = field(default=None, kw_only=True)
    rehearsal_weight: float = field(default=0.0, kw_only=True)  # of its summed loss, beside the replies' sum

    @property
    def count(self) -> int:
        return int((self.targets != IGNORE).sum())

    @property
    def tokens(self) -> int:
        rehearsed = 0 if self.rehearsal is None else self.rehearsal.tokens
        return int((self.segments >= 0).sum()) + rehearsed

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The batch with every tensor of the replies changed; what is none stays."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(
            self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        )

    def split(self, rows: int | None) -> Iterator[Self]:
        step = rows or len(self.inputs)
        starts = range(0, len(self.inputs), step)
        parts = [self.each(lambda tensor, start=start: tensor[start : start + step]) for start in starts]
        if self.rehearsal is None:
            yield from parts
            return
        rehearsed = self.rehearsal.split(math.ceil(len(self.rehearsal.inputs) / len(parts)))
        for part, beside in zip_longest(parts, rehearsed):
            yield replace(part, rehearsal=beside)

    def to(self, device: str) -> Self:
        rehearsal = None if self.rehearsal is None else self.rehearsal.to(device)
        return replace(self.each(lambda tensor: tensor.to(device)), rehearsal=rehearsal)


@dataclass(frozen=True)
class Experience:
    """One set of rollouts; (replies, tokens), but for rewards (prompts, group)."""

    rows: Rows
    rewards: Tensor
    logprobs: Tensor  # of the policy that sampled
    reference_logprobs: Tensor | None
    about: dict[str, float]  # columns of metrics


@dataclass(frozen=True)
class Sampler:
    """Gives experience of a model; what it needs beside the model stays the same for a whole run."""

    prompts: Prompts
    tokenizer: Tokenizer
    judge: Judge
    config: RolloutConfig
    reference: Reference | None = None
    gold: Judge | None = None  # only measured

    def check(self, model: Transformer) -> None:
        """Raise ConfigError where the model's context cannot hold a row."""
        if self.config.sequence_length > model.config.context:
            raise ConfigError(
                f"sequence_length {self.config.sequence_length} is longer than the model's context of "
                f"{model.config.context}",
                fix=f"set sequence_length to at most {model.config.context}",
            )

    def identity(self) -> dict[str, Any]:
        """What the samples depend on beside settings and weights."""
        return {
            "prompts": self.prompts.sha256,
            "judge": self.judge.name,
            "gold": None if self.gold is None else self.gold.name,
            "reference": None if self.reference is None else self.reference.name,
        }

    def experience(self, model: Transformer, number: int) -> Experience:
        """The `number`th set of rollouts, a function of the model's weights and of what stays the same."""
        config = self.config
        chosen = self.prompts.choose(number, config.prompts_at_once, config.seed)
        seeds = [derive(config.seed, "rollouts", number, place) for place in range(len(chosen))]
        ids = [self.prompts.ids[i] for i in chosen]
        groups = sample_replies(model, self.tokenizer, ids, seeds, config.group, config.max_new_tokens)
        examples = [self.prompts.examples[i] for i in chosen]
        rewards = judged(self.judge, examples, groups)
        replies = [reply for group in groups for reply in group]
        rows = make_rows(replies)
        logprobs = score_rows(model, rows, config.micro_batch_rows)
        about = {
            "rollouts": number,
            "reward_proxy": float(rewards.mean()),
            "entropy": -float(logprobs[rows.mask].mean()),  # a sampled token's -logprob is right on average
            "reply_tokens": float(rows.mask.sum(-1).float().mean()),
            "ended": sum(reply.ended for reply in replies) / len(replies),
        }
        if self.gold is not None:
            about["reward_gold"] = float(judged(self.gold, examples, groups).mean())
        reference = None
        if self.reference is not None:
            reference = self.reference.score(model, rows, config.micro_batch_rows)
            about["kl"] = float(per_reply(k1(logprobs, reference), rows.mask).mean())
            about["kl_k3"] = float(per_reply(k3(logprobs, reference), rows.mask).mean())
        return Experience(rows, rewards, logprobs, reference, about)


C = TypeVar("C", bound=RolloutConfig)
B = TypeVar("B", bound=ReplyBatch)


class RolloutObjective(ABC, Generic[C]):
    """What the objectives of GRPO and PPO have in common: when rollouts begin, what they are of, and what is
    rehearsed beside them."""

    name: ClassVar[str]

    def __init__(self, sampler: Sampler, config: C, rehearsal: NextToken | None = None) -> None:
        self.sampler, self.config, self.rehearsal = sampler, config, rehearsal
        self._about: dict[str, float] = {}  # the newest rollouts
        self._rehearsed = 0.0  # summed loss of the newest step
        self._to_rehearse = 0  # tokens of it

    @property
    def steps_per_epoch(self) -> float:
        return len(self.sampler.prompts) / self.config.prompts_at_once * self.config.updates

    def check(self, model: Transformer) -> None:
        self.sampler.check(model)
        if self.rehearsal is not None:
            self.rehearsal.check(model)

    def identity(self) -> dict[str, Any]:
        own = {} if self.rehearsal is None else {"rehearsal": self.rehearsal.identity()}
        return {"objective": self.name, **self.sampler.identity(), **own}

    def begins(self, step: int) -> bool:
        return step % self.config.updates == 0

    def with_rehearsal(self, batch: B, step: int) -> B:
        """The batch of a step, with what is rehearsed in it."""
        if self.rehearsal is None:
            return batch
        beside = self.rehearsal.batch(step)
        self._rehearsed, self._to_rehearse = 0.0, beside.count
        weight = self.config.ptx_coef * batch.count / max(1, beside.count)
        return replace(batch, rehearsal=beside, rehearsal_weight=weight)

    def rehearsal_loss(self, model: Transformer, batch: ReplyBatch) -> Tensor | float:
        """As many times ptx_coef · the mean loss on what is rehearsed, as the replies' losses are summed."""
        if self.rehearsal is None or batch.rehearsal is None:
            return 0.0
        summed = self.rehearsal.loss(model, batch.rehearsal).loss_sum
        self._rehearsed += float(summed.detach())
        return batch.rehearsal_weight * summed

    def rehearsal_metrics(self) -> dict[str, float]:
        """rehearsal_loss, in nats a token, where something is rehearsed."""
        return {"rehearsal_loss": self._rehearsed / self._to_rehearse} if self._to_rehearse else {}

    @abstractmethod
    def batch(self, step: int) -> Any: ...

    @abstractmethod
    def loss(self, model: Transformer, batch: Any) -> LossSum: ...
