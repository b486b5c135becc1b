"""A document cut into parts that fit a model, at the best boundaries that fit.

The text is a tree: blocks, numbered sections inside them, sentences, clauses, words, characters. A part is
taken apart only where it does not fit the limit as a whole, by the exact count: so no paragraph, no section
inside one and no sentence that fits is ever cut. (A sentence that runs over a page break makes one paragraph
of the two; where that is too long, the sentence stays whole.) What is left are units in a row, and a price
for a cut before each of them: headings are cheap, the middle of a list is dear. Cuts are chosen so that
prices, the number of chunks and the empty room in them are least together, which also makes sizes even.

Tokens merge over borders, so that counts of pieces do not add up. They are only estimates for the plan; every
chunk is counted as it stands, and where it is over the limit, the plan is made again with what that showed.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from itertools import pairwise

from glasshouse.core.errors import DataError, UsageError
from glasshouse.documents.chunking.sentences import (
    BRACKETED,
    MARKER,
    SECTION,
    ends_alone,
    is_furniture,
    is_title,
    is_unfinished,
    runs_on,
    sentences,
    trimmed,
)
from glasshouse.files.document import Block, Document

# What a cut costs, where one more chunk costs 1. They are choices, ordered by how much of the meaning goes
# with the cut; that they cut few labelled clauses of contracts is measured (tests/accept/test_chunks.py).
HEADING, HEADING_LEVEL = 0.0, 0.01  # before a heading, and for each level below the first
SECTION_NUMBER = 0.05  # before "2 Fees", twice as much before "2.1", four times before "2.1.3"
BLOCK = 0.12
ITEM = 0.25  # before "(a)", a list item or a row
SENTENCE = 0.5
ATTACHED = 0.7  # between a table and its caption, before a page's number
UNFINISHED = 1.0  # between blocks, after "as follows:" or "; and"
CLAUSE, COMMA = 1.5, 2.0
AFTER_HEADING, WORD, CHARACTER = 3.0, 4.0, 8.0

ROOM = 0.5
"""The cost of an empty chunk's room; of a part of it, by its square."""

GRAIN = 32
"""Units together smaller than the limit by this factor are planned as one, cut only at their best border."""

HORIZON = 12
"""Chunks that are planned at a time."""


@dataclass(frozen=True)
class Chunk:
    """`document.text[start:end]` with what stands around it. Between two chunks stands only white space."""

    index: int
    start: int  # characters of Document.text, half open
    end: int
    text: str
    tokens: int  # of `text` alone, exactly
    before: str  # the first row of a table that began earlier, and sentences before the chunk
    after: str  # sentences after it
    headings: tuple[str, ...]  # above its first character, the highest first
    pages: tuple[int, int] | None  # first and last


@dataclass(frozen=True)
class _Unit:
    start: int
    end: int
    price: float  # of a cut before it
    levels: tuple[_Level, ...]  # how to take it apart, the best first
    tokens: float  # estimated
    exact: bool = False
    parts: tuple[_Unit, ...] = ()  # of one that was put together from several


_Level = Callable[["_Chunker", _Unit], "list[tuple[int, int, float]]"]
"""Gives the parts of a unit as (start, end, price of a cut before it); one part: it does not divide it."""


def chunk(
    document: Document,
    limit: int,
    count: Callable[[str], int],
    *,
    abbreviations: Set[str] = frozenset(),
    context: int = 0,
) -> list[Chunk]:
    """Chunks of at most `limit` tokens, in order; a document that fits is one.

    `count` tells the tokens of a text; it is called about three times a chunk, once or twice more for each
    side of its context. `context`: the most tokens of neighbouring sentences in `before` and `after`; the
    first row of a table that began earlier stands in `before` besides. Raises UsageError for a limit below 1,
    DataError where a single character takes more than `limit`.
    """
    if limit < 1 or context < 0:
        raise UsageError(
            f"chunks of {limit} tokens with {context} of context", fix="ask for at least one token"
        )
    return _Chunker(document, limit, count, abbreviations, context).chunks()


class _Chunker:
    def __init__(
        self,
        document: Document,
        limit: int,
        count: Callable[[str], int],
        abbreviations: Set[str],
        context: int,
    ) -> None:
        self.document, self.text, self.limit, self.count = document, document.text, limit, count
        self.abbreviations, self.context = abbreviations, context
        self.blocks = _all_blocks(document)
        self._passages: list[tuple[int, int]] = []  # where the units of the highest level stand
        self._sentences: dict[int, list[tuple[int, int]]] = {}  # of those that were taken apart

    def chunks(self) -> list[Chunk]:
        if not self.blocks:
            return []
        start, end = self.blocks[0].start, self.blocks[-1].end
        total = self.count(self.text[start:end])
        if total <= self.limit:
            return self._finished([(start, end, total)])
        return self._finished(self._cut(self._units(total)))

    # -- the units -----------------------------------------------------------------------------------------

    def _units(self, total: int) -> list[_Unit]:
        """The blocks, each with an estimate of its tokens from an exact count of its neighbourhood."""
        flows = list(self._flows())
        self._passages = [(start, end) for start, end, _, _ in flows]
        weights = [_weight(self.text, flow[0], flow[1]) for flow in flows]
        ratio = total / sum(weights)
        units: list[_Unit] = []
        at = 0
        while at < len(flows):
            to, weight = at + 1, weights[at]
            while to < len(flows) and (weight + weights[to]) * ratio <= self.limit / 2:
                weight += weights[to]
                to += 1
            tokens = self.count(self.text[flows[at][0] : flows[to - 1][1]])
            for place in range(at, to):
                first, last, price, levels = flows[place]
                share = tokens * weights[place] / weight
                units += self._refined(_Unit(first, last, price, levels, share, to == at + 1))
            at = to
        return units

    def _flows(self) -> Iterator[tuple[int, int, float, tuple[_Level, ...]]]:
        """Blocks; those that one sentence runs through, over a page break, are one."""
        place = 0
        before: Block | None = None
        while place < len(self.blocks):
            first = last = self.blocks[place]
            place += 1
            while first.kind in _RUNNING and place < len(self.blocks):
                after = place
                while after < len(self.blocks) - 1 and after - place < 3 and self._furniture(after):
                    after += 1
                block = self.blocks[after]
                if block.kind != last.kind or not runs_on(self.text, last.start, last.end, block.start):
                    break
                last, place = block, after + 1
            yield first.start, last.end, self._price(before, first), _LEVELS.get(first.kind, _TEXT)
            if not self._furniture(place - 1):
                before = last

    def _furniture(self, place: int) -> bool:
        block = self.blocks[place]
        return block.kind in _RUNNING and is_furniture(self.text, block.start, block.end)

    def _price(self, before: Block | None, block: Block) -> float:
        """Of a cut between two blocks."""
        if before is None:
            return 0.0
        if before.kind == "heading":
            return AFTER_HEADING
        if block.kind == "heading":
            return HEADING + HEADING_LEVEL * ((block.level or 1) - 1)
        if {before.kind, block.kind} == {"table", "caption"} or is_furniture(
            self.text, block.start, block.end
        ):
            return ATTACHED
        if runs_on(self.text, before.start, before.end, block.start):
            return COMMA
        if is_unfinished(self.text, before.start, before.end):
            return UNFINISHED
        if ends_alone(self.text, before.start, before.end):
            return ATTACHED
        if block.kind == before.kind == "list_item" or MARKER.match(self.text, block.start):
            return _section_price(self.text, block.start) or ITEM
        return BLOCK

    def _refined(self, unit: _Unit) -> Iterable[_Unit]:
        """The unit, or its parts where it does not fit as a whole."""
        if not unit.exact and unit.tokens > self.limit / 2:
            tokens = self.count(self.text[unit.start : unit.end])
            unit = _Unit(unit.start, unit.end, unit.price, unit.levels, tokens, True)
        if unit.tokens <= self.limit:
            return [unit]
        return self._apart(unit)

    def _apart(self, unit: _Unit) -> list[_Unit]:
        """Parts of a unit that is over the limit, each of which fits as far as is known."""
        if unit.parts:
            more = unit.tokens / sum(part.tokens for part in unit.parts)
            loose = (replace(part, tokens=part.tokens * more) for part in unit.parts)
            return [one for part in loose for one in self._refined(part)]
        levels = unit.levels
        parts: list[tuple[int, int, float]] = []
        while levels and len(parts := levels[0](self, unit)) < 2:
            levels = levels[1:]
        if not levels:
            raise DataError(
                f"one character takes more than {self.limit} tokens",
                where=self.document.name,
                fix="allow more tokens for a chunk",
            )
        weights = [_weight(self.text, start, end) for start, end, _ in parts]
        ratio = unit.tokens / sum(weights)
        units: list[_Unit] = []
        for (start, end, price), weight in zip(parts, weights, strict=True):
            units += self._refined(_Unit(start, end, price, levels, weight * ratio))
        return units

    def sentences(self, unit: _Unit) -> list[tuple[int, int]]:
        """Those of a unit, as its whole passage shows them: a line alone does not show where lines wrap."""
        start, end = self._passages[bisect.bisect_right(self._passages, (unit.start, len(self.text) + 1)) - 1]
        if start not in self._sentences:
            spans = sentences(self.text[start:end], self.abbreviations)
            self._sentences[start] = [(start + first, start + last) for first, last in spans]
        known = self._sentences[start]
        first = max(0, bisect.bisect_right(known, (unit.start, len(self.text))) - 1)
        last = bisect.bisect_left(known, (unit.end, 0))
        spans = [(max(begin, unit.start), min(stop, unit.end)) for begin, stop in known[first:last]]
        return [span for span in spans if span[0] < span[1]]

    # -- the cuts ------------------------------------------------------------------------------------------

    def _cut(self, units: list[_Unit]) -> list[tuple[int, int, int]]:
        """(start, end, tokens) of every chunk, all of them counted."""
        waiting = self._grains(units)
        waiting.reverse()  # the next one last
        cuts: list[tuple[int, int, int]] = []
        plan: list[int] = []  # units in each of the next chunks, the next one last
        while waiting:
            if not plan:
                plan = self._plan(waiting)
            size = plan.pop()
            first, last = waiting[-1], waiting[-size]
            tokens = self.count(self.text[first.start : last.end])
            if tokens <= self.limit:
                cuts.append((first.start, last.end, tokens))
                del waiting[-size:]
                continue
            plan = []
            if size == 1:
                parts = self._grains(
                    self._apart(_Unit(first.start, first.end, first.price, first.levels, tokens, True))
                )
                waiting[-1:] = reversed(parts)
                continue
            more = tokens / sum(unit.tokens for unit in waiting[-size:])
            waiting[-size:] = [
                _Unit(unit.start, unit.end, unit.price, unit.levels, unit.tokens * more)
                for unit in waiting[-size:]
            ]
        return cuts

    def _grains(self, units: list[_Unit]) -> list[_Unit]:
        """Runs of small units as one, so that a plan has few borders to choose from: the best ones."""
        grain = self.limit / GRAIN
        joined: list[_Unit] = []
        run: list[_Unit] = []
        tokens = 0.0
        for unit in units:
            while run and tokens + unit.tokens > grain:
                size = min(
                    range(1, len(run) + 1), key=lambda n: ((run[n] if n < len(run) else unit).price, -n)
                )
                joined.append(_together(run[:size]))
                run = run[size:]
                tokens = sum(one.tokens for one in run)
            run.append(unit)
            tokens += unit.tokens
        if run:
            joined.append(_together(run))
        return joined

    def _plan(self, waiting: list[_Unit]) -> list[int]:
        """How many units go in each of the next chunks, the next one last: the cheapest way there."""
        units: list[_Unit] = []
        tokens = 0.0
        for unit in reversed(waiting):
            units.append(unit)
            tokens += unit.tokens
            if tokens > HORIZON * self.limit:
                break
        whole = len(units) == len(waiting)
        best = [0.0] * (len(units) + 1)
        ends = [0] * len(units)
        for at in range(len(units) - 1, -1, -1):
            tokens = 0.0
            least = float("inf")
            for end in range(at + 1, len(units) + 1):
                tokens += units[end - 1].tokens
                if tokens > self.limit and end > at + 1:
                    break
                room = max(0.0, 1 - tokens / self.limit)
                if end < len(units):
                    cost = 1 + ROOM * room * room + units[end].price + best[end]
                else:
                    cost = 1 + ROOM * room * room if whole else 1 - room
                if cost <= least:
                    least, ends[at] = cost, end
            best[at] = least
        sizes: list[int] = []
        at = 0
        while at < len(units):
            sizes.append(ends[at] - at)
            at = ends[at]
        if not whole:  # what lies near the horizon is planned again, with what lies behind it
            sizes = sizes[: max(1, len(sizes) // 2)]
        return sizes[::-1]

    # -- what stands around a chunk ------------------------------------------------------------------------

    def _finished(self, cuts: list[tuple[int, int, int]]) -> list[Chunk]:
        spans = sentences(self.text, self.abbreviations) if self.context and len(cuts) > 1 else []
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
        per_character = sum(tokens for _, _, tokens in cuts) / sum(end - start for start, end, _ in cuts)
        chunks: list[Chunk] = []
        path: list[Block] = []
        place = 0
        for index, (start, end, tokens) in enumerate(cuts):
            while place < len(self.blocks) and self.blocks[place].start < start:
                _under(path, self.blocks[place])
                place += 1
            here = self._overlapping(start, end)
            above = list(path)
            if here[0].kind == "heading" and here[0].start == start:
                _under(above, here[0])
                above.pop()
            before = self._before(start, starts, per_character) if index else ""
            row = self._first_row(here[0], start)
            if row and row not in before:
                before = f"{row}\n{before}" if before else row
            pages = [block.page for block in here if block.page is not None]
            chunks.append(
                Chunk(
                    index,
                    start,
                    end,
                    self.text[start:end],
                    tokens,
                    before,
                    self._after(end, ends, per_character),
                    tuple(" ".join(self.document.slice(block).split()) for block in above),
                    (min(pages), max(pages)) if pages else None,
                )
            )
        return chunks

    def _overlapping(self, start: int, end: int) -> list[Block]:
        first = bisect.bisect_right(self.blocks, start, key=lambda block: block.start) - 1
        last = bisect.bisect_left(self.blocks, end, key=lambda block: block.start)
        return self.blocks[first:last]

    def _first_row(self, block: Block, start: int) -> str:
        """Of the table that the chunk begins in the middle of, unless it is a good part of a chunk."""
        if block.kind != "table" or start == block.start:
            return ""
        row = self.text[block.start : block.end].split("\n", 1)[0]
        return row if block.start + len(row) <= start and self.count(row) <= self.limit / 4 else ""

    def _before(self, start: int, starts: list[int], per_character: float) -> str:
        """Whole sentences that end where the chunk begins; of one that was cut, its beginning."""
        last = bisect.bisect_left(starts, start)
        lowest = start - int(1.5 * self.context / per_character) - 1
        first = min(bisect.bisect_left(starts, lowest, 0, last), last)
        while first < last:
            text = self.text[starts[first] : start].rstrip()
            tokens = self.count(text)
            if tokens <= self.context:
                return text
            nearer = start - int(len(text) * self.context / tokens)
            first = max(first + 1, bisect.bisect_left(starts, nearer, 0, last))
        return ""

    def _after(self, end: int, ends: list[int], per_character: float) -> str:
        first = bisect.bisect_right(ends, end)
        highest = end + int(1.5 * self.context / per_character) + 1
        last = bisect.bisect_right(ends, highest)
        while last > first:
            text = self.text[end : ends[last - 1]].lstrip()
            tokens = self.count(text)
            if tokens <= self.context:
                return text
            nearer = end + int(len(text) * self.context / tokens)
            last = min(last - 1, bisect.bisect_right(ends, nearer))
        return ""


# -- ways to take a unit apart -----------------------------------------------------------------------------


def _by_section(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    return _grouped(chunker, unit, SECTION)


def _by_item(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    return _grouped(chunker, unit, BRACKETED)


def _section_price(text: str, start: int) -> float | None:
    """Of a cut before the number of a section, the more the deeper it is; None where none stands."""
    number = SECTION.match(text, start)
    return SECTION_NUMBER * 2 ** number[0].rstrip(".").count(".") if number else None


def _grouped(chunker: _Chunker, unit: _Unit, marker: re.Pattern[str]) -> list[tuple[int, int, float]]:
    """Sentences, together with those that follow up to the next that begins with the marker."""
    parts: list[tuple[int, int, float]] = []
    for start, end, _ in _by_sentence(chunker, unit):
        if not parts:
            parts.append((start, end, unit.price))
        elif marker.match(chunker.text, start):
            title = is_title(chunker.text, *parts[-1][:2])
            price = _section_price(chunker.text, start) or ITEM
            parts.append((start, end, AFTER_HEADING if title else price))
        else:
            parts[-1] = (parts[-1][0], end, parts[-1][2])
    return parts


def _by_sentence(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    spans = chunker.sentences(unit)
    return [
        (start, end, AFTER_HEADING if place and is_title(chunker.text, *spans[place - 1]) else price)
        for place, (start, end, price) in enumerate(_priced(unit, spans, SENTENCE))
    ]


def _by_clause(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    return _at(chunker, unit, _CLAUSE, CLAUSE)


def _by_comma(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    return _at(chunker, unit, _COMMA, COMMA)


def _by_line(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    return _at(chunker, unit, _LINE, ITEM)


def _by_cell(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    return _at(chunker, unit, _CELL, CLAUSE)


def _by_word(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    """Runs of words about as long as a plan's grain."""
    text = chunker.text
    step = max(1, int((unit.end - unit.start) * chunker.limit / GRAIN / unit.tokens))
    spans: list[tuple[int, int]] = []
    at = unit.start
    while at < unit.end:
        space = _SPACE.search(text, min(at + step, unit.end), unit.end)
        spans.append((at, space.start() if space else unit.end))
        at = space.end() if space else unit.end
    return _priced(unit, [span for span in spans if span[0] < span[1]], WORD)


def _by_character(chunker: _Chunker, unit: _Unit) -> list[tuple[int, int, float]]:
    length = unit.end - unit.start
    step = max(1, min(length // 2, int(length * chunker.limit / GRAIN / unit.tokens)))
    cuts = [*range(unit.start, unit.end, step), unit.end]
    return _priced(unit, list(pairwise(cuts)), CHARACTER)


def _at(
    chunker: _Chunker, unit: _Unit, border: re.Pattern[str], price: float
) -> list[tuple[int, int, float]]:
    """Parts between matches of `border`, of which only the white space goes."""
    spans: list[tuple[int, int]] = []
    at = unit.start
    for match in border.finditer(chunker.text, unit.start, unit.end):
        spans.append(trimmed(chunker.text, at, match.start()))
        at = match.end()
    spans.append(trimmed(chunker.text, at, unit.end))
    return _priced(unit, [span for span in spans if span[0] < span[1]], price)


def _priced(unit: _Unit, spans: list[tuple[int, int]], price: float) -> list[tuple[int, int, float]]:
    return [(start, end, unit.price if place == 0 else price) for place, (start, end) in enumerate(spans)]


_CLAUSE = re.compile(r"(?<=[;:；：—])\s+|(?<=[；：])")
_COMMA = re.compile(r"(?<=[,)])\s+|(?<=[，、])|(?<!\s)\s++(?=\()")
_LINE = re.compile(r"\n\s*+")
_CELL = re.compile(r"(?<=\|)\s+")
_SPACE = re.compile(r"\s+")

_TEXT: tuple[_Level, ...] = (
    _by_section,
    _by_item,
    _by_sentence,
    _by_clause,
    _by_comma,
    _by_word,
    _by_character,
)
_LEVELS: dict[str, tuple[_Level, ...]] = {
    "table": (_by_line, _by_sentence, _by_cell, _by_word, _by_character),
    "code": (_by_line, _by_word, _by_character),
}
_RUNNING = frozenset(["paragraph", "list_item", "note"])

_PIECE = re.compile(r"[^\W\d_]{1,7}|\d{1,3}|[^\w\s]|_")


def _weight(text: str, start: int, end: int) -> int:
    """About how many tokens, up to a factor that holds nearby."""
    return 1 + len(_PIECE.findall(text, start, end))


def _together(units: list[_Unit]) -> _Unit:
    if len(units) == 1:
        return units[0]
    tokens = sum(unit.tokens for unit in units)
    return _Unit(units[0].start, units[-1].end, units[0].price, (), tokens, parts=tuple(units))


def _all_blocks(document: Document) -> list[Block]:
    """The document's blocks without white space at their ends, and what stands outside of any."""
    blocks: list[Block] = []
    at = 0
    for block in [*document.blocks, Block("paragraph", len(document.text), len(document.text))]:
        for one in (Block("paragraph", at, block.start, block.page), block):
            start, end = trimmed(document.text, one.start, one.end)
            if start < end:
                blocks.append(replace(one, start=start, end=end))
        at = max(at, block.end)
    return blocks


def _under(path: list[Block], block: Block) -> None:
    """Puts a heading at its place in the path of those that are above what follows."""
    if block.kind == "heading":
        while path and (path[-1].level or 1) >= (block.level or 1):
            path.pop()
        path.append(block)
