"""The layers in their usual order, for whoever wants a model that holds and needs nothing special.

Monitor > Cache > Fit > Retry > Budget > Batch > model; docs/layers.md says why in this order. Whoever wants
another one, or Vote, Route and Fallback, stacks the layers by hand: each takes the next one first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glasshouse.llm.batch import Batch
from glasshouse.llm.fit import Fit
from glasshouse.llm.interface import LLM
from glasshouse.llm.retry import Retry


def standard(
    llm: LLM,
    *,
    at_once: int = 8,
    tries: int = 4,
    dollars: float | None = None,
    tokens: int | None = None,
    prices: Mapping[str, Mapping[str, float]] | None = None,
    cache: str | Path | None = None,
    log: str | Path | None = None,
) -> LLM:
    """The model with layers around it: `at_once` calls, `tries` for each.

    `dollars` and `tokens` are the most that all calls together may spend; the call that could pass them is
    not made; `prices`, as `Prices` takes them, are those that no list knows. `cache` and `log` are SQLite
    files: of replies, and of what every call took (`glasshouse monitor` shows it). Without them nothing is
    kept.
    """
    llm = Batch(llm, at_once)
    if dollars is not None or tokens is not None:
        from glasshouse.llm.budget import Budget
        from glasshouse.llm.prices import Prices
        from glasshouse.llm.spending import Limits, Spending

        llm = Budget(llm, Spending(Limits.parse({"dollars": dollars, "tokens": tokens})), Prices(prices))
    llm = Fit(Retry(llm, tries=tries))
    if cache is not None:
        from glasshouse.llm.cache import Cache

        llm = Cache(llm, cache)
    if log is not None:
        from glasshouse.llm.monitoring.call_log import CallLog
        from glasshouse.llm.monitoring.monitor import Monitor

        llm = Monitor(llm, CallLog(log))
    return llm
