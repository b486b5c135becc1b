"""A bounded pool of pages for keys and values: who holds which, and what may be shared. No tensors.

A page that is full is known by a chain of hashes: of the page before it, its own ids, and the adapter
that computed it. Two texts with a common beginning find each other's pages by it. A page that nobody
holds keeps its contents until the pool needs it, the longest unused first (as vLLM's prefix caching,
arXiv:2309.06180).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b


def root_key(adapter: str | None) -> bytes:
    """What the first page's key is chained to."""
    return b"base" if adapter is None else b"adapter " + adapter.encode()


def page_key(parent: bytes, ids: Sequence[int]) -> bytes:
    """The key of a full page by the key before it: 128 bits, so that no two texts meet by chance."""
    text = ",".join(map(str, ids)).encode()
    return blake2b(len(parent).to_bytes(4) + parent + text, digest_size=16).digest()


class PagePool:
    """Pages 0 .. total - 1. A page is free, held by one or more texts, or kept for reuse."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = list(range(total - 1, -1, -1))
        self._holders = [0] * total
        self._key: dict[int, bytes] = {}  # of published pages
        self._page: dict[bytes, int] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()  # published, held by nobody; longest unused first

    @property
    def available(self) -> int:
        """Pages that `take` could still give out."""
        return len(self._free) + len(self._kept)

    @property
    def in_use(self) -> int:
        """Pages that somebody holds."""
        return self.total - self.available

    def take(self) -> int:
        """A page for new contents, held once. Raises IndexError where none is available."""
        if self._free:
            page = self._free.pop()
        elif self._kept:
            page, _ = self._kept.popitem(last=False)
            del self._page[self._key.pop(page)]
        else:
            raise IndexError(f"all {self.total} pages are held")
        self._holders[page] = 1
        return page

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The published pages of these keys, up to the first that is missing. Nothing is held yet."""
        pages = []
        for key in keys:
            if (page := self._page.get(key)) is None:
                break
            pages.append(page)
        return pages

    def kept(self, pages: Iterable[int]) -> int:
        """How many of these pages nobody holds: holding them makes so many fewer available."""
        return sum(page in self._kept for page in pages)

    def hold(self, pages: Iterable[int]) -> None:
        """Hold published pages once more."""
        for page in pages:
            assert page in self._key, "only a published page may be shared"
            self._kept.pop(page, None)
            self._holders[page] += 1

    def publish(self, page: int, key: bytes) -> None:
        """The page is full, and others may share it; if another page has the key already, that one stays."""
        assert self._holders[page], "only a holder may publish"
        if key not in self._page and page not in self._key:
            self._page[key], self._key[page] = page, key

    def release(self, pages: Sequence[int]) -> None:
        """Let go of a text's pages. The last are given up first: a page is of no use without those before."""
        for page in reversed(pages):
            assert self._holders[page], "released more often than held"
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key:
                    self._kept[page] = None
                else:
                    self._free.append(page)
