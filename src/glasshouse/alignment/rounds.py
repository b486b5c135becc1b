"""Iterated rounds of learning from raters: sample, compare, reward model, policy, and again.

InstructGPT (arXiv:2203.02155, section 3.5) and Anthropic's online training (arXiv:2204.05862, section 4.5)
collect comparisons of the newest policy's replies, and train the reward model anew: one that has only seen an
earlier policy's replies does not know what the next one makes of it. Each round

    1. samples pairs of replies from the policy of the round before, and has a rater compare them,
    2. trains a reward model on all pairs so far, from the model that the first round began with,
    3. and goes on with the policy by PPO; its reference stays the first model.

    out/round-1/pairs.jsonl held_out.jsonl    what the rater compared, readable
    out/round-1/reward/ policy/               what `reward_model` and `ppo` leave
    out/metrics.jsonl                         the policies' rows one after the other, each with its round
    out/model/                                the last policy
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from glasshouse.alignment.judge import Judge, LearntJudge
from glasshouse.alignment.ppo import PPOConfig, ppo
from glasshouse.alignment.raters import Rater
from glasshouse.alignment.reward_model import RewardConfig, RewardModel, reward_model
from glasshouse.alignment.sampled_pairs import sampled_pairs
from glasshouse.core.config import Config
from glasshouse.core.errors import ConfigError, DataError
from glasshouse.core.seeds import derive, python_rng
from glasshouse.core.storage import (
    directory,
    hash_file,
    hash_folder,
    hash_json,
    read_json,
    write_json,
    write_text,
)
from glasshouse.model import load
from glasshouse.tokenizer import Tokenizer

Example = Mapping[str, Any]


class RoundsConfig(Config):
    """How many rounds there are, how pairs are sampled, and the settings of both trainings."""

    rounds: int = Field(2, ge=1)
    prompts: int = Field(512, gt=1)  # whose replies are compared in a round
    group: int = Field(4, ge=2)  # replies to each of them
    pairs: int | None = Field(None, gt=0)  # of one prompt at most; None: every two that differ
    held_out: float = Field(0.1, ge=0, lt=1)  # share of the prompts whose pairs only measure the reward model
    max_new_tokens: int = Field(128, gt=0)
    seed: int = 0
    device: str = "auto"
    reward: RewardConfig = RewardConfig.parse({"epochs": 1})
    ppo: PPOConfig = PPOConfig.parse({"epochs": 1})

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, data: Any) -> Any:
        """One pass over the prompts where PPO's section says nothing of it; the pairs have a default."""
        section = data.get("ppo") if isinstance(data, Mapping) else None
        if isinstance(section, Mapping) and section.get("tokens") is None and section.get("epochs") is None:
            return {**data, "ppo": {**section, "epochs": 1.0}}
        return data

    @property
    def sequence_length(self) -> int:
        """The longest row of both trainings, in tokens."""
        return max(self.reward.sequence_length, self.ppo.sequence_length)

    @model_validator(mode="after")
    def _policies_fit(self) -> Self:
        if self.ppo.reference is not None:
            raise ValueError("the reference of all rounds is the model that the first begins with")
        if self.ppo.ptx_coef:
            raise ValueError("rounds have nothing to rehearse: leave out ppo.ptx_coef")
        return self


def rounds(
    model_folder: str | Path,
    examples: Sequence[Example],
    rater_of: Callable[[int], Rater],
    out: str | Path,
    config: RoundsConfig,
    *,
    gold: Judge | None = None,
) -> dict[str, Any]:
    """Run all rounds on the policy in `model_folder`; returns a summary of each and of the whole.

    `examples`: {"prompt": [messages]} and whatever else rater and gold judge want to know; PPO learns on all
    of them. `rater_of(round)` compares replies in that round, counted from 1. Killed at any moment, the same
    call goes on and ends with the same bits. Raises ConfigError where `out` holds other rounds, DataError
    where a policy gives nothing to compare.
    """
    out, start = Path(out), Path(model_folder)
    _check_identity(out, start, examples, config)
    policy, told = start, []
    for number in range(1, config.rounds + 1):
        told.append(_round(number, policy, start, examples, rater_of(number), out, config, gold))
        policy = out / f"round-{number}" / "policy" / "model"
    _join_metrics(out, config.rounds)
    with directory(out / "model") as folder:
        shutil.copytree(policy, folder, dirs_exist_ok=True)
    totals = {
        name: sum(one["policy"][name] for one in told) for name in ("steps", "tokens", "seconds", "flops")
    }
    last = told[-1]["policy"]
    return {**totals, "parameters": last["parameters"], "last": last["last"], "rounds": told}


def _round(
    number: int,
    policy: Path,
    start: Path,
    examples: Sequence[Example],
    rater: Rater,
    out: Path,
    config: RoundsConfig,
    gold: Judge | None,
) -> dict[str, Any]:
    folder = out / f"round-{number}"
    seed = derive(config.seed, "round", number) >> 31
    _compare(number, policy, examples, rater, folder, config)
    done = [out / f"round-{n}" for n in range(1, number + 1)]
    pairs, held_out = ([row for each in done for row in _read(each / name)] for name in (PAIRS, HELD_OUT))
    here = {"seed": seed, "device": config.device}
    learnt = reward_model(start, pairs, folder / "reward", config.reward.model_copy(update=here), held_out)
    judge = folder / "reward" / "model"
    proxy = LearntJudge(f"reward model {hash_file(judge / 'model.safetensors')}", RewardModel.load(judge))
    settings = config.ppo.model_copy(update={**here, "reference": str(start)})
    trained = ppo(policy, examples, proxy, folder / "policy", settings, gold=gold)
    return {"pairs": len(pairs), "held_out": len(held_out), "reward": learnt, "policy": trained}


PAIRS, HELD_OUT = "pairs.jsonl", "held_out.jsonl"


def _compare(
    number: int, policy: Path, examples: Sequence[Example], rater: Rater, folder: Path, config: RoundsConfig
) -> None:
    """Write the round's pairs, once: those to learn from last, so that they stand for both files."""
    if (folder / PAIRS).exists():
        return
    count = min(config.prompts, len(examples))
    drawn = python_rng(config.seed, "rounds", number).sample(range(len(examples)), count)
    chosen = [examples[place] for place in drawn]
    kept = round(config.held_out * len(chosen))
    model, tokenizer = load(policy).eval(), Tokenizer.load(policy)
    for name, part in ((HELD_OUT, chosen[:kept]), (PAIRS, chosen[kept:])):
        rows = list(
            sampled_pairs(
                model,
                tokenizer,
                part,
                rater,
                seed=derive(config.seed, "rounds", number, name),
                group=config.group,
                most=config.pairs,
                max_new_tokens=config.max_new_tokens,
            )
            if part
            else ()
        )
        if name == PAIRS and not rows:
            raise DataError(
                f"the policy says the same {config.group} times to each of {len(part)} prompts "
                f"in round {number}",
                fix="raise group or prompts, or give prompts with more than one good answer",
            )
        write_text(folder / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _read(path: Path) -> Iterable[dict[str, Any]]:
    with open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def _check_identity(out: Path, start: Path, examples: Sequence[Example], config: RoundsConfig) -> None:
    """Pairs are not sampled again, so they must be those of this call."""
    identity = {
        "settings": hash_json(config.model_dump(mode="json", exclude={"device"})),
        "prompts": hash_json([dict(example) for example in examples]),
        "weights": hash_folder(start),
    }
    path = out / "rounds.json"
    if not path.exists():
        write_json(path, identity)
        return
    before = read_json(path)
    differing = [key for key in identity if identity[key] != before.get(key)]
    if differing:
        raise ConfigError(
            f"this folder holds rounds of other {' and '.join(differing)}",
            where=out,
            fix="choose another output folder, or delete this one",
        )


def _join_metrics(out: Path, count: int) -> None:
    """The rows of all policies; what counts from a run's start goes on counting."""
    rows: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        before = {name: rows[-1][name] if rows else 0 for name in ("step", "tokens", "seconds", "flops")}
        for row in _read(out / f"round-{number}" / "policy" / "metrics.jsonl"):
            rows.append({**row, **{name: row[name] + before[name] for name in before}, "round": number})
    write_text(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
