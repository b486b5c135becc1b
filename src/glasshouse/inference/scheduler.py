"""Who reads how many tokens in the next step. Pure bookkeeping: no tensors, no clock, no text.

Rows that are writing read one token each (and what was proposed to follow it); what is left of the
step's tokens goes to rows still reading their prompts, in chunks. Rows wait in the order of arrival
until pages for all their tokens are there. If a writing row needs a page and none is left, the youngest
row gives all of its pages back and reads its tokens again later.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from glasshouse.inference.pages import PagePool, page_key, root_key


@dataclass(eq=False)
class Row:
    """One text, as far as the scheduler sees it."""

    ids: list[int]  # the prompt and everything chosen so far
    order: tuple[int, ...]  # of arrival
    adapter: str | None = None
    shared: bool = True  # may use pages of others; not where every hidden state of the prompt is wanted
    leader: Row | None = None  # has the same prompt, and should have read it first
    prompt: int = 0  # tokens of `ids` that were there from the beginning
    read: int = 0  # tokens whose keys lie in the pages
    cached: int = 0  # of them, those found at the last admission
    opened: bool = False  # the whole prompt has been read once
    pages: list[int] = field(default_factory=list)
    full: int = 0  # pages that are full and published
    keys: list[bytes] = field(default_factory=list)  # of the pages that `ids` fill, as far as asked for
    drafts: list[int] = field(default_factory=list)  # what is proposed to follow `ids`, for one step

    def __post_init__(self) -> None:
        self.prompt = self.prompt or len(self.ids)

    @property
    def left(self) -> int:
        """Tokens still to be read; 1 for a row that is writing."""
        return len(self.ids) - self.read

    @property
    def ready(self) -> bool:
        """Whether the row need not wait for its leader."""
        return self.leader is None or self.leader.opened


@dataclass(frozen=True)
class Part:
    """What a row reads in one step: tokens of its ids from `row.read` on, then drafts."""

    row: Row
    count: int
    drafts: Sequence[int] = ()

    @property
    def ids(self) -> list[int]:
        return [*self.row.ids[self.row.read : self.row.read + self.count], *self.drafts]


class Scheduler:
    """Rows between submission and end.

    `whole_from`: texts longer than this are read as they were first read, the prompt at once and
    everything after it token by token (dynamic RoPE turns a text by its length at that moment).
    """

    def __init__(
        self,
        pool: PagePool,
        page_tokens: int,
        *,
        max_rows: int,
        step_tokens: int,
        whole_from: int | None = None,
    ) -> None:
        self.pool, self.page_tokens = pool, page_tokens
        self.max_rows, self.step_tokens, self.whole_from = max_rows, step_tokens, whole_from
        self.waiting: list[Row] = []  # both by arrival
        self.running: list[Row] = []
        self.preemptions = 0

    def add(self, row: Row) -> None:
        """Queue a row. Its tokens, and those it will choose but the last, must fit the whole pool."""
        if self._whole(row):
            row.shared = False
        insort(self.waiting, row, key=_order)

    def remove(self, row: Row) -> None:
        """The row is done, or not wanted any more: its pages are free at once."""
        if row in self.running:
            self.running.remove(row)
        else:
            self.waiting.remove(row)
        self._give_back(row)

    def plan(self) -> list[Part]:
        """The next step. Empty only where nothing waits or runs, or all that waits is held up."""
        parts = [part for row in list(self.running) if (part := self._write(row))]
        writing = {part.row for part in parts}
        spent = sum(part.count + len(part.drafts) for part in parts)
        budget = max(self.step_tokens - spent, self.page_tokens)
        reading = [row for row in self.running if row not in writing]
        self._admit(reading, budget)
        return parts + self._chunks(reading, budget)

    def done(self, part: Part, accepted: int = 0) -> None:
        """The step is over: the part's tokens are read, and so many of its drafts were right.

        Those drafts are in the row's ids by now. Full pages may be found by others from here on.
        """
        row, size = part.row, self.page_tokens
        row.read += part.count + accepted
        row.drafts, row.opened = [], row.opened or row.read >= row.prompt
        while row.full < row.read // size:
            if not self._whole(row):
                self.pool.publish(row.pages[row.full], self._key(row, row.full))
            row.full += 1

    def _write(self, row: Row) -> Part | None:
        """The part of a running row that is writing; None for others, and if the row had to give way."""
        if row not in self.running or row.left != 1:
            return None
        if not row.drafts and row.read < len(row.pages) * self.page_tokens:
            return Part(row, 1)
        while self._missing(row, row.read + 1) > self.pool.available:
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is row:
                return None
        drafts = row.drafts
        if self.whole_from is not None and row.read + 1 + len(drafts) > self.whole_from:
            drafts = []
        self._grow(row, row.read + 1)
        spare = max(self.pool.available - len(self.running), 0)  # nobody gives way for a guess
        drafts = drafts[: max((len(row.pages) + spare) * self.page_tokens - row.read - 1, 0)]
        self._grow(row, row.read + 1 + len(drafts))
        return Part(row, 1, drafts)

    def _admit(self, reading: list[Row], budget: int) -> None:
        """Let rows in, first come first served, while there are pages for all tokens that they have.

        A page for each running row stays free, so that the new ones need not give way at once. Nobody is
        let in without tokens to read: who comes later finds more pages to share. `reading` grows.
        """
        free = budget - sum(min(row.left, budget // (4 if place else 2)) for place, row in enumerate(reading))
        for row in list(self.waiting):
            if len(self.running) >= self.max_rows or free <= 0:
                return
            if not row.ready:
                continue
            found = self._shared(row)
            needed = self._pages(len(row.ids)) - len(found)
            spare = self.pool.available - self.pool.kept(found)
            if needed + len(self.running) > spare and (self.running or needed > spare):
                return
            self.waiting.remove(row)
            self.pool.hold(found)
            row.pages, row.full = found, len(found)
            row.read = row.cached = len(found) * self.page_tokens
            self._grow(row, len(row.ids))
            insort(self.running, row, key=_order)
            free -= min(row.left, budget // (4 if reading else 2))
            insort(reading, row, key=_order)

    def _shared(self, row: Row) -> list[int]:
        """Pages that hold the beginning of the row's ids; a token at least is left to read."""
        if not row.shared:
            return []
        return self.pool.find(
            self._key(row, place) for place in range((len(row.ids) - 1) // self.page_tokens)
        )

    def _key(self, row: Row, place: int) -> bytes:
        """The key of the row's page at this place, which its ids fill."""
        size = self.page_tokens
        while len(row.keys) <= place:
            parent = row.keys[-1] if row.keys else root_key(row.adapter)
            start = len(row.keys) * size
            row.keys.append(page_key(parent, row.ids[start : start + size]))
        return row.keys[place]

    def _chunks(self, rows: list[Row], budget: int) -> list[Part]:
        """Share the budget out: half for the oldest, so that it is never starved, the rest to those that
        are done soonest, so that a short prompt need not wait for a long one."""
        if not rows:
            return []
        counts = {rows[0]: min(rows[0].left, (budget + 1) // 2)}
        budget -= counts[rows[0]]
        for row in sorted(rows, key=lambda row: (row.left, row.order)):
            more = min(row.left - counts.get(row, 0), budget)
            budget -= more
            if more:
                counts[row] = counts.get(row, 0) + more
        return [Part(row, self._whole_chunk(row, count)) for row, count in counts.items()]

    def _whole_chunk(self, row: Row, count: int) -> int:
        if self._whole(row):
            return 1 if row.read else row.prompt
        if self.whole_from is None or row.read + count <= self.whole_from:
            return count
        return max(self.whole_from - row.read, 1)

    def _whole(self, row: Row) -> bool:
        return self.whole_from is not None and row.prompt > self.whole_from

    def _preempt(self, row: Row) -> None:
        self.preemptions += 1
        self.running.remove(row)
        self._give_back(row)
        insort(self.waiting, row, key=_order)

    def _give_back(self, row: Row) -> None:
        self.pool.release(row.pages)
        row.pages, row.drafts, row.read, row.full = [], [], 0, 0

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    def _missing(self, row: Row, tokens: int) -> int:
        return max(self._pages(tokens) - len(row.pages), 0)

    def _grow(self, row: Row, tokens: int) -> None:
        for _ in range(self._missing(row, tokens)):
            row.pages.append(self.pool.take())


def _order(row: Row) -> tuple[int, ...]:
    return row.order
