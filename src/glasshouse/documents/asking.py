"""One part of a document is asked about: samples, their election, how sure each value is, and what failed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glasshouse.core.errors import GlasshouseError, UsageError
from glasshouse.documents.answers import Answer, answers
from glasshouse.documents.chunking.chunks import Chunk
from glasshouse.documents.election import Elected, elect, elect_whole
from glasshouse.documents.extraction import extracted
from glasshouse.documents.heard import Heard
from glasshouse.documents.question import Question
from glasshouse.documents.reply_schema import Schema, choices
from glasshouse.documents.result import ChunkResult
from glasshouse.documents.room import Parts, part_request
from glasshouse.documents.signals import signals
from glasshouse.documents.values.leaves import without_indices
from glasshouse.llm.errors import (
    BudgetExceededError,
    InvalidOutputError,
    NotAbleError,
    NotAllowedError,
)
from glasshouse.llm.interface import Completion, Request
from glasshouse.llm.structured import RefusedOutputError, Structured, structured

SETTINGS = (UsageError, BudgetExceededError, NotAllowedError, NotAbleError)
"""Errors that the next document would meet as well: they are raised. All others end in a failed result."""


@dataclass(frozen=True)
class Sure:
    """An answer with what tells how sure it is."""

    answer: Answer
    token_probability: float | None = None
    vote_share: float | None = None


@dataclass(frozen=True)
class Reading:
    """What one part gave; `value` is None where it failed, and `error` says why."""

    chunk: ChunkResult
    value: dict[str, Any] | None = None
    answers: tuple[Sure, ...] = ()
    cut_prompt: str | None = None  # what a layer below took out of the prompt


async def read_part(
    heard: Heard, question: Question, parts: Parts, piece: Chunk, quotes: Sequence[str] | None, votes: int
) -> Reading:
    """Ask about one part, `votes` times. `quotes`: the only texts that may be quoted, None for any.

    Raises the errors in SETTINGS; every other one is told in the reading.
    """
    own, began = Heard(heard.inner, heard), time.perf_counter()
    schema = question.reply_schema(quotes)
    requests = [part_request(own, question, parts, piece, sample) for sample in range(votes)]
    outcomes = await all_of([_asked(own, request, schema) for request in requests])
    told = [outcome for outcome in outcomes if isinstance(outcome, Structured)]
    common: dict[str, Any] = {
        "index": piece.index,
        "start": piece.start,
        "end": piece.end,
        "pages": piece.pages,
        "tokens": piece.tokens,
        "raw": tuple(_raw(completion) for completion in own.replies),
        "seconds": time.perf_counter() - began,
    }
    cut = next((note for completion in own.replies if (note := _cut_note(completion))), None)
    if not told:
        errors = [outcome for outcome in outcomes if isinstance(outcome, GlasshouseError)]
        unread = any(
            isinstance(error, InvalidOutputError) and not isinstance(error, RefusedOutputError)
            for error in errors
        )
        failed = ChunkResult(success=False, error=str(errors[0]), parsing_failed=unread, **common)
        return Reading(failed, cut_prompt=cut)
    replies = [outcome.value for outcome in told]
    if question.schema is not None:
        elected = elect(question.schema, replies)
        value, found = extracted(question.schema, elected.reply)
    else:
        elected = elect_whole(choices(schema), replies)
        value, found = elected.reply, answers(elected.reply)
    ballots = [outcome.value if isinstance(outcome, Structured) else None for outcome in outcomes]
    sure = tuple(_sure(question, schema, told, ballots, elected, found))
    return Reading(ChunkResult(success=True, value=value, **common), value, sure, cut)


async def _asked(llm: Heard, request: Request, schema: Schema) -> Structured[Any] | GlasshouseError:
    try:
        return await structured(llm, request, schema)
    except SETTINGS:
        raise
    except GlasshouseError as error:
        return error


async def all_of(work: Sequence[Any]) -> list[Any]:
    """What the coroutines give, all at once; where one raises, the others are stopped and it is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _sure(
    question: Question,
    schema: Schema,
    told: Sequence[Structured[Any]],
    ballots: Sequence[Any],
    elected: Elected,
    found: Sequence[Answer],
) -> list[Sure]:
    known = [signals(outcome.completion, outcome.value, ballots) for outcome in told]
    closed = None if question.schema is not None else choices(schema)
    sure = []
    for answer in found:
        number, source = elected.origins[answer.source]
        sure.append(sure_of(answer, source, known[number], told[number].completion, closed))
    return sure


def sure_of(
    answer: Answer,
    source: str,
    known: Mapping[str, tuple[float | None, float | None]],
    completion: Completion,
    closed: frozenset[str] | None,
) -> Sure:
    """An answer with its signals. `source`: its path in the reply; `closed`: paths whose values are chosen
    among some, None where every value is a fact.

    Nobody writes a sentence twice alike, so a free text's own tokens and votes say little. What it rests on
    says more: the choice of its quote; and where none is due, how likely the reply's tokens were on average.
    """
    if closed is None or without_indices(source) in closed:
        return Sure(answer, *known.get(source, (None, None)))
    quote = f"{source.rpartition('.')[0]}.quote"
    if answer.quote is not None and quote in known:
        return Sure(answer, *known[quote])
    if not completion.logprobs:
        return Sure(answer)
    mean = math.fsum(token.logprob for token in completion.logprobs) / len(completion.logprobs)
    return Sure(answer, math.exp(min(mean, 0.0)))


def _raw(completion: Completion) -> str:
    return completion.text or completion.refusal or ""


def _cut_note(completion: Completion) -> str | None:
    for note in completion.notes:
        if note.details.get("dropped") or note.details.get("shortened"):
            return note.what
    return None
