"""`glasshouse tokenizer`: train a tokenizer on your text, and look at what tokenizers make of a text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glasshouse.core.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from glasshouse.tokenizer.counting import Column, Tokenized

app = typer.Typer(
    help="Train a tokenizer on your own text, or look at what tokenizers make of a text.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Example:  glasshouse tokenizer show Hello hamburger 2024",
)

_SHOWN = 400
"""Tokens of one text that the table shows; --json gives all."""

_COLOURS = (
    "black on bright_cyan",
    "black on bright_yellow",
    "black on bright_green",
    "black on bright_magenta",
)


@app.command(
    epilog="\b\nExample:\n"
    '  echo "the cat sat on the mat, the dog sat on the log" > pets.txt\n'
    "  glasshouse tokenizer train --data pets.txt --vocab-size 300 --out pets"
)
def train(
    data: Annotated[
        list[Path], typer.Option(metavar="PATH...", help="Files or folders: .txt .md .jsonl .json .parquet")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the tokenizer into.")],
    vocab_size: Annotated[
        int, typer.Option(metavar="N", help="Tokens: 300 to 200000, or 265 for plain bytes.")
    ] = 8192,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="More files or folders.")
    ] = None,
) -> None:
    """Learn a byte-level BPE from text and save it as Hugging Face's libraries read it.

    The folder gets tokenizer.json, tokenizer_config.json and chat_template.jinja. Nine special tokens and the
    256 bytes count in the size.
    """
    from glasshouse.tokenizer import Tokenizer
    from glasshouse.tokenizer.training import check_size

    check_size(vocab_size)
    reading = _Reading([*data, *(more or [])])
    start = time.perf_counter()
    tokenizer = Tokenizer.train(reading, vocab_size)
    seconds = time.perf_counter() - start
    tokenizer.save(out)
    typer.echo(
        f"{tokenizer.vocab_size:,} tokens from {reading.documents:,} documents, "
        f"{reading.characters / 1e6:.1f} M characters, in {seconds:.1f} s"
    )
    typer.echo(f"saved  {out}")
    typer.echo(f"look   glasshouse tokenizer show --tokenizer {out}")


class _Reading:
    """The texts of the user's files, with a bar over the files and counts of what went through."""

    def __init__(self, paths: list[Path]) -> None:
        from glasshouse.files.documents import SUFFIXES
        from glasshouse.files.paths import find_files

        self._files = find_files(paths, SUFFIXES)
        self.documents = self.characters = 0

    def __iter__(self) -> Iterator[str]:
        from glasshouse.core.progress import bar
        from glasshouse.files import read_documents

        with bar("reading", total=len(self._files), unit="file") as progress:
            for done, file in enumerate(self._files):
                for document in read_documents(file.path):
                    self.documents += 1
                    self.characters += len(document["text"])
                    progress.update(done, read=f"{self.characters / 1e6:.1f} M characters")
                    yield document["text"]
            progress.update(len(self._files))


@app.command(
    epilog="\b\nExamples:\n"
    "  glasshouse tokenizer show Hello hamburger uncharacteristically ChatGPT 2024 1,234,567\n"
    "  glasshouse tokenizer show --tokenizer runs/pocket --tokenizer path/to/gpt2 Hello\n"
    "  glasshouse tokenizer show --file README.md --price-per-million 0.50"
)
def show(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; without any, six examples.")
    ] = None,
    tokenizer: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Run folder or any Hugging Face folder; repeat it to compare. Default: the newest run.",
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option(metavar="PATH", help="A text file to show as well.")] = None,
    price_per_million: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="Price of a million tokens.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show token boundaries, ids, counts, tokens per word and the price of texts, for one or more tokenizers.

    In the table · is a space and ↵ a line end.
    """
    from glasshouse.cli.tables import print_json
    from glasshouse.tokenizer import Tokenizer
    from glasshouse.tokenizer.counting import EXAMPLES, Column, tokenize

    wanted = list(texts or [])
    if file is not None:
        from glasshouse.files.text import read_text

        wanted.append(read_text(file))
    wanted = wanted or list(EXAMPLES)
    columns: list[Column] = []
    for name in tokenizer or [None]:
        folder = _tokenizer_folder(name)
        loaded = Tokenizer.load(folder)
        columns.append(
            Column(str(name or folder), loaded.vocab_size, [tokenize(loaded, text) for text in wanted])
        )
    if as_json:
        print_json([_as_json(column, price_per_million) for column in columns])
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(100, 60 * len(columns)))
    console.print(_table(columns, price_per_million, coloured=console.color_system is not None))


def _tokenizer_folder(name: Path | None) -> Path:
    """The folder with a tokenizer that a name means: itself, a run's, or the newest run's."""
    from glasshouse.core.model_folders import resolve_model

    if name is None:
        return resolve_model(None)
    for folder in (name, name / "tokenizer", name / "model"):
        if any(
            (folder / file).is_file()
            for file in ("tokenizer.json", "tokenizer.model", "vocab.bpe", "merges.txt")
        ):
            return folder
    if name.is_dir():
        raise UsageError(
            "there is no tokenizer in this folder",
            where=name,
            fix="name a run or a folder with tokenizer.json",
        )
    return resolve_model(name)


def _table(columns: list[Column], rate: float | None, coloured: bool) -> Table:
    """Texts as rows, tokenizers as columns."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 1, 0))
    for column in columns:
        table.add_column(f"{column.name} ({column.vocab_size:,} tokens)", overflow="fold")
    for row in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*(_cell(text, rate, coloured) for text in row))
    if len(columns[0].texts) > 1:
        totals = [f"all: {_counts(column.count, column.tokens_per_word, rate)}" for column in columns]
        table.add_row(*totals, style="bold")
    return table


def _cell(text: Tokenized, rate: float | None, coloured: bool) -> Text:
    from rich.text import Text

    cell = Text()
    for i, piece in enumerate(text.pieces[:_SHOWN]):
        if coloured:
            cell.append(piece, style=_COLOURS[i % len(_COLOURS)])
        else:
            cell.append(("|" if i else "") + piece)
    left = text.count - _SHOWN
    if left > 0:
        cell.append(f" … and {left:,} more", style="dim")
    cell.append("\n" + " ".join(map(str, text.ids[:_SHOWN])) + (" …" if left > 0 else ""), style="dim")
    cell.append("\n" + _counts(text.count, text.tokens_per_word, rate))
    return cell


def _counts(tokens: int, per_word: float | None, rate: float | None) -> str:
    from glasshouse.tokenizer.counting import price

    parts = [f"{tokens:,} token{'' if tokens == 1 else 's'}"]
    parts.append("no words" if per_word is None else f"{per_word:.2f} per word")
    if rate is not None:
        parts.append(f"${price(tokens, rate):.9f}".rstrip("0").rstrip("."))
    return ", ".join(parts)


def _as_json(column: Column, rate: float | None) -> dict[str, Any]:
    return {
        "tokenizer": column.name,
        "vocab_size": column.vocab_size,
        **_counts_as_json(column, rate),
        "texts": [
            {"text": text.text, "tokens": text.pieces, "ids": text.ids, **_counts_as_json(text, rate)}
            for text in column.texts
        ],
    }


def _counts_as_json(counted: Column | Tokenized, rate: float | None) -> dict[str, Any]:
    from glasshouse.tokenizer.counting import price

    counts: dict[str, Any] = {"count": counted.count, "tokens_per_word": counted.tokens_per_word}
    return counts if rate is None else {**counts, "price_usd": price(counted.count, rate)}
