"""A quote of a model's, looked up in its document: what stands in a result."""

from __future__ import annotations

from glasshouse.documents.quotes.search import Source
from glasshouse.documents.result import QuoteCheck
from glasshouse.files.document import Document


def check(source: Source, document: Document, asked: str) -> QuoteCheck:
    """`source` is the index of `document.text`, made once for all quotes of a document."""
    found = source.find(asked)
    if found is None:
        return QuoteCheck(asked=asked, status="missing")
    return QuoteCheck(
        asked=asked,
        status="verbatim" if found.verbatim else "near",
        start=found.start,
        end=found.end,
        page=document.page_at(found.start),
        text=found.text,
        difference=found.difference,
        similarity=found.similarity,
        times=found.times,
    )
