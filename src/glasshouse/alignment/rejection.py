"""Rejection sampling: fine-tuning on the best of n replies of the policy's own.

RAFT (arXiv:2304.06767), and Llama 2's first rounds (arXiv:2307.09288, section 3.2.3): n replies to each
prompt, a judge, the best reply of each, and supervised fine-tuning on them. Whoever serves best-of-n replies
instead of training on them leaves the policy by at most log n - (n - 1) / n nats a reply (`kl_bound`;
arXiv:2112.09332, proved as a bound in arXiv:2401.01879).

    out/best.jsonl                             the conversations to learn from, each with its reply's reward
    out/judged.json                            what became of the prompts
    out/shards/ model/ state/ metrics.jsonl    what fine-tuning leaves; with lora also adapter/
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from glasshouse.alignment.judge import Judge, judged
from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.rollouts import Reply, sample_replies
from glasshouse.alignment.sft import SFTConfig, sft
from glasshouse.core.errors import DataError
from glasshouse.core.seeds import derive
from glasshouse.core.storage import hash_folder, hash_json, read_json, write_json, write_text
from glasshouse.model import Transformer, load
from glasshouse.tokenizer import Tokenizer

AT_ONCE = 64
"""Replies that are written at the same time."""


class RejectionConfig(SFTConfig):
    """Fine-tuning's settings, and how replies are sampled and kept."""

    n: int = Field(8, ge=2)  # replies to each prompt
    max_new_tokens: int = Field(128, gt=0)
    temperature: float = Field(1.0, gt=0)
    least_reward: float | None = None  # a best reply below is not learnt: 1 keeps what a verifier found right


@dataclass(frozen=True)
class Best:
    """n replies to a prompt and what they were given; `place` is the best one's, the earliest of equals."""

    example: Mapping[str, Any]
    replies: list[Reply]
    rewards: list[float]
    golds: list[float]  # of a second judge who chooses nothing; empty without one
    place: int

    @property
    def reply(self) -> Reply:
        return self.replies[self.place]

    @property
    def reward(self) -> float:
        return self.rewards[self.place]


def kl_bound(n: int) -> float:
    """The most that best-of-n leaves its policy, KL in nats a reply: so much where no rewards are equal."""
    return math.log(n) - (n - 1) / n


def best_of_n(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Prompts,
    judge: Judge,
    n: int,
    *,
    seed: int,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    gold: Judge | None = None,
) -> list[Best]:
    """The best of n replies to each prompt, a pure function of weights and arguments."""
    seeds = [derive(seed, "best of n", place) for place in range(len(prompts))]
    groups = sample_replies(
        model, tokenizer, prompts.ids, seeds, n, max_new_tokens, temperature=temperature, at_once=AT_ONCE
    )
    rewards = judged(judge, prompts.examples, groups).tolist()  # (prompts, n)
    golds = judged(gold, prompts.examples, groups).tolist() if gold is not None else [[]] * len(groups)
    return [
        Best(example, group, given, truly, given.index(max(given)))
        for example, group, given, truly in zip(prompts.examples, groups, rewards, golds, strict=True)
    ]


def rejection(
    model_folder: str | Path,
    examples: Iterable[Mapping[str, Any]],
    judge: Judge,
    out: str | Path,
    config: RejectionConfig,
    *,
    replay: Iterable[str] = (),
    gold: Judge | None = None,
) -> dict[str, Any]:
    """Fine-tune the folder `model_folder` on its best replies; returns fine-tuning's summary and the counts.

    `examples`: {"prompt": [messages]} and whatever else the judge wants to know; a reply that was cut, empty
    or below `least_reward` is not learnt. `gold` is only measured. `replay` are texts of pre-training
    (sft.py). Raises DataError for an empty prompt, or when nothing is left to learn from.
    """
    out = Path(out)
    tokenizer = Tokenizer.load(model_folder)
    prompts = Prompts.encode(examples, tokenizer, config.sequence_length - config.max_new_tokens)
    counts = _sampled(model_folder, tokenizer, prompts, judge, out, config, gold)
    with open(out / "best.jsonl", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    if not rows:
        raise DataError(
            f"no reply of {len(prompts) * config.n} is worth learning",
            fix="raise n, lower least_reward, or give prompts that the model gets right sometimes",
        )
    return {**sft(model_folder, rows, out, config, replay), **counts}


def _sampled(
    folder: str | Path,
    tokenizer: Tokenizer,
    prompts: Prompts,
    judge: Judge,
    out: Path,
    config: RejectionConfig,
    gold: Judge | None,
) -> dict[str, Any]:
    """Write best.jsonl, once for the same weights, prompts, judge and settings; returns the counts."""
    sampling = config.model_dump(mode="json", include={"n", "max_new_tokens", "temperature", "seed"})
    judges = [judge.name, gold.name if gold is not None else None]
    identity = hash_json([hash_folder(folder), prompts.sha256, judges, sampling, config.least_reward])
    done = out / "judged.json"
    if done.is_file() and (told := read_json(done))["identity"] == identity:
        return told["counts"]
    model = load(folder).eval()
    best = best_of_n(model, tokenizer, prompts, judge, gold=gold, **sampling)
    least = -math.inf if config.least_reward is None else config.least_reward
    kept = [one for one in best if one.reply.ended and one.reply.text.strip() and one.reward >= least]
    counts = {
        "prompts": len(prompts),
        "left_out": prompts.left_out,
        "kept": len(kept),
        "reward_mean": fmean(reward for one in best for reward in one.rewards),
        "reward_best": fmean(one.reward for one in best),
        "kl_bound": kl_bound(config.n),
    }
    if gold is not None:
        counts["gold_mean"] = fmean(value for one in best for value in one.golds)
        counts["gold_best"] = fmean(one.golds[one.place] for one in best)
    write_text(out / "best.jsonl", "".join(json.dumps(_row(one), ensure_ascii=False) + "\n" for one in kept))
    write_json(done, {"identity": identity, "counts": counts})
    return counts


def _row(best: Best) -> dict[str, Any]:
    """A conversation to fine-tune on."""
    messages = [*best.example["prompt"], {"role": "assistant", "content": best.reply.text}]
    about = {"reward": best.reward, "reward_mean": fmean(best.rewards)}
    row = {"messages": messages, "source": "best of n", "metadata": about}
    return {**row, "tools": best.example["tools"]} if best.example.get("tools") else row
