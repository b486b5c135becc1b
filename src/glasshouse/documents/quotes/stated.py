"""The one sentence of a document that states a value, where somebody says what is right but not where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glasshouse.documents.chunking.sentences import sentences
from glasshouse.documents.quotes.evidence import holds
from glasshouse.documents.result import QuoteCheck
from glasshouse.files.document import Block, Document


def stated(document: Document, value: Any) -> QuoteCheck | None:
    """The sentence or table row that holds the value; None where several do, since nobody knows which of
    them is meant, where none does, and for what cannot be compared: yes, no and "not mentioned"."""
    if value is None or isinstance(value, bool | list | dict) or not any(map(str.isalnum, str(value))):
        return None
    found = [span for span in _spans(document) if holds(document.text[slice(*span)], value)]
    if len(found) != 1:
        return None
    start, end = found[0]
    text = document.text[start:end]
    return QuoteCheck(
        asked=text,
        status="verbatim",
        start=start,
        end=end,
        page=document.page_at(start),
        text=text,
        similarity=1.0,
    )


def _spans(document: Document) -> Iterator[tuple[int, int]]:
    blocks = document.blocks or (Block("paragraph", 0, len(document.text)),)
    for block in blocks:
        text, at = document.slice(block), block.start
        if block.kind in ("table", "code"):
            for line in text.split("\n"):
                yield at, at + len(line)
                at += len(line) + 1
        else:
            yield from ((at + begin, at + end) for begin, end in sentences(text))
