"""The pool of pages against a brute-force model that keeps every page's whole past in lists."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.inference.pages import PagePool, page_key, root_key

OPERATIONS = st.lists(st.tuples(st.sampled_from(["take", "publish", "share", "release"]), st.integers(0, 9)))


class Model:
    """What the pool should do: holders counted one by one, kept pages in a list, nothing indexed."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.holders: dict[int, int] = {}
        self.keys: dict[int, bytes] = {}
        self.kept: list[int] = []  # longest unused first

    def taken(self, page: int) -> None:
        fresh = [p for p in range(self.total) if p not in self.holders and p not in self.kept]
        if fresh:
            assert page in fresh
        else:
            assert page == self.kept.pop(0)
        self.keys.pop(page, None)
        self.holders[page] = 1

    def release(self, page: int) -> None:
        self.holders[page] -= 1
        if not self.holders[page]:
            del self.holders[page]
            if page in self.keys:
                self.kept.append(page)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), OPERATIONS)
def test_the_pool_is_the_model(total: int, operations: list[tuple[str, int]]) -> None:
    """Taking, publishing, sharing and releasing in any order: counts, contents and evictions agree."""
    pool, model, held = PagePool(total), Model(total), []
    for kind, number in operations:
        key = bytes([number])
        owner = {k: p for p, k in model.keys.items()}.get(key)
        if kind == "take":
            if len(model.holders) == total:
                with pytest.raises(IndexError):
                    pool.take()
                continue
            page = pool.take()
            model.taken(page)
            held.append(page)
        elif kind == "publish" and held:
            page = held[number % len(held)]
            pool.publish(page, key)
            if owner is None and page not in model.keys:
                model.keys[page] = key
        elif kind == "share":
            found = pool.find([key])
            assert found == ([] if owner is None else [owner])
            if owner is not None:
                assert pool.kept(found) == (owner in model.kept)
                pool.hold(found)
                model.holders[owner] = model.holders.get(owner, 0) + 1
                model.kept = [page for page in model.kept if page != owner]
                held.append(owner)
        elif kind == "release" and held:
            page = held.pop(number % len(held))
            pool.release([page])
            model.release(page)
        assert pool.in_use == len(model.holders) == len(set(held))
        assert pool.available + pool.in_use == total
    pool.release(held)
    assert pool.in_use == 0


def test_the_end_of_a_text_is_forgotten_before_its_beginning() -> None:
    """A page without those before it is of no use, so eviction goes from the back of a text."""
    pool = PagePool(3)
    pages = [pool.take() for _ in range(3)]
    for place, page in enumerate(pages):
        pool.publish(page, bytes([place]))
    pool.release(pages)
    pool.take()
    assert pool.find([b"\0", b"\1", b"\2"]) == pages[:2]


def test_a_page_held_twice_must_be_released_twice() -> None:
    """Letting go of more than was held is our own mistake, and says so."""
    pool = PagePool(1)
    page = pool.take()
    pool.publish(page, b"key")
    pool.hold([page])
    pool.release([page])
    assert pool.in_use == 1
    pool.release([page])
    with pytest.raises(AssertionError):
        pool.release([page])


def test_keys_depend_on_everything_before_and_on_the_adapter() -> None:
    """Equal ids after another beginning, or of another adapter, are another page."""
    keys = {
        page_key(parent, ids)
        for parent in (root_key(None), root_key("a"), root_key("base"), page_key(root_key(None), [1, 2]))
        for ids in ([1, 2], [12], [1, 2, 0])
    }
    assert len(keys) == 12
