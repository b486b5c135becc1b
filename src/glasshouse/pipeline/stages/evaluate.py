"""evaluate: the probes of one model, and its replies to the fixed prompts.

    evaluation/<model>/probes.json     probe -> {"value", "low", "high", "n"}, 95% intervals
    evaluation/<model>/samples.json    the fixed prompts, each with this model's reply
    evaluation/<model>/analysis_calibration.json    of the run's last model: how often its fields are right
    evaluation/<model>/experts.json    of a mixture of experts: each one's load, by layer and domain

<model> is a stage that leaves a model, or "init" (untrained) or "base" for what came before all. The
folder evaluation/baselines/ holds the same probes answered without any model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from glasshouse.core.config import Config, nearest
from glasshouse.core.model_folders import ANALYSIS_CALIBRATION as CALIBRATION
from glasshouse.core.seeds import python_rng
from glasshouse.core.storage import read_json, write_json
from glasshouse.pipeline import held_out as rows
from glasshouse.pipeline.documents import read_rows
from glasshouse.pipeline.held_out import HeldOut, stretches
from glasshouse.pipeline.stages.corpus import STATISTICS

if TYPE_CHECKING:
    from glasshouse.evaluation import Estimate
    from glasshouse.inference import LanguageModel
    from glasshouse.tokenizer import Tokenizer
    from glasshouse.world import World

PROBES, SAMPLES, EXPERTS = "probes.json", "samples.json", "experts.json"

UNTAUGHT = 1 / 4
"""Requests for each of `n` that a model gets which nobody has taught to reply: it goes on and on, wrongly."""

FEW_REPORTS, MANY_REPORTS = 1 / 20, 1 / 6
"""Reports that are analyzed for each of the `n` questions: by any model, and by the last one."""

DOMAINS = 24
"""Sources of text whose experts are told apart, the largest ones of the held-out part."""

SAMPLE_PROMPTS = 4
"""Places in held-out text that a model of the user's own text continues in the report."""


@dataclass(frozen=True)
class RewardedBy:
    """What a model's rewards are measured with: the policy before, and a reward model; folders or None."""

    reference: Path | None = None
    reward: Path | None = None


class EvaluateConfig(Config):
    n: int = Field(600, ge=1)
    """Questions asked for the main probes of the world; the side ones get fewer."""
    probes: tuple[str, ...] | None = None
    """Names of the world's probes to ask; all of them when left out."""
    baselines: bool = True
    """Also let a nearest-neighbour and an n-gram baseline answer the world's probes."""
    text_bytes: int = Field(400_000, ge=1)
    """Held-out text or rows of the user's own that are read for bits per byte, about."""
    sample_tokens: int = Field(64, ge=1)
    """Length of the replies to the fixed prompts."""

    @field_validator("probes")
    @classmethod
    def _known(cls, probes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """A wrong name is refused before hours of training, not after them."""
        if probes is not None:
            from glasshouse.alignment.reward_probes import PROBES as of_rewards
            from glasshouse.documents.probes import PROBES as of_documents
            from glasshouse.evaluation import PROBES as of_world

            known = (*of_world, *of_rewards, *of_documents)
            for name in set(probes) - set(known):
                raise ValueError(f"no probe is called '{name}'; did you mean '{nearest(name, known)}'?")
        return probes


def evaluate(
    config: EvaluateConfig,
    model: LanguageModel,
    out: Path,
    *,
    world: World | None = None,
    validation: Path | None = None,
    held_out: HeldOut | None = None,
    rewards: RewardedBy | None = None,
    last: bool = False,
) -> None:
    """Ask the probes of the world; without one read held-out documents of the corpus, or held-out rows of
    fine-tuning. `rewards` is there for a model that replies. The `last` model of a run is the one that will
    be used: it reads more reports, and what they say about its confidence is kept."""
    if world is None and held_out is not None:
        probes, prompts = ask_held_out(config, model, held_out)
    else:
        texts = held_out_texts(validation, config.text_bytes) if validation and world is None else []
        replies = config.n if rewards is not None else max(1, round(config.n * UNTAUGHT))
        probes = ask(config, model, world, texts, replies)
        if world is not None and rewards is not None:
            probes |= ask_rewards(config, model, world, rewards)
            probes |= ask_documents(config, model, world, out / CALIBRATION if last else None)
        prompts = world.samples() if world is not None else text_prompts(texts)
    write_json(out / SAMPLES, [answer(model, prompt, config.sample_tokens) for prompt in prompts])
    if model.model.config.num_experts:
        tell_experts(model, out, texts_by_source(world, validation), held_out)
    write_json(out / PROBES, probes)


def tell_experts(
    model: LanguageModel, out: Path, texts: Mapping[str, list[str]], held_out: HeldOut | None
) -> None:
    """experts.json, on texts by source; without any, on what fine-tuning held out."""
    from glasshouse.evaluation import expert_shares

    tokenizer = model.tokenizer
    domains: dict[str, Iterable[list[int]]] = {
        source: ([tokenizer.bos_id, *tokenizer.encode(text)] for text in some)
        for source, some in texts.items()
    }
    if not domains and held_out is not None:
        domains = rows.ids_by_source(model, held_out, DOMAINS)
    if domains:
        write_json(out / EXPERTS, expert_shares(model, domains))


def ask_held_out(
    config: EvaluateConfig, model: LanguageModel, held_out: HeldOut
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """(probes, prompts) from the user's rows that fine-tuning does not see; of no rows neither."""
    estimate = rows.bits_per_byte(model, held_out, config.text_bytes)
    texts = [row["text"] for row in held_out.rows if "messages" not in row]
    prompts = rows.exchanges(model, held_out.rows, config.sample_tokens) + text_prompts(texts)
    return ({} if estimate is None else as_json({"bits_per_byte": estimate})), prompts


def texts_by_source(world: World | None, validation: Path | None) -> dict[str, list[str]]:
    """Held-out documents by skill of the world, or by file of the user's own; the largest sources first."""
    texts: dict[str, list[str]] = {}
    rows = read_rows(validation) if validation is not None else ()
    for row in rows if world is None else world.documents("validation"):
        texts.setdefault(row.get("source", ""), []).append(row["text"])
    largest = sorted(texts, key=lambda source: (-sum(map(len, texts[source])), source))
    return {source: texts[source] for source in largest[:DOMAINS]}


def ask(
    config: EvaluateConfig,
    model: LanguageModel,
    world: World | None,
    texts: list[str],
    replies: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Probe name -> {"value", "low", "high", "n"}: the world's suite, or bits per byte of `texts`.

    `replies` takes the place of `config.n` where the model has to reply.
    """
    from glasshouse import evaluation

    if world is not None:
        only = None if config.probes is None else [p for p in config.probes if p in evaluation.PROBES]
        return as_json(evaluation.run_suite(world, model, config.n, only, replies))
    return as_json({"bits_per_byte": evaluation.bits_per_byte(model, texts)})


def ask_rewards(
    config: EvaluateConfig, model: LanguageModel, world: World, rewards: RewardedBy
) -> dict[str, dict[str, Any]]:
    """The probes of alignment/reward_probes.py that are wanted and can be told."""
    from glasshouse.alignment.reward_model import RewardModel
    from glasshouse.alignment.reward_probes import PROBES as of_rewards
    from glasshouse.alignment.reward_probes import reward_probes
    from glasshouse.inference import LanguageModel

    wanted = of_rewards if config.probes is None else [name for name in of_rewards if name in config.probes]
    if not wanted:
        return {}
    reference = rewards.reference and LanguageModel.load(rewards.reference, device=str(model.model.device))
    reward = rewards.reward and RewardModel.load(rewards.reward, device=str(model.model.device))
    found = as_json(reward_probes(world, model, config.n, reference, reward))
    return {name: value for name, value in found.items() if name in wanted}


def ask_documents(
    config: EvaluateConfig, model: LanguageModel, world: World, calibration: Path | None
) -> dict[str, dict[str, Any]]:
    """The probes of documents/probes.py that are wanted; `calibration` is written where there are enough
    labelled fields."""
    from glasshouse.documents import probes

    wanted = [name for name in probes.PROBES if config.probes is None or name in config.probes]
    if not wanted:
        return {}
    share = FEW_REPORTS if calibration is None else MANY_REPORTS
    reads = probes.read_reports(world, model, max(2, round(config.n * share)))
    calibrator = probes.calibrated(reads)
    if calibration is not None and calibrator is not None:
        calibrator.save(calibration)
    return as_json({name: found for name, found in probes.scores(reads).items() if name in wanted})


def score_baselines(config: EvaluateConfig, tokenizer: Tokenizer, world: World, out: Path) -> None:
    """evaluation/baselines/<baseline>.json, in the form of probes.json."""
    from glasshouse.evaluation import run_baselines

    for name, probes in run_baselines(world, tokenizer, config.n).items():
        write_json(out / f"{name}.json", as_json(probes))


def as_json(probes: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """An interval that is not known (of a single observation) becomes null."""
    return {
        name: {k: v if math.isfinite(v) else None for k, v in estimate.as_dict().items()}
        for name, estimate in probes.items()
    }


def held_out_texts(validation: Path, limit: int) -> list[str]:
    """About `limit` bytes of a corpus folder's held-out part, drawn evenly from all of it."""
    total = read_json(validation.parent / STATISTICS)["validation"]["bytes"]
    rng = python_rng(0, "held-out texts")  # the same texts for every seed, so that runs compare
    pieces = [piece for row in read_rows(validation) for piece in stretches(row["text"])]
    chosen = [piece for piece in pieces if rng.random() < limit / total]
    return chosen or pieces[:1]


def text_prompts(texts: list[str]) -> list[dict[str, Any]]:
    """Some words from the middle of held-out texts, to be continued; `good` is how they really go on."""
    prompts = []
    for text in texts[:: max(1, len(texts) // SAMPLE_PROMPTS)][:SAMPLE_PROMPTS]:
        start = text.find(" ", len(text) // 2) + 1
        cut = text.find(" ", start + 60)
        cut = cut if start < cut < start + 200 else start + 60
        if text[cut:]:
            name, good = f"continue text {len(prompts) + 1}", text[cut : cut + 160]
            prompts.append({"name": name, "prompt": text[start:cut], "good": good})
    return prompts


def answer(model: LanguageModel, prompt: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The prompt with the model's greedy reply; a list of messages is asked in the chat template."""
    asked = prompt["prompt"]
    if isinstance(asked, str):
        reply = model.generate(asked, max_new_tokens=tokens)
    else:
        reply = model.chat(asked, max_new_tokens=tokens).text
    return {**prompt, "reply": reply}
