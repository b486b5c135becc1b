"""`glasshouse documents`: look at results, say what is right, and use what was said."""

from __future__ import annotations

import asyncio
import getpass
import json as json_module
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glasshouse.cli.analyze import Model, _newest
from glasshouse.cli.person import read_line
from glasshouse.cli.result_view import shown, told
from glasshouse.cli.run import Json
from glasshouse.cli.tables import print_json
from glasshouse.cli.visible import visible
from glasshouse.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from glasshouse.documents.analyzer import Analyzer
    from glasshouse.documents.learning.corrections import Case, Corrections, Lesson
    from glasshouse.documents.learning.promotion import Asked
    from glasshouse.documents.result import FieldResult, Result
    from glasshouse.files.document import Document
    from glasshouse.llm.interface import LLM

KEYS = "y it is right   e edit   n the document does not mention it   s skip   q quit"

CONTEXT = 200
"""Characters shown before a quote and behind it."""

app = typer.Typer(
    help="Look at results, say what is right in them, and use what was said.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Example:  glasshouse documents overview results.jsonl",
)

ResultsArgument = Annotated[Path, typer.Argument(metavar="RESULTS", help="File that analyze wrote.")]
Store = Annotated[Path, typer.Option("--store", metavar="FOLDER", help="Folder of the corrections.")]
Domain = Annotated[
    Path | None,
    typer.Option(
        "--domain", metavar="FOLDER", help="A domain of your own that was used.", show_default="none"
    ),
]

_STORE = Path("corrections")


@app.command(epilog="Example:  glasshouse documents overview results.jsonl")
def overview(
    results: ResultsArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="HTML file.", show_default="beside the results"),
    ] = None,
) -> None:
    """Write the page for the browser anew: totals, what to look at, values, quotes in their context."""
    from glasshouse.documents.folders.overview import write_overview

    typer.echo(write_overview(results, out))


@app.command(
    epilog="\b\nExamples:\n  glasshouse documents correct results.jsonl\n"
    "  glasshouse documents correct results.jsonl --document q3.pdf --field revenue --value 4200000"
)
def correct(
    results: ResultsArgument,
    document: Annotated[
        str | None, typer.Option("--document", metavar="NAME", help="As the results name it.")
    ] = None,
    field: Annotated[str | None, typer.Option("--field", metavar="PATH", help="One of its fields.")] = None,
    value: Annotated[
        str | None,
        typer.Option("--value", metavar="JSON", help="What is right; null: it is not mentioned."),
    ] = None,
    quote: Annotated[
        str | None, typer.Option("--quote", metavar="TEXT", help="The document's words that say so.")
    ] = None,
    all_fields: Annotated[
        bool, typer.Option("--all", help="Go through all fields, not only those to be looked at.")
    ] = False,
    store: Store = _STORE,
    who: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who says so.", show_default="your user name")
    ] = None,
) -> None:
    """Say what is right: one field by options, or one after the other in the terminal.

    What was judged is not asked again. The store feeds `analyze --corrections`, `documents calibrate`,
    `documents test` and `documents export`.
    """
    from glasshouse.documents.learning.correction_store import FILE
    from glasshouse.documents.learning.corrections import Corrections

    given = [name for name, option in (("--field", field), ("--value", value)) if option is not None]
    if given and (document is None or len(given) < 2):
        raise UsageError(
            f"{given[0]} alone does not say what is right", fix="give --document, --field and --value"
        )
    work = _Results(results)
    with Corrections(store / FILE) as corrections:
        session = _Session(work, corrections, who or _user())
        if field is not None and value is not None and document is not None:
            session.correct(work.named(document), field, _json(value), quote)
            judged = 1
        else:
            judged = session.run([work.named(document)] if document else work.all, all_fields)
        typer.echo(f"{judged} judged now, {len(corrections)} in all, in {store}", err=True)


@app.command(epilog="Example:  glasshouse documents calibrate --store corrections")
def calibrate(store: Store = _STORE, json: Json = False) -> None:
    """Learn from the corrections how often a field is right at what confidence.

    `analyze --corrections` uses it from then on. For each model, task, domain and prompt 100 judged fields in
    10 documents are needed: judge right ones too.
    """
    from glasshouse.documents.calibrator import Calibrator
    from glasshouse.documents.learning.correction_store import CALIBRATION, opened

    corrections, _ = opened(store)
    calibrator = Calibrator.fit(corrections.labelled_rows())
    calibrator.save(store / CALIBRATION)
    if json:
        print_json(calibrator.model_dump(mode="json")["fitted"])
        return
    for fitted in calibrator.fitted:
        setting = fitted.setting
        typer.echo(f"{setting.model}, {setting.task}, {setting.domain}, {setting.prompt}")
        ece = f"{fitted.ece.value:.3f} ({fitted.ece.low:.3f} to {fitted.ece.high:.3f})"
        typer.echo(
            f"    {fitted.rows:,} fields of {fitted.documents:,} documents, {fitted.right:.0%} right; "
            f"calibration error {ece}"
        )
    typer.echo(store / CALIBRATION)


@app.command("test", epilog="Example:  glasshouse documents test --model runs/pocket --store corrections")
def run(model: Model = None, store: Store = _STORE, domain: Domain = None, json: Json = False) -> None:
    """Ask a model what was corrected before. Ends with exit code 1 where a field is wrong."""
    cases = _cases(store)
    answers = _ask(_name(model), cases, domain)
    wrong = [asked for asked, right in answers.items() if not right]
    if json:
        print_json([{**asked._asdict(), "right": right} for asked, right in answers.items()])
    else:
        for asked in wrong:
            typer.echo(visible(f"wrong  {asked.case}: {asked.path} ({asked.group})"))
        typer.echo(f"{len(answers) - len(wrong):,} of {len(answers):,} fields are right", err=True)
    if wrong:
        raise typer.Exit(1)


@app.command(
    epilog="\b\nExample:\n  glasshouse documents export --sft sft.jsonl --preferences pairs.jsonl\n"
    "  glasshouse train sft --model runs/pocket --data sft.jsonl --out runs/adapted"
)
def export(
    sft: Annotated[
        Path | None,
        typer.Option("--sft", metavar="FILE", help="Conversations that end with the right reply."),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option("--preferences", metavar="FILE", help="The right reply against the model's."),
    ] = None,
    model: Model = None,
    store: Store = _STORE,
    domain: Domain = None,
) -> None:
    """Write corrections as data that `train sft` and `train dpo` read. MODEL is the one to be trained.

    A third of the documents is kept back: on those `documents promote` sees whether the model has got better.
    """
    from glasshouse.documents.learning.correction_store import opened
    from glasshouse.llm.blocking import wait
    from glasshouse.llm.open import open_llm

    if sft is None and preferences is None:
        raise UsageError("nothing is to be written", fix="name a file with --sft or --preferences")
    corrections, _ = opened(store)
    llm = open_llm(_name(model))
    try:
        prompts = _Prompts(llm, domain)
        if sft is not None:
            typer.echo(f"{corrections.write_sft(sft, prompts.of)} conversations in {sft}")
        if preferences is not None:
            typer.echo(f"{corrections.write_preferences(preferences, prompts.of)} pairs in {preferences}")
    finally:
        wait(llm.close())


@app.command(epilog="Example:  glasshouse documents promote runs/pocket runs/adapted --store corrections")
def promote(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The model that is used now.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The one that was trained on corrections.")],
    store: Store = _STORE,
    domain: Domain = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="key=v", help="Of the probes: n, text_bytes; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Whether AFTER may take the place of BEFORE: the corrections gain, and no probe falls.

    Both are runs or model folders. Ends with exit code 1 where AFTER is not promoted.
    """
    from glasshouse.documents.learning.promotion import decide
    from glasshouse.pipeline.evaluate import evaluate_model

    cases = _cases(store)
    decision = decide(
        _ask(before, cases, domain),
        _ask(after, cases, domain),
        evaluate_model(before, settings=settings or ()),
        evaluate_model(after, settings=settings or (), like=before),
    )
    if json:
        print_json(decision.model_dump(mode="json"))
    else:
        for line in decision.lines():
            typer.echo(line)
    if not decision.promoted:
        raise typer.Exit(1)


class _Results:
    """A file of results with what was asked and the documents' texts, as they lie beside it."""

    def __init__(self, path: Path) -> None:
        from glasshouse.core.storage import read_json
        from glasshouse.documents.folders.results_file import SETTINGS, read_results, work_folder
        from glasshouse.documents.folders.texts import TEXTS, Texts

        self.path = path
        self.all = [result for result in read_results(path) if result.success]
        work = work_folder(path)
        if not (work / TEXTS).is_file():
            raise DataError(
                "the texts of the documents are not here",
                where=work,
                fix="analyze the documents again: analyze keeps their texts beside the results",
            )
        self._texts = Texts(work / TEXTS)
        asked = read_json(work / SETTINGS)
        self.schema, self.instructions = asked.get("schema"), asked.get("instructions")

    def named(self, name: str) -> Result:
        from glasshouse.core.config import nearest

        for result in self.all:
            if result.document == name:
                return result
        close = nearest(name, [result.document for result in self.all])
        raise UsageError(
            f"no analyzed document is called '{name}'",
            where=self.path,
            fix=f"did you mean '{close}'?" if close else "see the overview for their names",
        )

    def document(self, result: Result) -> Document:
        from glasshouse.files.document import Document

        text = self._texts.get(result.sha256)
        if text is None:
            raise DataError("its text is not here", where=result.document, fix="analyze it again")
        return Document.of_text(result.document, text)


class _Session:
    """Field after field: it is shown, a key is read, the judgement is kept."""

    def __init__(self, results: _Results, corrections: Corrections, who: str) -> None:
        self.results, self.corrections, self.who = results, corrections, who

    def run(self, results: Sequence[Result], all_fields: bool) -> int:
        """How many fields were judged before they, the keys or the patience ended."""
        judged = 0
        try:
            for result, field in self._open(results, all_fields):
                self._show(result, field)
                judged += self._ask(result, field)
        except (EOFError, KeyboardInterrupt):
            _say("")
        return judged

    def correct(self, result: Result, path: str, right: Any, quote: str | None) -> None:
        from glasshouse.documents.quotes.check import check
        from glasshouse.documents.quotes.search import Source

        document = self.results.document(result)
        checked = None
        if quote is not None:
            checked = check(Source(document.text), document, quote)
            if checked.status == "missing":
                raise UsageError(
                    "the document does not say that", where=result.document, fix="quote its own words"
                )
        self.corrections.correct(
            document,
            result,
            path,
            right,
            who=self.who,
            quote=checked,
            schema=self.results.schema,
            instructions=self.results.instructions,
        )

    def _open(self, results: Sequence[Result], all_fields: bool) -> Iterator[tuple[Result, FieldResult]]:
        """What is to be looked at and was not yet, the least sure first."""
        done = {(entry.sha256, entry.task, entry.path) for entry in self.corrections.newest()}
        found = [
            (result, field)
            for result in results
            for field in result.fields
            if (all_fields or field.path in result.review)
            and (result.sha256, result.task, field.path) not in done
        ]
        if not found:
            _say("nothing is to be looked at; --all goes through all fields")
        yield from sorted(found, key=lambda pair: -1.0 if pair[1].confidence is None else pair[1].confidence)

    def _show(self, result: Result, field: FieldResult) -> None:
        sure = "unknown" if field.confidence is None else f"{field.confidence:.2f}"
        _say(f"\n{result.document}\n{field.path}: {shown(field.value)}   (confidence {sure})")
        text = self.results.document(result).text
        for quote in field.quotes:
            page = f" page {quote.page}" if quote.page is not None else ""
            _say(f"  {told(quote)}{page}")
            if quote.start is not None and quote.end is not None:
                around = text[max(quote.start - CONTEXT, 0) : quote.end + CONTEXT]
                _say(f"  … {' '.join(around.split())} …")

    def _ask(self, result: Result, field: FieldResult) -> bool:
        """Whether the field was judged. Raises EOFError for q and where no more keys come."""
        _say(KEYS)
        while True:
            key = read_line("> ").strip().lower()
            if key == "q":
                raise EOFError
            if key == "s":
                return False
            if key not in ("y", "n", "e"):
                _say(KEYS)
                continue
            right, quote = (field.value if key == "y" else None), None
            if key == "e":
                right = _typed(read_line("what is right: "), field.value)
                quote = read_line("the document's words for it, or nothing: ").strip() or None
            try:
                self.correct(result, field.path, right, quote)
            except UsageError as error:
                _say(f"Error: {error}")
                continue
            return True


class _Prompts:
    """The messages that a model is asked with, for each lesson, by an analyzer of the lesson's domain."""

    def __init__(self, llm: LLM, domain: Path | None) -> None:
        self._llm, self._domain = llm, domain
        self._asked: dict[str, Callable[[Lesson], list[dict[str, Any]]]] = {}

    def of(self, lesson: Lesson) -> list[dict[str, Any]]:
        from glasshouse.documents.learning.lesson_prompt import as_asked

        if lesson.domain not in self._asked:
            self._asked[lesson.domain] = as_asked(_analyzer(self._llm, lesson.domain, self._domain))
        return self._asked[lesson.domain](lesson)


def _cases(store: Path) -> list[Case]:
    from glasshouse.documents.learning.correction_store import opened

    corrections, _ = opened(store)
    cases = corrections.cases()
    if not cases:
        raise UsageError(
            "nothing was corrected yet", where=store, fix="begin with: glasshouse documents correct"
        )
    return cases


def _ask(model: str, cases: Sequence[Case], domain: Path | None) -> dict[Asked, bool]:
    """Which fields of the cases a model has right."""
    from glasshouse.documents.learning.promotion import ask_cases
    from glasshouse.llm.open import open_llm
    from glasshouse.llm.stack import standard

    async def work() -> dict[Asked, bool]:
        llm = standard(open_llm(model))
        try:
            answers: dict[Asked, bool] = {}
            for name in dict.fromkeys(case.domain for case in cases):
                own = [case for case in cases if case.domain == name]
                answers |= await ask_cases(_analyzer(llm, name, domain), own)
            return answers
        finally:
            await llm.close()

    return asyncio.run(work())


def _analyzer(llm: LLM, name: str, domain: Path | None) -> Analyzer:
    from glasshouse.documents.analyzer import Analyzer
    from glasshouse.documents.packs.pack import load_pack

    own = None if domain is None else load_pack(domain)
    return Analyzer(llm, domain=own if own is not None and own.name == name else name)


def _name(model: str | None) -> str:
    return str(_newest()) if model is None else model


def _json(text: str) -> Any:
    """A JSON value; what is none is a text, so that nobody must write quotation marks inside others."""
    try:
        return json_module.loads(text)
    except ValueError:
        return text


def _typed(text: str, before: Any) -> Any:
    """What a person typed: a text where the value was one, else JSON."""
    text = text.strip()
    return text if isinstance(before, str) else _json(text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return "unknown"


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
