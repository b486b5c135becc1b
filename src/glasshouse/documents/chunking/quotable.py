"""What may be quoted of a part of a document: its sentences, and the rows of its tables."""

from __future__ import annotations

from collections.abc import Set

from glasshouse.documents.chunking.sentences import sentences
from glasshouse.files.document import Document


def quotable(document: Document, start: int, end: int, abbreviations: Set[str] = frozenset()) -> list[str]:
    """Each text once, in order, with single blanks for all white space. What holds no letter and no digit
    proves nothing and is left out."""
    found: list[str] = []
    for block in document.blocks:
        first, last = max(block.start, start), min(block.end, end)
        if first >= last:
            continue
        text = document.text[first:last]
        if block.kind in ("table", "code"):
            found += text.split("\n")
        else:
            found += [text[begin:stop] for begin, stop in sentences(text, abbreviations)]
    plain = (" ".join(each.split()) for each in found)
    return [each for each in dict.fromkeys(plain) if any(map(str.isalnum, each))]
