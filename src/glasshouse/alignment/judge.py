"""Who gives a reply its reward: a program, such as a verifier of sums, or a reward model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from glasshouse.alignment.reward_model import RewardModel
from glasshouse.alignment.rollouts import Reply
from glasshouse.core.errors import DataError
from glasshouse.inference import LanguageModel


@runtime_checkable
class Judge(Protocol):
    """Rewards replies, and must do so as a pure function. `name` tells it from others: a run continues only
    under that name."""

    @property
    def name(self) -> str: ...

    def rewards(
        self, examples: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Reply]]
    ) -> list[list[float]]:
        """Of each group of replies to each example {"prompt": [messages], ...}."""
        ...


@dataclass(frozen=True)
class Program:
    """A program that gives a reply its reward: score(example, reply's text), any finite number."""

    name: str
    score: Callable[[Mapping[str, Any], str], float]

    def rewards(
        self, examples: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Reply]]
    ) -> list[list[float]]:
        return [
            [float(self.score(example, reply.text)) for reply in group]
            for example, group in zip(examples, groups, strict=True)
        ]


@dataclass(frozen=True)
class LearntJudge:
    """A reward model; a reply that was cut at the limit is read as if it had ended there."""

    name: str
    model: RewardModel

    def rewards(
        self, examples: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Reply]]
    ) -> list[list[float]]:
        conversations = [
            {
                "messages": [*example["prompt"], {"role": "assistant", "content": reply.text}],
                "tools": example.get("tools"),
            }
            for example, group in zip(examples, groups, strict=True)
            for reply in group
        ]
        scores = iter(self.model.score(conversations).tolist())
        return [[next(scores) for _ in group] for group in groups]


@dataclass(frozen=True)
class AgainstReference:
    """A judge's reward of a reply less that of one fixed reply to the same prompt: 0 is as good as that one.

    The best policy stays the same, and the rewards vary far less: what a reward model thinks of the prompt
    itself goes away. A greedy reply as baseline is ReMax's (arXiv:2310.10505).
    """

    judge: Judge
    baselines: Mapping[str, float]  # by `prompt_key`

    @property
    def name(self) -> str:
        return f"{self.judge.name}, less a reference's reply"

    @classmethod
    def greedy(
        cls, judge: Judge, examples: Sequence[Mapping[str, Any]], reference: LanguageModel, longest: int
    ) -> AgainstReference:
        """Against what `reference` replies at temperature 0, in at most `longest` tokens."""
        tokenizer = reference.tokenizer
        prompts = [tokenizer.encode_chat(row["prompt"], add_generation_prompt=True).ids for row in examples]
        said = reference.generate_batch(prompts, max_new_tokens=longest)
        texts = [tokenizer.decode(ids, skip_special=True) for ids in said]
        groups = [
            [Reply(tuple(prompt), tuple(ids), text, True)]
            for prompt, ids, text in zip(prompts, said, texts, strict=True)
        ]
        rewards = judge.rewards(examples, groups)
        keys = [prompt_key(row) for row in examples]
        return cls(judge, {key: reward[0] for key, reward in zip(keys, rewards, strict=True)})

    def rewards(
        self, examples: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Reply]]
    ) -> list[list[float]]:
        return [
            [reward - self.baselines[prompt_key(row)] for reward in group]
            for row, group in zip(examples, self.judge.rewards(examples, groups), strict=True)
        ]


def prompt_key(example: Mapping[str, Any]) -> str:
    """Equal for rows with equal prompts."""
    return json.dumps([example["prompt"], example.get("tools")], sort_keys=True)


def judged(judge: Judge, examples: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Reply]]) -> Tensor:
    """Each reply's reward, (prompts, group) float32. Raises DataError for one that is no finite number."""
    rewards = torch.tensor(judge.rewards(examples, groups))
    if not rewards.isfinite().all():
        place = int((~rewards.isfinite()).any(1).nonzero()[0])
        raise DataError(
            f"the judge '{judge.name}' gave a reward that is no finite number",
            where=f"prompt {list(examples[place]['prompt'])}",
            fix="give every reply a number; 0 for one that cannot be judged",
        )
    return rewards
