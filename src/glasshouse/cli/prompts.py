"""`glasshouse prompts`: versions of prompts, what is wrong with them, and whether their examples pass."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glasshouse.cli.run import Json
from glasshouse.core.errors import UsageError

if TYPE_CHECKING:
    from glasshouse.llm.prompts import Finding, Outcome, PromptStore, Template

app = typer.Typer(
    help="Look at the versions of prompts, find their mistakes and run their examples.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Example:  glasshouse prompts lint examples/prompts",
)

Folder = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER", help="Folder of prompts: NAME/1.md, NAME/2.md, ...")
]
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="NAME, NAME@VERSION or a file.")]

_FOLDER = Path("prompts")
_WIDE = 160
"""Columns where the output is no terminal."""


@app.command("list", epilog="Example:  glasshouse prompts list --folder examples/prompts")
def list_(folder: Folder = _FOLDER, json: Json = False) -> None:
    """All prompts with their versions; "changed" is one that differs from what was used."""
    from glasshouse.llm.prompts import PromptStore

    store = PromptStore(folder)
    rows = [_row(store, name, version) for name in store.names() for version in store.versions(name)]
    rows += [
        {"prompt": name, "version": version, "state": "gone", "hash": None, "inputs": [], "description": ""}
        for name, version in store.gone()
    ]
    if json:
        _print_json(rows)
        return
    table = _table("prompt", "version", "state", "hash", "inputs", "description")
    for row in rows:
        table.add_row(
            row["prompt"],
            str(row["version"]),
            row["state"],
            row["hash"] or "",
            ", ".join(row["inputs"]),
            row["description"],
        )
    _console().print(table)


def _row(store: PromptStore, name: str, version: int) -> dict[str, Any]:
    template = store.template(name, version)
    return {
        "prompt": name,
        "version": version,
        "state": store.state(name, version),
        "hash": template.hash,
        "inputs": list(template.header.inputs),
        "description": template.header.description,
    }


@app.command(
    epilog='\b\nExample:\n  glasshouse prompts show summary --folder examples/prompts --set report="A text"'
)
def show(
    prompt: Prompt,
    folder: Folder = _FOLDER,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="INPUT=VALUE", help="Render with this input; @FILE reads a file."),
    ] = None,
    json: Json = False,
) -> None:
    """A prompt as it is written, or with --set as the model gets it. Nothing is recorded as used."""
    template = _template(prompt, folder)
    if settings is None:
        if json:
            _print_json(
                template.header.model_dump(mode="json") | {"hash": template.hash, "text": template.text}
            )
        else:
            typer.echo(template.text, nl=False)
        return
    request = template.render(_inputs(template, settings))
    if json:
        _print_json(request.model_dump(mode="json", exclude_none=True))
        return
    for message in request.messages:
        _console().print(f"@{message['role']}", style="bold", markup=False)
        typer.echo(_visible(message["content"]) + "\n")


@app.command(epilog="Example:  glasshouse prompts diff summary 1 2 --folder examples/prompts")
def diff(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a prompt.")],
    before: Annotated[
        int | None, typer.Argument(metavar="[BEFORE]", help="A version.", show_default="the one before")
    ] = None,
    after: Annotated[
        int | None, typer.Argument(metavar="[AFTER]", help="Another.", show_default="the newest")
    ] = None,
    folder: Folder = _FOLDER,
    json: Json = False,
) -> None:
    """What changed between two versions of a prompt, line by line."""
    from rich.text import Text

    from glasshouse.llm.prompts import PromptStore

    store = PromptStore(folder)
    known = store.versions(name)
    after = known[-1] if after is None else after
    if before is None:
        earlier = [version for version in known if version < after]
        if not earlier:
            raise UsageError(
                f"there is no version of '{name}' before {after}", where=folder, fix="name two that there are"
            )
        before = earlier[-1]
    one, other = store.template(name, before), store.template(name, after)
    lines = list(
        difflib.unified_diff(
            one.text.splitlines(), other.text.splitlines(), one.path, other.path, lineterm="", n=3
        )
    )
    if json:
        _print_json({"prompt": name, "before": before, "after": after, "diff": lines})
        return
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        style = "bold" if line.startswith(("+++", "---")) else colours.get(line[:1], "")
        _console().print(Text(_visible(line), style=style), soft_wrap=True)
    if not lines:
        typer.echo("no difference", err=True)


@app.command(epilog="Example:  glasshouse prompts lint examples/prompts")
def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Templates, or folders of them.", show_default="prompts"),
    ] = None,
    json: Json = False,
) -> None:
    """Find the usual mistakes of prompts: contradictions, too many demands, foreign text in risky places.

    No model is asked. Of the versions of a prompt only the newest is read, for the older ones are
    kept as they were. Ends with exit code 1 where something was found.
    """
    from glasshouse.llm.prompts import Template, lint

    found: list[tuple[Path, Finding]] = []
    files = _newest(paths or [_FOLDER])
    for path in files:
        template = Template.parse(_text(path), str(path))
        found += [(path, finding) for finding in lint(template)]
    if json:
        _print_json([{"file": str(path), **vars(finding)} for path, finding in found])
    else:
        for path, finding in found:
            _console().print(f"{path}:{finding.line}", style="bold", markup=False, end=" ", soft_wrap=True)
            _console().print(finding.rule, style="yellow", markup=False)
            typer.echo(f"    {_visible(finding.why)}\n    Fix: {_visible(finding.fix)}")
        mistakes = f"{len(found)} mistake{'s' * (len(found) != 1)}"
        typer.echo(f"{mistakes} in {len(files)} prompt{'s' * (len(files) != 1)}", err=True)
    if found:
        raise typer.Exit(1)


@app.command(
    "test", epilog="Example:  glasshouse prompts test summary openai:gpt-5-mini --folder examples/prompts"
)
def run(
    prompt: Prompt,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run or model folder, openai:NAME, anthropic:NAME, http://host:port/v1#NAME.",
        ),
    ],
    folder: Folder = _FOLDER,
    json: Json = False,
) -> None:
    """Ask a model the examples of a prompt and check its replies. Ends with exit code 1 where one fails."""
    from glasshouse.llm.blocking import wait
    from glasshouse.llm.open import open_llm  # pyright: ignore[reportMissingImports]
    from glasshouse.llm.prompts import run_examples

    template = _template(prompt, folder)
    if not template.header.examples:
        raise UsageError(
            f"the prompt '{template.name}' has no examples",
            where=template.path,
            fix="give it some, in its header",
        )

    async def ask() -> list[Outcome]:
        llm = open_llm(model)
        try:
            return await run_examples(template, llm)
        finally:
            await llm.close()

    outcomes = wait(ask())
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if json:
        _print_json([{**vars(outcome), "passed": outcome.passed} for outcome in outcomes])
    else:
        for outcome in outcomes:
            told = ("passed", "green") if outcome.passed else ("failed", "red")
            _console().print(told[0], style=told[1], end="  ")
            typer.echo(_visible(outcome.example))
            for problem in outcome.problems:
                typer.echo(f"        {_visible(problem)}")
            if outcome.problems and outcome.reply:
                typer.echo(f"        reply: {_visible(outcome.reply)}")
        typer.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} examples passed", err=True)
    if failed:
        raise typer.Exit(1)


def _template(prompt: str, folder: Path) -> Template:
    """From NAME, NAME@VERSION or the path of a file."""
    from glasshouse.llm.prompts import PromptStore, Template

    if Path(prompt).is_file():
        return Template.load(prompt)
    name, at, version = prompt.partition("@")
    if at and not version.isdecimal():
        raise UsageError(f"'{version}' is no version", where=prompt, fix=f"write {name}@1")
    return PromptStore(folder).template(name, int(version) if at else None)


def _inputs(template: Template, settings: list[str]) -> dict[str, Any]:
    """Inputs from INPUT=VALUE: texts as they are, anything else as JSON."""
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"cannot read the input '{setting}'", fix="write it as name=value or name=@file")
        if value.startswith("@"):
            value = _text(Path(value[1:]))
        wanted = template.header.inputs.get(name)
        if wanted is not None and wanted.type != "string":
            try:
                given[name] = json.loads(value)
            except ValueError:
                raise UsageError(
                    f"the value of '{name}' is not JSON", where=setting, fix=f"give a JSON {wanted.type}"
                ) from None
        else:
            given[name] = value
    return given


def _newest(paths: list[Path]) -> list[Path]:
    """Files as they are; of folders each template, and only the newest where the names are numbers."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        for folder in sorted({file.parent for file in path.rglob("*.md")}):
            own = sorted(folder.glob("*.md"))
            versions = [file for file in own if file.stem.isdecimal()]
            files += [file for file in own if file not in versions and _begins_as_template(file)]
            if versions:
                files.append(max(versions, key=lambda file: int(file.stem)))
    if not files:
        raise UsageError(
            "there are no prompts", where=paths[0], fix="name a template or a folder with NAME/1.md"
        )
    return files


def _begins_as_template(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(3) == b"---"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=path) from None


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _visible(text: str) -> str:
    from glasshouse.cli.visible import visible

    return visible(text)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
