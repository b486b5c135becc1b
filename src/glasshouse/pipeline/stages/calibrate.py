"""calibrate: a model learns to say "I do not know" and how sure it is, from its own measured knowledge.

calibrate/answers.jsonl                  what it said to every question, how often, and how often it was right
calibrate/conversations.jsonl            what it learns from
calibrate/held_out.json                  before and after, with temperature scaling beside them
calibrate/model/ state/ metrics.jsonl

Questions are the user's, {"prompt", "answer"} a row, or those of the recipe's world: mostly of the part that
is "calibration" (world/land.py), which neither fine-tuning nor a probe asks about.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from glasshouse.alignment.calibration import CalibrationConfig
from glasshouse.alignment.calibration import calibrate as teach
from glasshouse.alignment.verifiers import ends_with_answer
from glasshouse.core.config import Config
from glasshouse.core.seeds import derive
from glasshouse.evaluation.knowledge import STATED, Kind, Question, mix, world_questions
from glasshouse.files import read_examples, read_prompts
from glasshouse.inference import LanguageModel
from glasshouse.pipeline.replay import replayed, settled
from glasshouse.pipeline.stages.preferences import split
from glasshouse.world import World


class QuestionCounts(Config):
    """How many questions of each kind of the world are asked."""

    questions: int = Field(default=180, ge=0)
    strangers: int = Field(default=120, ge=0)
    sums: int = Field(default=240, ge=0)
    two_step_direct: int = Field(default=150, ge=0)
    wheels: int = Field(default=96, ge=0)
    familiar_questions: int = Field(default=240, ge=0)  # about people whom fine-tuning asked about
    familiar_strangers: int = Field(default=60, ge=0)


class OwnReplies(Config):
    """Requests of the world by kind, to which the model's own replies are learnt again: what it has learnt
    from rewards and principles stands in no file."""

    open: int = Field(default=400, ge=0)
    instructions: int = Field(default=600, ge=0)
    harmful: int = Field(default=600, ge=0)
    harmless: int = Field(default=200, ge=0)


class CalibrateStage(CalibrationConfig):
    data: tuple[str, ...] = ()
    """The user's questions with their answers: files or folders; without them those of the recipe's world."""
    earlier_data: tuple[str, ...] = ()
    """Conversations and documents of earlier stages to mix in; without them the world's conversations."""
    own_replies: OwnReplies = OwnReplies()
    """Among the earlier conversations."""
    validation_fraction: float = Field(0.2, ge=0, lt=0.5)
    """Share of the user's questions that is kept from training to measure on."""
    held_out: int = Field(400, ge=2)
    """Questions of the world's held-out part to measure on, about."""
    world_questions: QuestionCounts = QuestionCounts()


def calibrate(
    config: CalibrateStage, model: Path, out: Path, world: World | None = None, corpus: Path | None = None
) -> dict[str, Any]:
    """Calibrate the model folder `model`, replaying documents of the corpus folder where there is one."""
    learnt, held_out = questions(config, world)
    texts = replayed(corpus, "calibrate", config.seed)
    before = chain(own_replies(config, model, world), earlier(config, world))
    return teach(model, learnt, out, config, held_out, before, texts)


def questions(config: CalibrateStage, world: World | None) -> tuple[list[Question], list[Question]]:
    """(what is learnt from, what is measured on)."""
    if config.data:
        rows, kept = split(read_prompts(config.data), config.validation_fraction)
        return [question_of(row) for row in rows], [question_of(row) for row in kept]
    assert world is not None, "the recipe says where questions come from"
    asked: list[Question] = []
    for name, count in config.world_questions.model_dump().items():
        kind = cast("Kind", name.removeprefix("familiar_"))
        asked += world_questions(world, kind, "calibration" if kind == name else "train", count, "calibrate")
    return asked, mix(world, STATED, "heldout", config.held_out, "calibrate")


def question_of(row: Mapping[str, Any]) -> Question:
    """A row of the user's; its "source" or "kind" tells apart what may be known differently well.

    Raises DataError for a row without an answer.
    """
    ends_with_answer(row, "")
    kind = str(row.get("kind") or row.get("source") or "questions")
    return Question(row["prompt"], lambda reply: ends_with_answer(row, reply), kind=kind)


def own_replies(config: CalibrateStage, model: Path, world: World | None) -> Iterator[Mapping[str, Any]]:
    """Conversations of requests and what the model replies to them, at temperature 0."""
    if world is None or config.data:
        return
    counts = config.own_replies.model_dump()
    tasks = [
        task
        for kind, count in counts.items()
        for task in islice(world.tasks(kind, "feedback", "calibrate"), count)
    ]
    speaker = LanguageModel.load(model)
    prompts = [speaker.tokenizer.encode_chat(task.messages, add_generation_prompt=True).ids for task in tasks]
    for task, ids in zip(tasks, speaker.generate_batch(prompts, max_new_tokens=96), strict=True):
        reply = {"role": "assistant", "content": speaker.tokenizer.decode(ids, skip_special=True)}
        yield {"messages": [*task.messages, reply]}


def earlier(config: CalibrateStage, world: World | None) -> Iterator[Mapping[str, Any]]:
    """What fine-tuning may have taught before, in an order of its own."""
    rows: Iterable[Mapping[str, Any]] = ()
    if config.earlier_data:
        rows = read_examples(config.earlier_data)
    elif world is not None and not config.data:
        rows = settled(world.conversations("train"))
    return _shuffled(rows, config.seed)


def _shuffled(rows: Iterable[Mapping[str, Any]], seed: int) -> Iterator[Mapping[str, Any]]:
    """Rows in a drawn order, read only when the first is asked for."""

    def draw() -> Iterator[list[Mapping[str, Any]]]:
        read = list(rows)
        random.Random(derive(seed, "earlier")).shuffle(read)
        yield read

    return chain.from_iterable(draw())
