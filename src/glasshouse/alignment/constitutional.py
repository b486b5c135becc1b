"""Constitutional AI (arXiv:2212.08073): a policy learns from written principles instead of from raters.

Supervised phase: the policy replies to prompts at temperature 1; a critic holds each reply against principles
drawn from the constitution, one after the other, and revises it; the policy is fine-tuned on the last
revisions, among some of what it had learnt before. Preference phase: two replies of that policy to each
prompt, of which a principle tells the better; a preference model (reward_model.py) from such pairs; and
reinforcement learning from it. Beside the paper's pairs stand a reply with its revision, and one with a reply
to another prompt: a policy that keeps the principles hardly samples what goes against them any more.

Where the paper has PPO, this is GRPO (grpo.py). A preference model only compares replies to one prompt: the
mean of a group takes away what is the prompt's own, exactly, where a value head would have to learn it; and a
group of equal replies, which are most of a principled policy's, moves nothing.

    out/identity.json         what the work depends on: a folder goes on only with the same
    out/critiques.jsonl       {"prompt", "reply", "principle", "critique", "revision", "rounds"}
    out/supervised/           the loop's folder: model/ state/ metrics.jsonl
    out/comparisons.jsonl     {"prompt", "chosen", "rejected", "principle", "labelled_by"}
    out/preference_model/     the loop's folder, and held_out.json
    out/model/ state/ metrics.jsonl    of the last phase: the policy

Each file and each loop's folder appears whole or goes on where it was, and every sample has a seed of its
own: after a kill the same call ends with the same bits.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from glasshouse.alignment.ai_feedback import (
    FeedbackConfig,
    Labeller,
    Row,
    about_critiques,
    turn,
    write_comparisons,
    write_critiques,
)
from glasshouse.alignment.constitution import Constitution
from glasshouse.alignment.critique import Critic
from glasshouse.alignment.grpo import GRPOConfig, grpo
from glasshouse.alignment.judge import Judge, LearntJudge
from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.reward_model import RewardConfig, RewardModel, reward_model
from glasshouse.alignment.sft import SFTConfig, sft
from glasshouse.core.errors import ConfigError
from glasshouse.core.seeds import derive
from glasshouse.core.storage import hash_file, hash_folder, hash_json, read_json, write_json, write_text
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import TrainingConfig

CRITIQUES, COMPARISONS = "critiques.jsonl", "comparisons.jsonl"
SUPERVISED, PREFERENCE_MODEL = "supervised", "preference_model"


class PolicyConfig(GRPOConfig):
    """GRPO's settings; one pass over the prompts where neither tokens nor epochs are given."""

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("tokens") is None and data.get("epochs") is None:
            return {**data, "epochs": 1.0}
        return data


class ConstitutionalConfig(FeedbackConfig):
    """Feedback, and the settings of the three loops; null leaves a phase out."""

    rehearsal: float = Field(0.0, ge=0)  # conversations learnt before, for each revision, among them
    supervised: SFTConfig | None = SFTConfig.parse({})
    preference: RewardConfig | None = RewardConfig.parse({})
    grpo: PolicyConfig | None = PolicyConfig.parse({})

    @property
    def rehearses(self) -> bool:
        """Whether a phase takes conversations that were learnt before."""
        return (self.supervised is not None and self.rehearsal > 0) or (
            self.grpo is not None and self.grpo.ptx_coef > 0
        )

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if (self.preference is None) != (self.grpo is None):
            raise ValueError(
                "grpo learns from the preference model: set both, or preference=null and grpo=null"
            )
        if self.supervised is None and self.grpo is None:
            raise ValueError("there is no phase left: set supervised, or preference and grpo")
        if self.grpo is not None and self.grpo.ptx_replay:
            raise ValueError("documents are replayed in the supervised phase: leave grpo.ptx_replay at 0")
        for loop in (self.supervised, self.preference, self.grpo):
            if loop is not None and (loop.seed, loop.device) != (0, "auto"):
                raise ValueError("seed and device are the same for all phases: set them beside the phases")
        return self

    @property
    def sequence_length(self) -> int:
        """The longest row of all phases."""
        loops = (self.supervised, self.preference, self.grpo)
        return max(loop.sequence_length for loop in loops if loop is not None)

    def loop(self, phase: str) -> Any:
        """The settings of a phase, with a seed of its own."""
        section: TrainingConfig = getattr(self, phase)
        return section.model_copy(update={"seed": derive(self.seed, phase) >> 31, "device": self.device})


def constitutional(
    model_folder: str | Path,
    examples: Iterable[Mapping[str, Any]],
    constitution: Constitution,
    critic: Critic,
    out: str | Path,
    config: ConstitutionalConfig,
    *,
    rehearsal: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
    replay: Iterable[str] = (),
    raters: Labeller | None = None,
    gold: Judge | None = None,
) -> dict[str, Any]:
    """Train the Hugging Face folder `model_folder` by a constitution; returns what every phase tells.

    `examples`: {"prompt": [messages]}, the same for all phases. `rehearsal()` begins the conversations that
    the policy has learnt from before, for `rehearsal` and `grpo.ptx_coef`; `replay` are such texts. `raters`
    label what `ai_share` leaves them. `gold` is only measured. Raises ConfigError when `out` has other work,
    DataError when nothing is left to learn from.
    """
    out, model_folder = Path(out), Path(model_folder)
    if config.grpo is not None and config.ai_share < 1 and raters is None:
        raise ConfigError("ai_share is below 1, and there are no raters", fix="set ai_share=1")
    room = config.sequence_length - config.max_new_tokens
    prompts = Prompts.encode(examples, Tokenizer.load(model_folder), room)
    identity = {
        "settings": config.model_dump(mode="json", exclude={"device"}),
        "model": hash_folder(model_folder),
        "prompts": prompts.sha256,
        "constitution": constitution.sha256,
        "critic": critic.name,
        "raters": None if raters is None else raters.name,
    }
    check_identity(out / "identity.json", identity)
    results: dict[str, Any] = {"prompts": len(prompts), "left_out": prompts.left_out}
    phases: dict[str, dict[str, Any]] = {}
    policy, rows = model_folder, []
    if config.supervised is not None:
        rows = once(
            out / CRITIQUES, lambda: write_critiques(policy, prompts.examples, constitution, critic, config)
        )
        results |= about_critiques(rows)
        folder = out if config.grpo is None else out / SUPERVISED
        learnt: list[Mapping[str, Any]] = [
            {"messages": [*row["prompt"], turn(row["revision"])], "source": "revisions"} for row in rows
        ]
        learnt += islice(rehearsal(), int(config.rehearsal * len(rows)))
        phases["supervised"] = sft(policy, learnt, folder, config.loop("supervised"), replay)
        policy = folder / "model"
    if config.preference is not None:
        labellers = (critic, raters)
        pairs = once(
            out / COMPARISONS,
            lambda: write_comparisons(policy, prompts.examples, rows, constitution, labellers, config),
        )
        results |= {"comparisons": len(pairs), "labels": dict(Counter(pair["labelled_by"] for pair in pairs))}
        held_out = [pair for pair in pairs if pair["held_out"]]
        judging = out / PREFERENCE_MODEL
        learnt = [pair for pair in pairs if not pair["held_out"]]
        settings = config.loop("preference")
        phases["preference"] = reward_model(policy, learnt, judging, settings, held_out)
        scorer = RewardModel.load(judging / "model")
        proxy = LearntJudge(f"preference model {hash_file(judging / 'model' / 'model.safetensors')}", scorer)
        settings = config.loop("grpo")
        phases["grpo"] = grpo(
            policy, prompts.examples, proxy, out, settings, gold=gold, rehearsal=rehearsal()
        )
    spent = {
        name: sum(phase[name] for phase in phases.values())
        for name in ("steps", "tokens", "seconds", "flops")
    }
    last = phases["supervised" if config.grpo is None else "grpo"]
    return {**last, **results, **spent, "phases": phases}


def check_identity(path: Path, identity: Mapping[str, Any]) -> None:
    """Write down what the work depends on; raise ConfigError where the folder holds other work."""
    if not path.exists():
        write_json(path, identity)
        return
    before = read_json(path)
    differing = [name for name in identity if hash_json(identity[name]) != hash_json(before.get(name))]
    if differing:
        raise ConfigError(
            f"this folder holds work with other {' and '.join(differing)}",
            where=path.parent,
            fix="choose another output folder, or delete this one",
        )


def once(path: Path, make: Callable[[], Iterable[Row]]) -> list[Row]:
    """The rows of a file; what an earlier call wrote whole is not made again."""
    if not path.exists():
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in make()))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
