"""Group relative policy optimisation (arXiv:2402.03300): several replies to a prompt, judged by a program.

Each set of rollouts: some prompts, `group` replies to each from the current policy, a reward for each from
the judge, advantages against the others of its group, and `updates` steps on them (grpo_loss.py). No value
head and no reward model: a verifier, such as a calculator or the invented world's own, is the judge.

    out/model/ state/    what the training loop leaves
    out/metrics.jsonl    beside the loop's columns, of the newest rollouts: reward_proxy, reward_gold, kl and
                         kl_k3 (nats a reply), entropy (nats a token), reply_tokens, ended (share),
                         same_reward (share of the groups that teach nothing), clipped_fraction

Rollouts depend on the weights, the step and the seed alone, so a killed run continues exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from glasshouse.alignment.advantages import group_advantages
from glasshouse.alignment.diagnostics import alarms
from glasshouse.alignment.grpo_loss import Normalisation, grpo_loss, token_weights
from glasshouse.alignment.kl import k1, k3, per_reply
from glasshouse.alignment.ppo_loss import is_clipped
from glasshouse.alignment.rollouts import Reply, make_rows, sample_replies, score_rows, token_logprobs
from glasshouse.core.errors import ConfigError, DataError
from glasshouse.core.progress import say
from glasshouse.core.seeds import derive, numpy_rng
from glasshouse.core.storage import hash_json
from glasshouse.model import Transformer, load, save
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import LossSum, TrainingConfig, train


class GRPOConfig(TrainingConfig):
    """The loop's settings with smaller steps, and what GRPO adds.

    A row is a prompt with one reply: `batch_tokens` / `sequence_length` is the number of replies that are
    sampled at a time, and an epoch is a pass over the prompts.
    """

    batch_tokens: int = 16_384
    sequence_length: int = 256  # tokens of prompt and reply together, at most
    muon_lr: float = 0.001
    embed_lr: float = 0.001
    head_lr: float = 0.0004
    scalar_lr: float = 0.0005
    momentum_warmup_steps: int = 0
    log_every: int = Field(1, gt=0)
    group: int = Field(8, ge=2)  # replies to each prompt
    max_new_tokens: int = Field(128, gt=0)
    updates: int = Field(1, gt=0)  # steps on each set of rollouts
    clip: float = Field(0.2, gt=0, lt=1)  # matters from the second update on
    clip_high: float | None = Field(None, gt=0)  # None: as clip
    kl_coef: float = Field(0.04, ge=0)  # of the penalty for leaving the model that training began with
    correct_kl: bool = True  # the penalty's gradient is that of KL(policy ‖ reference)
    scale_rewards: bool = True  # divide by the group's deviation
    normalisation: Normalisation = "token"

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


@dataclass(frozen=True)
class Judge:
    """A program that gives a reply its reward: score(example, reply's text), any finite number.

    It must be a pure function. `name` tells it from others: a run continues only under that name.
    """

    name: str
    score: Callable[[Mapping[str, Any], str], float]


@dataclass(frozen=True)
class GRPOBatch:
    """Rollouts with what the loss needs; (replies, tokens), but for advantages and counts (replies,)."""

    inputs: Tensor
    targets: Tensor
    segments: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor | None
    weights: Tensor
    advantages: Tensor
    counts: Tensor

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    @property
    def tokens(self) -> int:
        return int((self.segments >= 0).sum())

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The batch with every tensor changed."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})

    def split(self, rows: int | None) -> Iterator[Self]:
        step = rows or len(self.inputs)
        for start in range(0, len(self.inputs), step):
            yield self.each(lambda tensor, start=start: tensor[start : start + step])

    def to(self, device: str) -> Self:
        return self.each(lambda tensor: tensor.to(device))


class GRPO:
    """The objective: an `Objective` and `OnPolicy` (training/objective.py)."""

    def __init__(
        self,
        examples: Sequence[Mapping[str, Any]],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        judge: Judge,
        config: GRPOConfig,
        *,
        reference: Transformer | None = None,
        gold: Judge | None = None,
    ) -> None:
        """`prompts` are the ids of each example; `reference` is needed where kl_coef is not 0."""
        self.examples, self.prompts, self.tokenizer = examples, prompts, tokenizer
        self.judge, self.gold, self.config, self.reference = judge, gold, config, reference
        self.prompts_at_once = config.rows_per_batch // config.group
        self._batch: GRPOBatch | None = None
        self._about: dict[str, float] = {}  # the newest rollouts
        self._clipped = 0  # tokens in the newest step

    @property
    def steps_per_epoch(self) -> float:
        return len(self.prompts) / self.prompts_at_once * self.config.updates

    def check(self, model: Transformer) -> None:
        if self.config.sequence_length > model.config.context:
            raise ConfigError(
                f"sequence_length {self.config.sequence_length} is longer than the model's context of "
                f"{model.config.context}",
                fix=f"set sequence_length to at most {model.config.context}",
            )

    def identity(self) -> dict[str, Any]:
        return {
            "objective": "grpo",
            "prompts": hash_json([list(prompt) for prompt in self.prompts]),
            "judge": self.judge.name,
            "gold": None if self.gold is None else self.gold.name,
        }

    def begins(self, step: int) -> bool:
        return step % self.config.updates == 0

    def sample(self, model: Transformer, step: int) -> None:
        config, number = self.config, step // self.config.updates
        chosen = self.choose_prompts(number)
        seeds = [derive(config.seed, "rollouts", number, place) for place in range(len(chosen))]
        prompts = [self.prompts[i] for i in chosen]
        groups = sample_replies(model, self.tokenizer, prompts, seeds, config.group, config.max_new_tokens)
        examples = [self.examples[i] for i in chosen]
        rewards = judged(self.judge, examples, groups)  # (prompts, group)
        replies = [reply for group in groups for reply in group]
        rows = make_rows(replies)
        old = score_rows(model, rows, config.micro_batch_rows)
        reference = None
        if self.reference is not None:
            self.reference.to(model.device).compute_dtype = model.compute_dtype
            reference = score_rows(self.reference, rows, config.micro_batch_rows)
        weights, counts = token_weights(rows.mask, config.normalisation, config.max_new_tokens)
        advantages = group_advantages(rewards, scale=config.scale_rewards).flatten()
        self._batch = GRPOBatch(
            rows.inputs, rows.targets, rows.segments, old, reference, weights, advantages, counts
        )
        self._about = {
            "reward_proxy": float(rewards.mean()),
            "entropy": -float(old[rows.mask].mean()),  # a sampled token's -logprob is right on average
            "reply_tokens": float(rows.mask.sum(-1).float().mean()),
            "ended": sum(reply.ended for reply in replies) / len(replies),
            "same_reward": float((rewards == rewards[:, :1]).all(1).float().mean()),
        }
        if self.gold is not None:
            self._about["reward_gold"] = float(judged(self.gold, examples, groups).mean())
        if reference is not None:
            self._about["kl"] = float(per_reply(k1(old, reference), rows.mask).mean())
            self._about["kl_k3"] = float(per_reply(k3(old, reference), rows.mask).mean())

    def choose_prompts(self, number: int) -> list[int]:
        """The prompts of one set of rollouts: each comes once in a pass, in another order in every pass."""
        chosen = []
        for place in range(number * self.prompts_at_once, (number + 1) * self.prompts_at_once):
            epoch, position = divmod(place, len(self.prompts))
            order = numpy_rng(self.config.seed, "prompts", epoch).permutation(len(self.prompts))
            chosen.append(int(order[position]))
        return chosen

    def batch(self, step: int) -> GRPOBatch:
        assert self._batch is not None, "the loop samples before it asks"
        self._clipped = 0
        return self._batch

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
        return LossSum(loss, batch.count)

    def metrics(self) -> dict[str, float]:
        assert self._batch is not None
        return {**self._about, "clipped_fraction": self._clipped / int((self._batch.weights > 0).sum())}


def judged(judge: Judge, examples: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Reply]]) -> Tensor:
    """Each reply's reward, (prompts, group) float32. Raises DataError for one that is no finite number."""
    rewards = torch.tensor(
        [
            [float(judge.score(example, reply.text)) for reply in group]
            for example, group in zip(examples, groups, strict=True)
        ]
    )
    if not rewards.isfinite().all():
        place = int((~rewards.isfinite()).any(1).nonzero()[0])
        raise DataError(
            f"the judge '{judge.name}' gave a reward that is no finite number",
            where=f"prompt {list(examples[place]['prompt'])}",
            fix="give every reply a number; 0 for one that cannot be judged",
        )
    return rewards


def grpo(
    model_folder: str | Path,
    examples: Iterable[Mapping[str, Any]],
    judge: Judge,
    out: str | Path,
    config: GRPOConfig,
    *,
    gold: Judge | None = None,
) -> dict[str, Any]:
    """Train the Hugging Face folder `model_folder` by the judge's rewards; returns the loop's summary.

    `examples`: {"prompt": [messages]} and whatever else the judge wants to know. Prompts that leave no room
    for `max_new_tokens` in a row are left out and counted. `gold` is only measured, never trained on: what
    is really meant, beside what the judge can check. The summary's "alarms" tell what went wrong
    (diagnostics.py). Raises DataError for an empty prompt, or when none is left.
    """
    out = Path(out)
    tokenizer = Tokenizer.load(model_folder)
    room = config.sequence_length - config.max_new_tokens
    kept, prompts, left_out = encode_prompts(examples, tokenizer, room)
    model = load(model_folder)
    reference = load(model_folder).eval() if config.kl_coef else None
    objective = GRPO(kept, prompts, tokenizer, judge, config, reference=reference, gold=gold)
    summary = train(
        model,
        objective,
        config,
        out,
        title="grpo",
        save_model=lambda trained, folder: save(trained, tokenizer, folder),
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = alarms(rows)
    for alarm in found:
        say(f"alarm: {alarm.name} at step {alarm.step}: {alarm.reason}")
    return {**summary, "prompts": len(kept), "left_out": left_out, "alarms": [vars(alarm) for alarm in found]}


def encode_prompts(
    examples: Iterable[Mapping[str, Any]], tokenizer: Tokenizer, longest: int
) -> tuple[list[Mapping[str, Any]], list[list[int]], int]:
    """(examples whose prompts have at most `longest` tokens, the prompts' ids, how many were left out)."""
    kept, prompts, left_out = [], [], 0
    for number, example in enumerate(examples, 1):
        if not example.get("prompt"):
            raise DataError(
                "the prompt is empty", where=f"example {number}", fix='give {"prompt": [messages]}'
            )
        ids = tokenizer.encode_chat(example["prompt"], add_generation_prompt=True).ids
        if len(ids) > longest:
            left_out += 1
            continue
        kept.append(example)
        prompts.append(list(ids))
    if not kept:
        raise DataError(
            f"no prompt to learn from ({left_out} are longer than {longest} tokens)",
            fix="raise sequence_length, or lower max_new_tokens",
        )
    if left_out:
        say(f"notice: {left_out} prompts are longer than {longest} tokens and are left out")
    return kept, prompts, left_out
