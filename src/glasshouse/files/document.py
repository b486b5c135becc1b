"""A document as every reader of this room gives it: one text, and where each part of it stood."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["heading", "paragraph", "list_item", "table", "code", "caption", "note", "comment", "header"]
"""What a block is. "note": a foot- or speaker's note; "header": what a letter or an e-mail begins with."""

SEPARATOR = "\n\n"
"""Between the texts of two blocks."""


@dataclass(frozen=True)
class Block:
    """A part of a document: `document.text[start:end]`."""

    kind: Kind
    start: int  # characters of Document.text, half open
    end: int
    page: int | None = None  # from 1: a page, a slide or a sheet; None where the format has none
    level: int | None = None  # of a heading, 1 the highest; of a list item, its depth from 1
    place: str | None = None  # where in the file, as its readers say it: "Sheet1!A1:C4", "chapter-2.xhtml"
    box: tuple[float, float, float, float] | None = None  # left, bottom, right, top in points, of a PDF


@dataclass(frozen=True)
class Flag:
    """Something about a file that whoever uses its text should know.

    hidden_text      words that a reader of the page does not see; they are left out of `text`, and stand here
    wrong_extension  the content is of another format than the name says; it was read as what it is
    no_text          pages without any text (scanned ones)
    cut              the file goes on, but no more of it was read
    broken           a part could not be read and is missing
    """

    kind: Literal["hidden_text", "wrong_extension", "no_text", "cut", "broken"]
    what: str  # one sentence
    pages: tuple[int, ...] = ()
    text: str = ""  # of hidden_text: the words


@dataclass(frozen=True)
class Document:
    """The text of a file, block by block."""

    name: str  # tells it from others: the file's name
    text: str
    blocks: tuple[Block, ...]  # in reading order, not overlapping; between two stands SEPARATOR
    format: str  # "pdf", "docx", ...
    pages: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  # title, author, date, ... as the file has them
    flags: tuple[Flag, ...] = ()

    def block_at(self, offset: int) -> Block | None:
        """The block that holds the character at `offset`; between two blocks the one before."""
        place = bisect.bisect_right(self.blocks, offset, key=lambda block: block.start) - 1
        return self.blocks[place] if place >= 0 else None

    def page_at(self, offset: int) -> int | None:
        block = self.block_at(offset)
        return None if block is None else block.page

    def slice(self, block: Block) -> str:
        return self.text[block.start : block.end]

    @classmethod
    def of_text(cls, name: str, text: str) -> Document:
        """The text of a document, or a part of it, without the file: what stands between SEPARATORs is a
        paragraph, whatever it was."""
        blocks, start = [], 0
        for part in text.split(SEPARATOR):
            if bare := part.strip():
                begin = start + part.index(bare)
                blocks.append(Block("paragraph", begin, begin + len(bare)))
            start += len(part) + len(SEPARATOR)
        return cls(name, text, tuple(blocks), "txt")
