"""The analyzer: a document and a task in, a result with checked quotes out.

A document is cut into parts that fit the model; all parts are asked about at once; every quote is looked up;
what the parts say is made one result. A part that fails is told and costs no other part.

    >>> analyzer = Analyzer(glasshouse.llm("openai:NAME"), domain="financial")     # doctest: +SKIP
    >>> analyzer.analyze(load("report.pdf"), "extraction", schema={...}).value     # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from glasshouse.core.config import nearest
from glasshouse.core.errors import ConfigError, GlasshouseError
from glasshouse.documents.asking import SETTINGS, Reading, Sure, all_of, read_part
from glasshouse.documents.calibrator import Calibrator, Setting
from glasshouse.documents.checks import run_checks
from glasshouse.documents.chunking.quotable import quotable
from glasshouse.documents.confidence import overall, rated
from glasshouse.documents.familiarity import Familiar
from glasshouse.documents.heard import Heard
from glasshouse.documents.merging import PartFields, merge
from glasshouse.documents.packs.pack import Pack, load_pack
from glasshouse.documents.proposal import propose
from glasshouse.documents.question import Question, template, told
from glasshouse.documents.quotes.evidence import Evidence, quote_match
from glasshouse.documents.reply_schema import Schema, choices, leaves, plain_schema
from glasshouse.documents.resolution import resolve
from glasshouse.documents.result import (
    TASKS,
    ChunkResult,
    Contradiction,
    FieldResult,
    Notice,
    QuoteCheck,
    Result,
    Task,
)
from glasshouse.documents.room import BYTES_PER_TOKEN, Parts, parts
from glasshouse.documents.synthesis import PartResult, synthesise, with_quotes
from glasshouse.documents.values.leaves import without_indices
from glasshouse.files.document import Document
from glasshouse.llm.blocking import wait
from glasshouse.llm.interface import LLM

GENERAL = "general"

CONTEXT = 16_000
"""Tokens that a model is taken to hold where nobody says: an assumption."""


class ExampleSource(Protocol):
    """Texts with their right replies, as corrections.py keeps them."""

    def examples(
        self, task: Task, domain: str, document: str, k: int = 3, fields: Collection[str] | None = None
    ) -> Sequence[Mapping[str, str]]:
        """The `k` that are most like `document`, the likest last: {"document": text, "reply": JSON}.
        `fields`: paths that a reply may have, "[]" for any item."""
        ...


class Analyzer:
    """Analyzes documents with one model and one domain. May be used for many documents at once.

    `llm`: any model, best with its layers: `glasshouse.llm.standard(...)` limits calls at a time, repeats
    those that fail by chance, and keeps a budget. `domain`: a pack's name, or a folder that is one. `votes`:
    samples for each part; with several, fields are decided by majority. `chunk_tokens`: the most tokens of a
    part; by default what the context leaves, at most room.LIMIT. `calibration`: what labelled examples showed
    about this model's confidence. `examples`: few-shot examples for the prompt. Fields below
    `min_confidence`, or whose confidence is unknown, are listed in `Result.review`. `familiar`: of a model of
    our own, what it was trained on; a document of another kind is told in the result's notices.
    `own_calibration`: what its run found out on documents of its own kind; it says nothing about others.

    Raises ConfigError for settings that cannot be.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        domain: str | Path | Pack = "general",
        votes: int = 1,
        chunk_tokens: int | None = None,
        calibration: Calibrator | None = None,
        examples: ExampleSource | None = None,
        min_confidence: float | None = None,
        familiar: Familiar | None = None,
        own_calibration: Calibrator | None = None,
    ) -> None:
        if votes < 1:
            raise ConfigError(f"votes must be 1 or more, got {votes}", where="Analyzer")
        if chunk_tokens is not None and chunk_tokens < 1:
            raise ConfigError(f"chunk_tokens must be 1 or more, got {chunk_tokens}", where="Analyzer")
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise ConfigError(f"min_confidence must be from 0 to 1, got {min_confidence}", where="Analyzer")
        self.llm, self.votes, self.chunk_tokens = llm, votes, chunk_tokens
        self.pack = domain if isinstance(domain, Pack) else load_pack(domain)
        self.calibration, self.examples, self.min_confidence = calibration, examples, min_confidence
        self.familiar, self.own_calibration = familiar, own_calibration
        self.proposed: dict[str, asyncio.Future[Schema]] = {}

    def analyze(
        self,
        document: Document,
        task: Task,
        *,
        schema: dict[str, Any] | None = None,
        instructions: str | None = None,
    ) -> Result:
        """`run` for code without an event loop."""
        return wait(self.run(document, task, schema=schema, instructions=instructions))

    async def run(
        self,
        document: Document,
        task: Task,
        *,
        schema: dict[str, Any] | None = None,
        instructions: str | None = None,
    ) -> Result:
        """The analysis of one document.

        `schema`: of extraction, a JSON Schema of the object that is wanted. Without one the fields are those
        of the domain, or, in the general domain, those that the model makes of the `instructions`. Of
        classification, {"enum": [labels]} in place of the pack's labels. `instructions`: in words, what to
        look for or to heed, for any task.

        What is wrong with the document or with replies is told in the result. Raises UsageError for settings
        that contradict each other, BudgetExceededError, NotAllowedError and NotAbleError: the next document
        would meet them too.
        """
        work = _Work(self, document, self._task(task), Heard(self.llm), time.perf_counter())
        try:
            return await work.result(schema, instructions or "")
        except SETTINGS:
            raise
        except GlasshouseError as error:
            return work.failed(str(error))

    def _task(self, task: str) -> Task:
        if task not in TASKS:
            close = nearest(task, TASKS)
            raise ConfigError(
                f"no task is called '{task}'",
                where="Analyzer",
                fix=f"did you mean '{close}'?" if close else f"tasks: {', '.join(TASKS)}",
            )
        return task

    async def question(
        self, heard: LLM, task: Task, schema: Schema | None, instructions: str, text: str
    ) -> Question:
        """What is asked about every part of `text`; the model is, where it must propose a schema."""
        pack, labels, plain = self.pack, (), None
        if task == "extraction":
            # a domain brings its own fields; the general one only where nobody says what to look for
            own = None if pack.name == GENERAL and instructions.strip() else pack.schema_
            if schema is None and own is None and not instructions.strip():
                raise ConfigError(
                    "nothing says what is to be extracted",
                    where=f"domain {pack.name}",
                    fix="give a schema, or say in instructions what to find",
                )
            wanted = schema or own or await self._propose(heard, instructions)
            plain = plain_schema(wanted)
        elif task == "classification":
            labels = tuple(pack.labels) if schema is None else _labels(schema)
        elif schema is not None:
            raise ConfigError(
                f"the task {task} has a form of its own, and takes no schema",
                where="Analyzer",
                fix="leave the schema out, or ask for extraction",
            )
        # labels of the user's own are explained by nobody but the user
        words = pack.words(task) if schema is None else pack.instructions.get(task, "")
        return Question(
            task,
            template(task, pack),
            plain,
            labels,
            "\n\n".join(text.strip() for text in (words, instructions) if text.strip()),
            self._examples(task, text, plain),
        )

    def _examples(self, task: Task, text: str, plain: Schema | None) -> tuple[Mapping[str, str], ...]:
        """Those most like the text, as many as a quarter of the context holds, about."""
        if self.examples is None:
            return ()
        fields = None if plain is None else leaves(plain)
        kept: list[Mapping[str, str]] = []
        left = (self.llm.context or CONTEXT) * BYTES_PER_TOKEN / 4
        for example in reversed(self.examples.examples(task, self.pack.name, text, fields=fields)):
            left -= len(f"{example['document']}{example['reply']}".encode())
            if left < 0:
                break
            kept.insert(0, example)
        return tuple(kept)

    async def _propose(self, llm: LLM, instructions: str) -> Schema:
        """Once for the same words, however many documents are analyzed."""
        known = self.proposed.get(instructions)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            work = propose(llm, template("schema", self.pack), instructions)
            known = self.proposed[instructions] = asyncio.ensure_future(work)
        return await asyncio.shield(known)


def _labels(schema: Schema) -> tuple[str, ...]:
    labels = schema.get("enum") if isinstance(schema, dict) else None
    if not isinstance(labels, list) or not labels or not all(isinstance(each, str) for each in labels):
        raise ConfigError(
            "the schema of a classification names its labels",
            where="Analyzer",
            fix='write {"enum": ["first label", "second label"]}',
        )
    return tuple(dict.fromkeys(labels))


@dataclass
class _Work:
    """One document on its way through the analyzer."""

    analyzer: Analyzer
    document: Document
    task: Task
    heard: Heard
    began: float
    prompt: str = ""
    dropped: int = 0
    notices: tuple[Notice, ...] = ()
    strange: bool = False  # of another kind than the model was trained on

    async def result(self, schema: Schema | None, instructions: str) -> Result:
        analyzer, document = self.analyzer, self.document
        self._note_flags()
        question = await analyzer.question(self.heard, self.task, schema, instructions, document.text)
        self.prompt = told(question.template)
        if instructions in analyzer.proposed and schema is None and self.task == "extraction":
            fields = json.dumps(question.schema, ensure_ascii=False)
            self._note("schema_proposed", f"The fields were made from the instructions: {fields}")
        if not any(map(str.isalnum, document.text)):
            return self.failed("the document has no text")
        if analyzer.familiar is not None:
            notice = await asyncio.to_thread(analyzer.familiar.notice, document)
            self.notices += () if notice is None else (notice,)
            self.strange = notice is not None
        pieces = await parts(
            self.heard,
            question,
            document,
            chunk_tokens=analyzer.chunk_tokens,
            abbreviations=frozenset(analyzer.pack.abbreviations),
        )
        if not pieces.exact and len(pieces.chunks) > 1:
            self._note("tokens_estimated", "The model does not count tokens: sizes of parts are estimated.")
        readings = await self._read(question, pieces)
        return await self._made(question, readings)

    async def _read(self, question: Question, pieces: Parts) -> list[Reading]:
        abbreviations = frozenset(self.analyzer.pack.abbreviations)

        async def read(piece: Any) -> Reading:
            quotes = None
            if self.heard.can.any_schema:
                quotes = quotable(self.document, piece.start, piece.end, abbreviations) or [""]
            return await read_part(self.heard, question, pieces, piece, quotes, self.analyzer.votes)

        return await all_of([read(piece) for piece in pieces.chunks])

    async def _made(self, question: Question, readings: Sequence[Reading]) -> Result:
        """One result of what the parts gave."""
        evidence = await asyncio.to_thread(Evidence, self.document)
        good = [reading for reading in readings if reading.value is not None]
        self._note_failures(readings)
        if not good:
            return self.failed(_why(readings), readings)
        checked = [await asyncio.to_thread(self._checked, reading, evidence) for reading in good]
        facts = None if question.schema is None else choices(question.schema)
        by_part = [
            {field.path: field for field in self._fields(reading, found, facts)}
            for reading, found in zip(good, checked, strict=True)
        ]
        themes: tuple[str, ...] = ()
        contradictions: Sequence[Contradiction] = ()
        if len(good) == 1:
            fields = list(by_part[0].values())
            value = self._with_checked(good[0], checked[0])
        elif question.schema is not None:
            told_parts = [
                PartFields(reading.chunk.index, reading.value or {}, fields)
                for reading, fields in zip(good, by_part, strict=True)
            ]
            merged = merge(question.schema, told_parts)
            if merged.disputes:
                prompt = template("resolution", self.analyzer.pack)
                contradictions = await resolve(self.heard, prompt, self.document, merged.disputes)
            value, fields = merged.value, list(merged.fields.values())
        else:
            prompt = template("synthesis", self.analyzer.pack)
            told_parts = [_part(reading, found) for reading, found in zip(good, checked, strict=True)]
            whole = await synthesise(self.heard, prompt, question, told_parts)
            if whole.calls:
                self.prompt += f" + {told(prompt)}"
            for why in whole.by_rules:
                self._note("joined_by_rules", f"Parts of the document were joined by rules: {why}")
            value, themes, contradictions = whole.value, whole.themes, whole.contradictions
            fields = [_field(sure, quotes, False) for sure, quotes in whole.answers]
        known = {reading.chunk.index: found for reading, found in zip(good, checked, strict=True)}
        results = [self._chunk_result(reading, known.get(reading.chunk.index, {})) for reading in readings]
        return self._finished(question, value, fields, results, themes, contradictions)

    def _checked(self, reading: Reading, evidence: Evidence) -> dict[str, QuoteCheck]:
        """Every quote of a reading, by the model's words; those that stand nowhere are counted."""
        asked = dict.fromkeys(sure.answer.quote for sure in reading.answers if sure.answer.quote)
        found = {
            words: evidence.look_up(words, reading.chunk.start, reading.chunk.end) for words in asked if words
        }
        self.dropped += sum(quote.status == "missing" for quote in found.values())
        return found

    def _fields(
        self, reading: Reading, found: Mapping[str, QuoteCheck], chosen: frozenset[str] | None
    ) -> list[FieldResult]:
        """`chosen`: of extraction, paths of values chosen among some: they need not stand in a quote."""
        fields = []
        for sure in reading.answers:
            quote = found.get(sure.answer.quote or "")
            quotes = () if quote is None or quote.status == "missing" else (quote,)
            fact = chosen is not None and without_indices(sure.answer.path) not in chosen
            fields.append(_field(sure, quotes, fact))
        return fields

    def _with_checked(self, reading: Reading, found: Mapping[str, QuoteCheck]) -> dict[str, Any]:
        """The value with its quotes as the document has them."""
        value = reading.value or {}
        if self.task == "extraction":
            return value
        missing = QuoteCheck(asked="", status="missing")
        return with_quotes(value, lambda words: found.get(words, missing).text or "")

    def _chunk_result(self, reading: Reading, found: Mapping[str, QuoteCheck]) -> ChunkResult:
        if reading.value is None:
            return reading.chunk
        value = self._with_checked(reading, found)
        return reading.chunk.model_copy(update={"value": value})

    def _finished(
        self,
        question: Question,
        value: dict[str, Any],
        fields: Sequence[FieldResult],
        results: Sequence[ChunkResult],
        themes: tuple[str, ...],
        contradictions: Sequence[Contradiction],
    ) -> Result:
        analyzer = self.analyzer
        setting = Setting(
            model=analyzer.llm.name, task=self.task, domain=analyzer.pack.name, prompt=self.prompt
        )
        own = None if self.strange else analyzer.own_calibration
        rated_fields = rated(fields, analyzer.calibration or own, setting)
        confidence, calibrated = overall(rated_fields)
        self._note_confidence(confidence, calibrated)
        least = analyzer.min_confidence
        checks = ()
        if self.task == "extraction":
            checks = tuple(run_checks(analyzer.pack.checks, value, self.document.text))
        return Result(
            **self._common(results),
            success=True,
            value=value,
            fields=rated_fields,
            confidence=confidence,
            calibrated=calibrated,
            review=()
            if least is None
            else tuple(field.path for field in rated_fields if (field.confidence or 0.0) < least),
            themes=themes,
            contradictions=tuple(contradictions),
            checks=checks,
            quotes_dropped=self.dropped,
        )

    def failed(self, error: str, readings: Sequence[Reading] = ()) -> Result:
        return Result(**self._common([reading.chunk for reading in readings]), success=False, error=error)

    def _common(self, results: Sequence[ChunkResult]) -> dict[str, Any]:
        usage = self.heard.usage
        return {
            "document": self.document.name,
            "task": self.task,
            "domain": self.analyzer.pack.name,
            "model": self.analyzer.llm.name,
            "prompt": self.prompt,
            "notices": self.notices,
            "chunks": len(results),
            "chunk_results": tuple(results),
            "parsing_failed": any(result.parsing_failed for result in results),
            "seconds": time.perf_counter() - self.began,
            "prompt_tokens": usage.prompt_tokens,
            "new_tokens": usage.new_tokens,
            "cost": self.heard.spent.cost,
            "sha256": sha256(self.document.text.encode("utf-8", "surrogatepass")).hexdigest(),
        }

    # -- what the reader of a result should see ------------------------------------------------------------

    def _note(self, kind: str, what: str) -> None:
        notice = Notice(kind=kind, what=what)
        if notice not in self.notices:
            self.notices = (*self.notices, notice)

    def _note_flags(self) -> None:
        for flag in self.document.flags:
            pages = f" (pages {', '.join(map(str, flag.pages))})" if flag.pages else ""
            self._note(flag.kind, f"{flag.what}{pages}")

    def _note_failures(self, readings: Sequence[Reading]) -> None:
        failed = [reading for reading in readings if reading.value is None]
        if failed and len(failed) < len(readings):
            self._note(
                "parts_failed",
                f"{len(failed)} of {len(readings)} parts gave no result and are missing from this one: "
                f"{_why(failed)}",
            )
        for reading in readings:
            if reading.cut_prompt:
                self._note("prompt_cut", f"A layer shortened what the model was shown: {reading.cut_prompt}")

    def _note_confidence(self, confidence: float | None, calibrated: bool) -> None:
        if calibrated:
            return
        if confidence is None:
            unknown = "the confidence of some fields is unknown: the model tells no probabilities of tokens"
            what = f"uncalibrated, and {unknown}; several votes would tell one"
        elif self.strange and self.analyzer.own_calibration is not None:
            what = "uncalibrated: the labelled examples of this model were of the kind that it was trained on"
        else:
            what = "uncalibrated: no labelled examples of this model, task, domain and prompt"
        self._note("uncalibrated", f"Confidence is {what}.")


def _field(sure: Sure, quotes: tuple[QuoteCheck, ...], fact: bool) -> FieldResult:
    answer = sure.answer
    match = quote_match(answer.value, quotes[0] if quotes else None, fact) if answer.due else None
    return FieldResult(
        path=answer.path,
        value=answer.value,
        quotes=quotes,
        token_probability=sure.token_probability,
        vote_share=sure.vote_share,
        quote_match=match,
    )


def _why(readings: Sequence[Reading]) -> str:
    """Each error once, with how many parts it struck."""
    counts: dict[str, int] = {}
    for reading in readings:
        counts[reading.chunk.error or "unknown"] = counts.get(reading.chunk.error or "unknown", 0) + 1
    return "; ".join(f"{error} ({count} parts)" if count > 1 else error for error, count in counts.items())


def _part(reading: Reading, found: Mapping[str, QuoteCheck]) -> PartResult:
    weight = float(reading.chunk.end - reading.chunk.start)
    return PartResult(_where(reading.chunk), weight, reading.value or {}, reading.answers, found)


def _where(chunk: ChunkResult) -> str:
    if chunk.pages is None:
        return f"characters {chunk.start:,} to {chunk.end:,}"
    first, last = chunk.pages
    return f"page {first}" if first == last else f"pages {first} to {last}"
