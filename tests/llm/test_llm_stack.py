"""The usual stack: each part of it acts, and nothing is kept that was not asked for."""

import pytest

from glasshouse.llm import Completion, Usage, blocking, standard
from glasshouse.llm.errors import BudgetExceededError, RateLimitedError
from glasshouse.llm.monitoring.snapshot import LogReader


def test_it_retries_counts_remembers_and_logs(scripted, ask, tmp_path):
    model = scripted([RateLimitedError("later", retry_after=0), Completion("Yes.", "stop", Usage(1000, 500))])
    prices = {"scripted": {"input": 1.0, "output": 2.0}}
    llm = standard(
        model, dollars=1, prices=prices, cache=tmp_path / "cache.sqlite", log=tmp_path / "calls.sqlite"
    )
    first, again = blocking.complete(llm, ask()), blocking.complete(llm, ask())
    assert (first.text, again.text, len(model.asked)) == ("Yes.", "Yes.", 2)
    assert (first.cost, again.cost) == (pytest.approx(0.002), 0)
    blocking.wait(llm.close())
    assert model.closed
    with LogReader(tmp_path / "calls.sqlite") as log:
        assert log.snapshot().all.calls == 2


def test_the_call_that_could_pass_the_budget_is_not_made(scripted, ask):
    model = scripted()
    with pytest.raises(BudgetExceededError):
        blocking.complete(standard(model, tokens=10), ask(max_new_tokens=100))
    assert model.asked == []


def test_a_bare_stack_keeps_nothing(scripted, ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert blocking.complete(standard(scripted()), ask()).text == "Yes."
    assert list(tmp_path.iterdir()) == []
