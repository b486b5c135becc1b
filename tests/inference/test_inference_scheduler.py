"""The scheduler with texts that a counter writes: who reads what, and that nobody is lost or starved."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.inference.pages import PagePool
from glasshouse.inference.scheduler import Part, Row, Scheduler

PAGE = 4


def make(
    pages: int = 100, max_rows: int = 8, step_tokens: int = 16, whole_from: int | None = None
) -> Scheduler:
    return Scheduler(PagePool(pages), PAGE, max_rows=max_rows, step_tokens=step_tokens, whole_from=whole_from)


def row(length: int, number: int, first: int = 0) -> Row:
    return Row([first + place for place in range(length)], (number,))


def next_token(ids: list[int]) -> int:
    """What the model would say: a function of the whole text."""
    return hash(tuple(ids)) % 1000


def check(scheduler: Scheduler, parts: list[Part]) -> None:
    """Every part's tokens have their pages, and the pages before them hold what the row believes."""
    written: list[int] = []
    for part in parts:
        end = part.row.read + part.count + len(part.drafts)
        assert len(part.row.pages) * PAGE >= end
        assert len(set(part.row.pages)) == len(part.row.pages)
        for place in range(part.row.read, end):  # nobody else may see what is written now
            written.append(part.row.pages[place // PAGE] * PAGE + place % PAGE)
    assert len(set(written)) == len(written)
    held = {page for running in scheduler.running for page in running.pages}
    assert len(held) == scheduler.pool.in_use <= scheduler.pool.total


class Memory:
    """What lies in the pages: the ids before and at each slot, so that a wrong page is seen at once."""

    def __init__(self) -> None:
        self.slots: dict[int, tuple[int, ...]] = {}

    def step(self, part: Part) -> None:
        known = part.row.ids[: part.row.read]
        for place in range(len(known)):
            slot = part.row.pages[place // PAGE] * PAGE + place % PAGE
            assert self.slots[slot] == tuple(known[: place + 1])
        for place, _ in enumerate(part.ids, part.row.read):
            text = [*known, *part.ids][: place + 1]
            self.slots[part.row.pages[place // PAGE] * PAGE + place % PAGE] = tuple(text)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_any_storm_ends_with_every_text_whole_and_no_page_held(seed: int) -> None:
    """Arrivals, guesses right and wrong, cancellations, too few pages: texts are those of a plain loop."""
    random = Random(seed)
    pages = random.randint(3, 12)
    scheduler = make(pages, random.randint(1, 5), random.randint(4, 20))
    memory, wanted, open_rows = Memory(), {}, set()
    arrivals = random.randint(1, 8)
    for _ in range(2000):
        while len(wanted) < arrivals and random.random() < 0.5:
            new = row(random.randint(1, pages * PAGE), len(wanted), first=random.choice([0, 0, 7]))
            text = list(new.ids)
            for _ in range(random.randint(0, pages * PAGE - len(text) + 1)):
                text.append(next_token(text))
            wanted[new] = text
            open_rows.add(new)
            scheduler.add(new)
        for writer in scheduler.running:
            if writer.left == 1 and random.random() < 0.5:
                room = len(wanted[writer]) - len(writer.ids) - 1
                writer.drafts = wanted[writer][len(writer.ids) :][: max(min(room, 3), 0)]
                if writer.drafts and random.random() < 0.5:
                    writer.drafts[-1] = -1
        if open_rows and random.random() < 0.05:
            gone = min(open_rows, key=lambda row: row.order)
            scheduler.remove(gone)
            open_rows.remove(gone)
        parts = scheduler.plan()
        assert parts or not open_rows, "somebody starved"
        check(scheduler, parts)
        for part in parts:
            memory.step(part)
        for part in parts:
            this, accepted = part.row, 0
            if this.left == part.count and len(this.ids) < len(wanted[this]):
                for draft in [*part.drafts, None]:
                    this.ids.append(next_token(this.ids))
                    if draft != this.ids[-1]:
                        break
                    accepted += 1
            scheduler.done(part, accepted)
            if this.left == 0 or len(this.ids) == len(wanted[this]):
                assert this.ids == wanted[this]
                scheduler.remove(this)
                open_rows.remove(this)
        if len(wanted) == arrivals and not open_rows:
            break
    assert not open_rows
    assert scheduler.pool.in_use == 0


def read_all(scheduler: Scheduler) -> list[Part]:
    parts = scheduler.plan()
    for part in parts:
        scheduler.done(part)
    return parts


def test_a_common_beginning_is_read_once() -> None:
    """The second text starts behind the full pages of the first, and always has a token left to read."""
    scheduler = make()
    first, same, longer = row(12, 0), row(12, 1), row(14, 2)
    scheduler.add(first)
    read_all(scheduler)
    scheduler.add(same)
    scheduler.add(longer)
    counts = {part.row: (part.row.cached, part.count) for part in scheduler.plan()}
    assert counts[same] == (8, 4)
    assert counts[longer] == (12, 2)
    assert same.pages[:2] == first.pages[:2]


def test_equal_prompts_that_come_together_are_not_all_read() -> None:
    """Who finds no tokens left in a step waits outside, and finds the pages of those before."""
    scheduler = make(step_tokens=16)
    rows = [row(40, number) for number in range(8)]
    for new in rows:
        scheduler.add(new)
    while not all(new.opened for new in rows):
        read_all(scheduler)
    assert sum(new.cached for new in rows) >= 4 * 36


def test_another_adapter_shares_nothing() -> None:
    """Its keys and values are other numbers."""
    scheduler = make()
    scheduler.add(row(12, 0))
    read_all(scheduler)
    scheduler.add(Row(list(range(12)), (1,), adapter="a"))
    assert [part.row.cached for part in scheduler.plan() if part.row.adapter] == [0]


def test_choices_wait_for_the_first_to_read_their_prompt() -> None:
    """Choices of one prompt read it once; one that ends at once does not hold the others up."""
    scheduler = make(step_tokens=8)
    leader = row(20, 0)
    follower = Row(list(range(20)), (0, 1), leader=leader)
    other = row(4, 1, first=50)
    for new in (leader, follower, other):
        scheduler.add(new)
    assert follower not in {part.row for part in read_all(scheduler)}
    assert other.opened  # who comes later is not held up
    while not leader.opened:
        assert follower.pages == []
        read_all(scheduler)
    scheduler.remove(leader)
    scheduler.plan()
    assert follower.cached == 16


def test_a_long_prompt_is_read_in_chunks_beside_those_who_write() -> None:
    """Writing texts get their token in each step, prompts what is left; a short prompt is not held up."""
    scheduler = make(step_tokens=16)
    writer, long, short = row(3, 0), row(60, 1, first=100), row(6, 2, first=200)
    scheduler.add(writer)
    read_all(scheduler)
    writer.ids.append(9)
    scheduler.add(long)
    scheduler.add(short)
    counts = {part.row: part.count for part in read_all(scheduler)}
    assert counts == {writer: 1, long: 9, short: 6}


def test_an_endless_row_of_short_prompts_starves_nobody() -> None:
    """The oldest prompt gets half of each step, whoever comes after it."""
    scheduler = make(step_tokens=16)
    long = row(100, 0)
    scheduler.add(long)
    steps = 0
    while not long.opened:
        scheduler.add(row(8, 1 + steps, first=1000 * (1 + steps)))
        for part in read_all(scheduler):
            if part.row is not long and part.row.left == 0:
                scheduler.remove(part.row)
        steps += 1
    assert steps <= 14


def test_the_youngest_gives_way() -> None:
    """When a page is missing, the youngest text gives all of its own back and is let in again first."""
    scheduler = make(pages=5, max_rows=3)
    old, young, late = row(7, 0), row(7, 1, first=50), row(1, 2, first=90)
    for new in (old, young, late):
        scheduler.add(new)
    read_all(scheduler)
    assert late in scheduler.waiting
    for _ in range(2):
        for writer in scheduler.running:
            writer.ids.append(1)
        read_all(scheduler)
    assert scheduler.preemptions == 1
    assert scheduler.running == [old]
    assert scheduler.waiting == [young, late]
    assert young.pages == []
    assert young.ids[7:] == [1, 1]


def test_guesses_never_push_anybody_out() -> None:
    """Drafts are shortened to the pages that are left."""
    scheduler = make(pages=2)
    writer = row(4, 0)
    scheduler.add(writer)
    read_all(scheduler)
    writer.ids.append(1)
    writer.drafts = [1] * 9
    (part,) = scheduler.plan()
    assert len(part.drafts) == 3


def test_texts_beyond_the_trained_context_are_read_as_they_were_first() -> None:
    """With dynamic RoPE the angles follow the text's length: a long prompt is read whole, what follows token
    by token, also after giving way, and no page of it is shared."""
    scheduler = make(step_tokens=8, whole_from=10)
    long = row(20, 0)
    scheduler.add(long)
    assert [part.count for part in read_all(scheduler)] == [20]
    long.ids += [1, 2, 3]
    assert [part.count for part in read_all(scheduler)] == [1]
    again = row(20, 1)
    scheduler.add(again)
    assert [part.count for part in read_all(scheduler) if part.row is again] == [20]
    short = row(9, 2)
    scheduler.remove(long)
    scheduler.remove(again)
    scheduler.add(short)
    while short.read < 9:
        read_all(scheduler)
    short.ids += [1, 2, 3]
    short.drafts = [4, 5]
    counts = []
    while short.left:
        counts += [part.count + len(part.drafts) for part in read_all(scheduler)]
    assert counts == [1, 1, 1]
