"""What a policy learns from: prompts drawn, replies sampled, judged, and scored by policy and reference.

The common half of GRPO and PPO: their settings for it, the samples, the columns that tell of them, and when
the next are due.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
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
from glasshouse.training import LossSum, TrainingConfig


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
    """What every training batch of replies has (a `TrainingBatch`), all (replies, tokens); see `Rows`."""

    inputs: Tensor
    targets: Tensor
    segments: Tensor

    @property
    def count(self) -> int:
        return int((self.targets != IGNORE).sum())

    @property
    def tokens(self) -> int:
        return int((self.segments >= 0).sum())

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The batch with every tensor changed; what is none stays."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        )

    def split(self, rows: int | None) -> Iterator[Self]:
        step = rows or len(self.inputs)
        for start in range(0, len(self.inputs), step):
            yield self.each(lambda tensor, start=start: tensor[start : start + step])

    def to(self, device: str) -> Self:
        return self.each(lambda tensor: tensor.to(device))


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


class RolloutObjective(ABC, Generic[C]):
    """What the objectives of GRPO and PPO have in common: when rollouts begin, and what they are of."""

    name: ClassVar[str]

    def __init__(self, sampler: Sampler, config: C) -> None:
        self.sampler, self.config = sampler, config
        self._about: dict[str, float] = {}  # the newest rollouts

    @property
    def steps_per_epoch(self) -> float:
        return len(self.sampler.prompts) / self.config.prompts_at_once * self.config.updates

    def check(self, model: Transformer) -> None:
        self.sampler.check(model)

    def identity(self) -> dict[str, Any]:
        return {"objective": self.name, **self.sampler.identity()}

    def begins(self, step: int) -> bool:
        return step % self.config.updates == 0

    @abstractmethod
    def batch(self, step: int) -> Any: ...

    @abstractmethod
    def loss(self, model: Transformer, batch: Any) -> LossSum: ...
