"""`glasshouse rate`: two replies side by side, and what you think of them as training data."""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glasshouse.cli.person import read_line
from glasshouse.cli.run import Data, Device, MoreData, all_data
from glasshouse.cli.visible import visible
from glasshouse.core.errors import UsageError

if TYPE_CHECKING:
    from glasshouse.alignment.human_feedback import Comparison, FeedbackFolder, Rated, Side

KEYS = "1 left is better   2 right   t tie   b both bad   e edit the better one   s skip   q quit"

WIDE = 100
"""Columns where the output is no terminal."""


def register(app: typer.Typer) -> None:
    app.command(
        "rate",
        epilog="\b\nExample:\n  glasshouse rate runs/pocket --data prompts.jsonl --out feedback\n"
        "  glasshouse train reward --model runs/pocket --data feedback/preferences.jsonl --out runs/reward",
    )(rate)


def rate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run or model folder.", show_default="the newest run"),
    ] = None,
    data: Data = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder of the judgements; more are added.")
    ] = Path("feedback"),
    other: Annotated[
        str | None,
        typer.Option(
            "--other",
            metavar="MODEL",
            help="Another model for the second reply.",
            show_default="the same, another seed",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the sampling.", min=0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling, and of which reply stands where.", min=0)] = 0,
    max_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.", min=1)] = 256,
    who: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who judges.", show_default="your user name")
    ] = None,
    device: Device = None,
    more: MoreData = None,
) -> None:
    """Choose between two replies to each prompt; without --data you type the prompts, one a line.

    FOLDER/preferences.jsonl is ready for `train reward` and `train dpo`, FOLDER/sft.jsonl (replies that you
    edited) for `train sft`. A prompt that was judged is not asked again.
    """
    if other is None and temperature == 0:
        raise UsageError(
            "one model at temperature 0 says everything twice",
            fix="set --temperature 1, or name another model with --other",
        )
    from glasshouse.alignment.human_feedback import FeedbackFolder, Rated
    from glasshouse.core.model_folders import resolve_model
    from glasshouse.inference import LanguageModel

    def opened(name: str | None) -> Rated:
        folder = resolve_model(name)
        return Rated(str(folder), LanguageModel.load(folder, device=device or "auto"))

    prompts = _prompts(all_data(data or [], more))
    first = opened(model)
    session = Session(
        first,
        first if other is None else opened(other),
        FeedbackFolder(out, who or _user()),
        {"temperature": temperature, "seed": seed, "max_new_tokens": max_tokens},
    )
    judged = session.run(prompts)
    typer.echo(f"{judged} judged now, {len(session.folder)} in all, in {out}", err=True)


class Session:
    """Prompt after prompt: two replies are shown, a key is read, the judgement is written down."""

    def __init__(self, first: Rated, second: Rated, folder: FeedbackFolder, sampling: dict[str, Any]) -> None:
        self.first, self.second, self.folder, self.sampling = first, second, folder, sampling

    def run(self, prompts: Iterable[list[dict[str, Any]]]) -> int:
        """How many prompts were judged before the prompts, the keys or the patience ended."""
        from glasshouse.alignment.human_feedback import compare

        judged = 0
        try:
            for prompt in prompts:
                if self.folder.has(prompt):
                    continue
                comparison = compare(prompt, self.first, self.second, **self.sampling)
                if comparison is None:
                    _tell("all replies to this prompt are the same; it is passed over")
                    continue
                show(comparison)
                judged += self._ask(comparison)
        except (EOFError, KeyboardInterrupt):
            _tell("")
        return judged

    def _ask(self, comparison: Comparison) -> bool:
        """Whether the prompt was judged. Raises EOFError for q and where no more keys come."""
        _tell(KEYS)
        while True:
            match read_line("> ").strip().lower():
                case "1" | "2" as key:
                    self.folder.prefer(comparison, _side(key))
                case "t":
                    self.folder.tie(comparison)
                case "b":
                    self.folder.tie(comparison, both_bad=True)
                case "e" | "e1" | "e2" as key:
                    if not self._edit(comparison, key[1:]):
                        continue
                case "s":
                    return False
                case "q":
                    raise EOFError
                case _:
                    _tell(KEYS)
                    continue
            return True

    def _edit(self, comparison: Comparison, key: str) -> bool:
        """Have the better reply rewritten, in $EDITOR or on one line; False where nothing was written."""
        while key not in ("1", "2"):
            key = read_line("which is better, 1 or 2? ").strip()
        before = comparison.replies[_side(key)].text
        if sys.stdin.isatty():
            text = edited(before)
        else:
            text = read_line("the reply as it should be: ")
        if not text.strip():
            _tell("nothing was written")
            return False
        self.folder.edit(comparison, _side(key), text.strip())
        return True


def edited(text: str) -> str:
    """The text as the person's editor leaves it: $VISUAL, $EDITOR or vi. Raises UsageError without one."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reply.txt"
        path.write_text(text, encoding="utf-8")
        try:
            left = subprocess.run([*editor, str(path)], check=False).returncode
        except OSError as error:
            raise UsageError(
                f"the editor did not start: {error.strerror}",
                where=editor[0],
                fix="set EDITOR to one that does",
            ) from None
        return path.read_text(encoding="utf-8") if left == 0 else ""


def show(comparison: Comparison) -> None:
    """The prompt, and under it both replies side by side."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print()
    for message in comparison.prompt:
        console.print(Text(f"{message['role']}: {visible(_text(message))}", style="bold"))
    columns = Table.grid(expand=True, padding=(0, 1))
    columns.add_column(ratio=1)
    columns.add_column(ratio=1)
    left, right = (Text(visible(reply.text)) for reply in comparison.replies)
    columns.add_row(Panel(left, title="1"), Panel(right, title="2"))
    console.print(columns)


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _prompts(data: list[str]) -> Iterator[list[dict[str, Any]]]:
    """The prompts of the files, which are checked at once, or lines that are typed."""
    if data:
        from glasshouse.files import read_prompts

        rows = read_prompts(data)
        return (row["prompt"] for row in rows)
    return _typed()


def _typed() -> Iterator[list[dict[str, Any]]]:
    while True:
        if text := read_line("\nprompt> ").strip():
            yield [{"role": "user", "content": text}]


def _side(key: str) -> Side:
    return 0 if key == "1" else 1


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return "unknown"


def _tell(text: str) -> None:
    """Questions and news go to stderr: stdout shows what is judged."""
    print(text, file=sys.stderr, flush=True)
