"""Records of a very large XML file, one at a time: nothing of it is kept, whatever it is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import IO
from xml.parsers import expat

from glasshouse.core.errors import DataError

MAX_PARTS = 1000
"""Elements within one record; more are passed over. A cell with text in many fonts has a few dozen."""

_CHUNK_BYTES = 1 << 16
_FIX = "save the file again with the program that made it"


@dataclass
class Part:
    """An element within a record, its text without that of elements within it."""

    tag: str  # without namespace, as everywhere here
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Record:
    tag: str
    attributes: dict[str, str]
    parts: list[Part] = field(default_factory=list)  # in their order in the file

    def get(self, attribute: str, default: str = "") -> str:
        return self.attributes.get(attribute, default)


def stream_xml(
    file: IO[bytes], where: str, *, whole: Collection[str], heads: Collection[str] = (), without: str = ""
) -> Iterator[Record]:
    """Elements called as one of `whole` with all that is in them, those in `heads` as soon as they begin.

    Elements called `without` are passed over with all that is in them. Raises DataError, with `where` in it,
    for what is not well-formed and for a DTD: nothing that is read so has one.
    """
    reader = _Reader(whole, heads, without)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters

    def refuse(*_: object) -> None:
        raise DataError("an XML part with a DTD is not read", where=where, fix=_FIX)

    parser.StartDoctypeDeclHandler = refuse
    try:
        while chunk := file.read(_CHUNK_BYTES):
            parser.Parse(chunk, False)
            yield from reader.drained()
        parser.Parse(b"", True)
        yield from reader.drained()
    except DataError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: an encoding that it lacks
        raise DataError(f"not well-formed XML: {error}", where=where, fix=_FIX) from None


class _Reader:
    def __init__(self, whole: Collection[str], heads: Collection[str], without: str) -> None:
        self._whole, self._heads, self._without = frozenset(whole), frozenset(heads), without
        self._done: list[Record] = []
        self._record: Record | None = None
        self._open: list[Part | None] = []  # within the record; None: passed over

    def drained(self) -> list[Record]:
        done, self._done = self._done, []
        return done

    def start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        if self._record is None:
            if tag in self._whole:
                self._record = Record(tag, attributes)
            elif tag in self._heads:
                self._done.append(Record(tag, attributes))
            return
        passed = tag == self._without or (self._open and self._open[-1] is None)
        part = None if passed or len(self._record.parts) >= MAX_PARTS else Part(tag, attributes)
        if part is not None:
            self._record.parts.append(part)
        self._open.append(part)

    def end(self, name: str) -> None:
        if self._record is None:
            return
        if self._open:
            self._open.pop()
            return
        self._done.append(self._record)
        self._record = None

    def characters(self, text: str) -> None:
        if self._open and (part := self._open[-1]) is not None:
            part.text += text
