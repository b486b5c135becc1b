"""`glasshouse analyze`: one document onto the terminal, or thousands into a file."""

from __future__ import annotations

import json as json_module
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glasshouse.cli.result_view import show_result
from glasshouse.cli.run import Json
from glasshouse.cli.tables import print_json
from glasshouse.core.errors import GlasshouseError, UsageError

if TYPE_CHECKING:
    from glasshouse.documents.analyzer import Analyzer
    from glasshouse.documents.folders.folder import Outcome
    from glasshouse.documents.own_model import OwnModel
    from glasshouse.documents.packs.pack import Pack
    from glasshouse.llm.interface import LLM

RESULTS = Path("results.jsonl")


class TaskName(StrEnum):
    """As documents.result.TASKS."""

    summary = "summary"
    extraction = "extraction"
    reasoning = "reasoning"
    classification = "classification"
    sentiment = "sentiment"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A run or model folder, a GGUF file, openai:NAME, anthropic:NAME, ollama:NAME, "
        "http://host:port/v1#NAME.",
        show_default="the newest run",
    ),
]


def register(app: typer.Typer) -> None:
    app.command(
        "analyze",
        epilog="\b\nExamples:\n"
        '  glasshouse analyze report.pdf --task extraction --instructions "revenue, outlook"\n'
        "  glasshouse analyze reports --out results.jsonl --model openai:gpt-5-mini --dollars 5",
    )(analyze)


def analyze(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Documents, and folders of them.")
    ],
    task: Annotated[TaskName, typer.Option("--task", help="What to find out.")] = TaskName.summary,
    instructions: Annotated[
        str | None,
        typer.Option(
            "--instructions", metavar="TEXT", help="In words, what to look for.", show_default="none"
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            "--schema",
            metavar="FILE",
            help="JSON Schema of the object to extract.",
            show_default="the domain's",
        ),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            "--domain",
            metavar="NAME|FOLDER",
            help="general, legal, financial, scientific, or a folder of your own.",
            show_default="general; land for a model of the invented world",
        ),
    ] = None,
    model: Model = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Results, one a line; the same command goes on after a stop.",
            show_default=f"{RESULTS}; one document goes to the terminal",
        ),
    ] = None,
    votes: Annotated[int, typer.Option("--votes", help="Samples for each part of a document.", min=1)] = 1,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            "--min-confidence",
            metavar="P",
            help="Fields below go to the review list.",
            min=0,
            max=1,
            show_default="none",
        ),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            "--corrections",
            metavar="FOLDER",
            help="Store of `glasshouse documents correct`: its examples and its calibration are used.",
            show_default="none",
        ),
    ] = None,
    dollars: Annotated[
        float | None,
        typer.Option("--dollars", help="The most to spend on these results.", min=0, show_default="no limit"),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", help="The most tokens to use for them.", min=0, show_default="no limit"),
    ] = None,
    at_once: Annotated[int, typer.Option("--at-once", help="Calls and documents at a time.", min=1)] = 8,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away what the file of results holds; begin anew.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do documents that failed once more.")
    ] = False,
    json: Json = False,
) -> None:
    """Find out what documents say: every quote looked up, every value with its confidence.

    One document is shown here. Several go to a file, with a page for the browser beside it; what is done is
    not done again, whenever the command is stopped and started.
    """
    from glasshouse.documents.own_model import OwnModel
    from glasshouse.documents.packs.pack import load_pack
    from glasshouse.llm.open import open_llm

    name = str(_newest()) if model is None else model
    own = OwnModel.named(name)
    pack = load_pack(domain or (own and own.domain) or "general")
    llm = open_llm(name)
    job = _Asked(
        task.value, _schema(schema), instructions, pack, votes, min_confidence, corrections, own, llm
    )
    many = out is not None or len(paths) > 1 or paths[0].is_dir()
    if not many and (fresh or retry_failed):
        raise UsageError("one document is shown here and kept nowhere", fix="name a file with --out")
    if not many:
        job.show(llm, paths[0], at_once, dollars, tokens, json)
        return
    out = out or RESULTS
    outcome = job.write(llm, paths, out, at_once, dollars, tokens, fresh, retry_failed)
    _tell(outcome, out, json)


class _Asked:
    """What the command line asks of every document."""

    def __init__(
        self,
        task: Any,
        schema: dict[str, Any] | None,
        instructions: str | None,
        pack: Pack,
        votes: int,
        min_confidence: float | None,
        corrections: Path | None,
        own: OwnModel | None,
        llm: LLM,
    ) -> None:
        self.task, self.schema, self.instructions, self.pack = task, schema, instructions, pack
        self.votes, self.min_confidence, self.corrections = votes, min_confidence, corrections
        self.examples = self.calibration = self.own_calibration = self.familiar = None
        if own is not None:
            self.own_calibration = own.calibration(llm.name)
            self.familiar = own.familiar(llm)
        if corrections is not None:
            from glasshouse.documents.learning.correction_store import opened

            self.examples, self.calibration = opened(corrections)

    def analyzer(self, llm: LLM) -> Analyzer:
        from glasshouse.documents.analyzer import Analyzer

        return Analyzer(
            llm,
            domain=self.pack,
            votes=self.votes,
            calibration=self.calibration,
            examples=self.examples,
            min_confidence=self.min_confidence,
            familiar=self.familiar,
            own_calibration=self.own_calibration,
        )

    def show(
        self, model: LLM, path: Path, at_once: int, dollars: float | None, tokens: int | None, json: bool
    ) -> None:
        """One document onto the terminal."""
        import asyncio

        from glasshouse.documents.loading import load
        from glasshouse.llm.stack import standard

        document = load(path)

        async def work():
            llm = standard(model, at_once=at_once, dollars=dollars, tokens=tokens)
            try:
                return await self.analyzer(llm).run(
                    document, self.task, schema=self.schema, instructions=self.instructions
                )
            finally:
                await llm.close()

        result = asyncio.run(work())
        if json:
            print_json(result.model_dump(mode="json"))
        else:
            show_result(result)
        if not result.success:
            raise GlasshouseError(result.error or "the analysis failed")

    def write(
        self,
        model: LLM,
        paths: list[Path],
        out: Path,
        at_once: int,
        dollars: float | None,
        tokens: int | None,
        fresh: bool,
        retry_failed: bool,
    ) -> Outcome:
        """Many documents into a file, and its overview."""
        from glasshouse.core.storage import hash_json
        from glasshouse.documents.folders.find import find_documents
        from glasshouse.documents.folders.folder import Job, analyze_documents
        from glasshouse.documents.folders.overview import write_overview
        from glasshouse.files.guarded import GuardedReader
        from glasshouse.files.open_document import SUFFIXES

        found = find_documents(paths, SUFFIXES)
        settings: dict[str, Any] = {"votes": self.votes, "min_confidence": self.min_confidence}
        settings["content of the domain"] = _hash(self.pack)
        used = {"calibration": self.calibration, "own calibration": self.own_calibration}
        for name, calibration in used.items():
            if calibration is not None:
                settings[name] = hash_json(calibration.model_dump(mode="json"))
        if self.corrections is not None:
            from glasshouse.documents.learning.correction_store import state

            settings["corrections"] = state(self.corrections)
        job = Job(self.task, self.pack.name, self.schema, self.instructions, settings)
        with GuardedReader(workers=min(at_once, os.cpu_count() or 1)) as reader:
            outcome = analyze_documents(
                found,
                out,
                model,
                self.analyzer,
                job,
                reader.read,
                at_once=at_once,
                dollars=dollars,
                tokens=tokens,
                fresh=fresh,
                retry_failed=retry_failed,
            )
        if outcome.results:
            write_overview(out)
        return outcome


def _tell(outcome: Outcome, out: Path, json: bool) -> None:
    page = out.with_suffix(".html")
    if json:
        told = {name: value for name, value in vars(outcome).items() if name != "stopped"}
        stopped = None if outcome.stopped is None else str(outcome.stopped)
        print_json({**told, "stopped": stopped, "out": str(out), "overview": str(page)})
    else:
        failed = f", {outcome.failed:,} of them failed" if outcome.failed else ""
        typer.echo(f"documents  {outcome.results:,}{failed}")
        if outcome.dollars is not None:
            typer.echo(f"spent      ${outcome.dollars:,.4f}")
        typer.echo(f"results    {out}")
        if outcome.results:
            typer.echo(f"overview   {page}")
    if outcome.stopped is not None:
        left = f"{outcome.documents - outcome.done:,} of {outcome.documents:,} documents are not done"
        raise GlasshouseError(
            f"{left}: {outcome.stopped.what}",
            where=outcome.stopped.where,
            fix=f"{outcome.stopped.fix or 'see to it'}; then the same command goes on",
        )
    if outcome.failed and outcome.failed == outcome.results:
        raise GlasshouseError(
            "every document failed", where=out, fix="see the overview for the reasons, then --retry-failed"
        )


def _hash(pack: Pack) -> str:
    """A domain that was edited is another one, whatever its name."""
    from glasshouse.core.storage import hash_folder, hash_json

    content = pack.model_dump(mode="json", exclude={"prompts"}, serialize_as_any=True)
    return hash_json([content, None if pack.prompts is None else hash_folder(pack.prompts)])


def _newest() -> Path:
    from glasshouse.core.model_folders import resolve_model

    return resolve_model(None)


def _schema(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        value = json_module.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the schema cannot be read: {error.strerror}", where=path) from None
    except ValueError as error:
        raise UsageError(f"the schema is not JSON: {error}", where=path) from None
    if not isinstance(value, dict):
        raise UsageError("a JSON Schema is an object", where=path, fix='write {"properties": {...}}')
    return value
