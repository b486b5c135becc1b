"""One analysis on the terminal: values with their confidence and page, quotes, and what to beware of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from glasshouse.cli.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from glasshouse.documents.result import FieldResult, QuoteCheck, Result

WIDE = 120
"""Columns where the output is no terminal."""


def show_result(result: Result) -> None:
    """The answer goes to stdout; how it came about is one line at its end."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    _line(console, f"{result.document}: {result.task}", "bold")
    if result.fields:
        console.print(_fields(result))
    for theme in result.themes:
        _line(console, f"theme: {theme}")
    for found in result.contradictions:
        values = " against ".join(shown(value) for value in found.values)
        _line(console, f"contradiction: {found.path}: {values}. {found.resolution}", "yellow")
        for quote in found.quotes:
            _line(console, f"    {told(quote)}", "dim")
    for check in result.checks:
        if not check.passed:
            _line(console, f"failed check: {check.check}: {check.what}", "red")
    if result.review:
        _line(console, f"to be looked at: {', '.join(result.review)}", "yellow")
    if result.quotes_dropped:
        _line(
            console, f"dropped: {result.quotes_dropped} quotes that stand nowhere in the document", "yellow"
        )
    for notice in result.notices:
        _line(console, notice.what, "yellow")
    _line(console, _foot(result), "dim")


def shown(value: Any) -> str:
    """A value as people read it.

    >>> [shown(value) for value in (None, "a town", 4200000, True, ["a", 1])]
    ['not mentioned', 'a town', '4,200,000', 'true', '["a", 1]']
    """
    if value is None:
        return "not mentioned"
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return json.dumps(value, ensure_ascii=False)


def told(quote: QuoteCheck) -> str:
    """A quote as the document has it, and how it differs from the model's words."""
    if quote.status == "missing":
        return f"not in the document: “{_one_line(quote.asked)}”"
    words = f"“{_one_line(quote.text or quote.asked)}”"
    return f"{words} (not verbatim: {quote.difference or 'it differs'})" if quote.status == "near" else words


def _fields(result: Result) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("field")
    table.add_column("value", ratio=2)
    table.add_column("sure", justify="right")
    table.add_column("page", justify="right")
    table.add_column("quote", ratio=3)
    for field in result.fields:
        low = field.path in result.review
        table.add_row(
            _text(field.path),
            _text(shown(field.value), "dim" if field.value is None else "yellow" if low else ""),
            "–" if field.confidence is None else f"{field.confidence:.2f}",
            _pages(field),
            _text("\n".join(told(quote) for quote in field.quotes), "dim"),
        )
    return table


def _pages(field: FieldResult) -> str:
    return (
        ", ".join(dict.fromkeys(str(quote.page) for quote in field.quotes if quote.page is not None)) or "–"
    )


def _foot(result: Result) -> str:
    from glasshouse.llm.monitoring import show

    tokens = result.prompt_tokens + result.new_tokens
    facts = [
        result.model,
        f"domain {result.domain}",
        f"{result.chunks} parts" if result.chunks > 1 else "",
        f"{tokens:,} tokens",
        show.dollars(result.cost) if result.cost is not None else "",
        show.seconds(result.seconds),
    ]
    return ", ".join(fact for fact in facts if fact)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(visible(text), style=style)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(_text(_one_line(text), style), soft_wrap=True)
