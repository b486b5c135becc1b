"""What a killed process leaves behind: every reply that it worked with, and no money that nobody counts."""

import asyncio
import signal
import subprocess
import sys

import pytest

from glasshouse.llm.cache_store import CacheStore
from glasshouse.llm.errors import BudgetExceededError
from glasshouse.llm.spending import Amount, Limits, Spending

DIES = """
import os, signal, sys
from glasshouse.llm.cache_store import CacheStore
store = CacheStore(sys.argv[1], write_through=sys.argv[2] == "through")
store.put(b"key", b"value")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("how", "kept"), [("through", b"value"), ("later", None)])
def test_a_store_that_writes_through_loses_nothing_to_a_kill(tmp_path, how, kept):
    """The other one loses the last moment: the test can fail."""
    file = tmp_path / "replies.sqlite"
    died = subprocess.run([sys.executable, "-c", DIES, str(file), how], check=False)
    assert died.returncode == -signal.SIGKILL
    store = CacheStore(file)
    found = store.get(b"key")
    store.close()
    assert (found and found[0]) == kept


def test_values_that_were_written_through_are_weighed_and_used_like_others(tmp_path):
    store = CacheStore(tmp_path / "replies.sqlite", max_bytes=1000, write_through=True)
    for n in range(50):
        store.put(b"%d" % n, b"x" * 100)
    there = [n for n in range(50) if store.get(b"%d" % n) is not None]
    store.close()
    assert 49 in there
    assert 5 <= len(there) <= 10


@pytest.mark.parametrize("file", [True, False])
def test_what_a_dead_process_reserved_counts_as_spent_at_once(tmp_path, file):
    path = tmp_path / "spending.sqlite" if file else None
    limits = Limits(tokens=100)
    first = Spending(limits, path)
    asyncio.run(first.reserve(Amount(0, 60)))
    second = Spending(limits, path) if file else first
    assert second.tokens == 0
    second.settle_abandoned()
    assert second.tokens == 60
    assert second.try_reserve(Amount(0, 40)) is not None
    second.settle_abandoned()
    assert second.tokens == 100
    with pytest.raises(BudgetExceededError, match="100 of 100"):
        asyncio.run(second.reserve(Amount(0, 1)))
