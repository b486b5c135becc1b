"""Calibration training: a model learns to say what it does not know, and how sure it is.

Its own knowledge is measured first (self_knowledge.py) and made into conversations (calibration_examples.py),
which it is fine-tuned on among earlier conversations and documents, so that nothing else is forgotten.

    out/answers.jsonl        what the model said to every question, how often, and how often it was right
    out/conversations.jsonl  what it learns from, earlier conversations included
    out/held_out.json        before and after, on questions that are not learnt from
    out/shards/ model/ state/ metrics.jsonl    as sft leaves them
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from glasshouse.alignment.calibration_examples import examples
from glasshouse.alignment.calibration_quality import quality
from glasshouse.alignment.self_knowledge import Knowledge, measure, read_knowledge, write_knowledge
from glasshouse.alignment.sft import SFTConfig, sft
from glasshouse.core.errors import DataError
from glasshouse.core.seeds import derive, python_rng
from glasshouse.core.storage import read_json, write_json, write_text
from glasshouse.evaluation.knowledge import Question
from glasshouse.inference import LanguageModel

ANSWERS, CONVERSATIONS, HELD_OUT = "answers.jsonl", "conversations.jsonl", "held_out.json"


class CalibrationConfig(SFTConfig):
    """Fine-tuning's settings, and what is asked and taught."""

    samples: int = Field(8, ge=2)  # replies to each question
    max_new_tokens: int = Field(32, ge=1)  # of a reply
    thresholds: tuple[float, ...] = (0.5, 0.75, 0.9)  # of the penalties t / (1 - t)
    plain_threshold: float = Field(0.0, ge=0, lt=1)  # a plain question is answered above this share
    levels: int = Field(1, ge=1)  # of agreement, in each kind of question, that are told apart
    earlier: float = Field(1.0, ge=0)  # earlier conversations for each new one

    @field_validator("thresholds")
    @classmethod
    def _between_0_and_1(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        if not thresholds or not all(0 < t < 1 for t in thresholds):
            raise ValueError("thresholds lie between 0 and 1, and there is at least one")
        return thresholds


def calibrate(
    model_folder: str | Path,
    questions: Sequence[Question],
    out: str | Path,
    config: CalibrationConfig,
    held_out: Sequence[Question] = (),
    earlier: Iterable[Mapping[str, Any]] = (),
    replay: Iterable[str] = (),
) -> dict[str, Any]:
    """Calibrate the Hugging Face folder `model_folder`; returns fine-tuning's summary, counts and quality.

    `earlier` are conversations and documents of earlier stages, of which `config.earlier` says how many are
    taken; `replay` are texts of pre-training. The same call goes on after a kill: the answers are sampled
    once, and what follows from them is a function of them.

    Raises DataError when there is nothing to ask, or no question that fits the context.
    """
    out = Path(out)
    if not questions:
        raise DataError("there is no question to ask", fix='give rows {"prompt": "...", "answer": "..."}')
    known = _answers(model_folder, questions, out, config)
    rng = python_rng(config.seed, "calibrate")
    taught = list(examples(known, rng, config.thresholds, config.plain_threshold, config.levels))
    rows = [*taught, *islice(earlier, round(config.earlier * len(taught)))]
    rng.shuffle(rows)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(out / CONVERSATIONS, "".join(lines))
    summary = sft(model_folder, rows, out, config, replay)
    counts = {"questions": len(known), "taught": len(taught), "earlier": len(rows) - len(taught)}
    if held_out:
        if not (out / HELD_OUT).is_file():
            seed = derive(config.seed, "held out")
            write_json(out / HELD_OUT, quality(model_folder, out / "model", held_out, config.device, seed))
        counts["figures"] = read_json(out / HELD_OUT)["figures"]
    return {**summary, **counts}


def _answers(
    model_folder: str | Path, questions: Sequence[Question], out: Path, config: CalibrationConfig
) -> list[Knowledge]:
    """What the model says to the questions: as it was written down, else asked now."""
    path = out / ANSWERS
    if not path.is_file():
        model = LanguageModel.load(model_folder, device=config.device)
        write_knowledge(measure(model, questions, config.samples, config.max_new_tokens, config.seed), path)
    return read_knowledge(path)
