"""Puts the document of a file together, block by block; what nobody sees in any format stays out of it."""

from __future__ import annotations

from collections.abc import Mapping

from glasshouse.files.document import SEPARATOR, Block, Document, Flag, Kind
from glasshouse.files.invisible import smuggled_flags, visible


class Builder:
    """Puts a document together, block by block."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0
        self._smuggled: list[tuple[str, int | None]] = []  # words that are not drawn, and their page

    def add(
        self,
        text: str,
        kind: Kind = "paragraph",
        *,
        page: int | None = None,
        level: int | None = None,
        place: str | None = None,
        box: tuple[float, float, float, float] | None = None,
    ) -> None:
        """A block at the end; white space around its text goes, and an empty one is left out.

        Characters that are not drawn go, too; the document has a flag where words were written in them.
        """
        text, smuggled = visible(text)
        if smuggled:
            self._smuggled.append((smuggled, page))
        text = text.strip()
        if not text:
            return
        if self._parts:
            self._parts.append(SEPARATOR)
            self._length += len(SEPARATOR)
        end = self._length + len(text)
        self._blocks.append(Block(kind, self._length, end, page, level, place, box))
        self._parts.append(text)
        self._length = end

    @property
    def characters(self) -> int:
        """So far."""
        return self._length

    def document(
        self,
        name: str,
        format: str,
        *,
        pages: int | None = None,
        metadata: Mapping[str, str] | None = None,
        flags: tuple[Flag, ...] = (),
    ) -> Document:
        text, blocks = "".join(self._parts), tuple(self._blocks)
        metadata = {key: visible(value)[0] for key, value in (metadata or {}).items()}
        flags = (*flags, *smuggled_flags(self._smuggled))
        return Document(name, text, blocks, format, pages, metadata, flags)
