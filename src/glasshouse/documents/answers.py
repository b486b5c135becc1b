"""What a reply says, value by value: where in it, and which words of the document it gives for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

QUOTE = "quote"
"""The key beside a value that holds the words it comes from."""


@dataclass(frozen=True)
class Answer:
    """One value of a reply. `path`: "revenue", "findings[0].finding"."""

    path: str
    value: Any
    quote: str | None = None  # the model's words
    due: bool = False  # whether a value here ought to have a quote
    source: str = ""  # its path in the reply, where that is another


def answers(reply: dict[str, Any]) -> list[Answer]:
    """Of every task but extraction. A quote belongs to all values that stand beside it in its object."""
    return list(_walk(reply, "", None, False))


def _walk(value: Any, path: str, quote: str | None, due: bool) -> Iterator[Answer]:
    if isinstance(value, dict):
        quoted = QUOTE in value
        for key, inner in value.items():
            if not (quoted and key == QUOTE):
                place = f"{path}.{key}" if path else key
                yield from _walk(inner, place, value.get(QUOTE) if quoted else quote, quoted or due)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _walk(inner, f"{path}[{number}]", quote, due)
    else:
        yield Answer(path, value, quote or None, due, path)
