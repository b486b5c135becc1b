"""Watchers that a test can look into."""

import pytest


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.calls, self.verdicts, self.flushed = [], [], 0

    def record(self, call):
        self.calls.append(call)

    def judged(self, call, verdict):
        self.verdicts.append((call, verdict))

    def flush(self):
        self.flushed += 1


@pytest.fixture
def seen():
    return Seen()
