"""Alerts where calls have become slower, dearer, longer, worse, or are refused or broken more often.

Each figure of each model and prompt is tested against its own first calls (change.py, which states its rate
of false alarms). An alert is one sentence with when it began; it ends when the change is no longer found.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from glasshouse.core.errors import UsageError
from glasshouse.llm import genai
from glasshouse.llm.monitoring.call import CANCELLED, Call
from glasshouse.llm.monitoring.change import STRETCH, ChangeTest
from glasshouse.llm.monitoring.judge import Verdict

REFERENCE = 500
"""Calls that are the rule. An assumption: enough to know a rate of 1% roughly, and soon there."""

RUN_LENGTH = 50_000
"""The chance of a false alarm within N calls is at most N / 50,000, for each figure of each group: 2% in
1,000 calls. Ten times as many cost about a third more delay."""

QUIET = 2
"""Reference windows without finding a change again, after which its alert is over."""

Group = tuple[str, str, str]
"""The LLM that was asked, prompt, version; "" where a call has none."""


@dataclass(frozen=True)
class Figure:
    """How to watch a number, and how to speak of it."""

    noun: str
    up: bool
    down: bool
    show: Callable[[float], str]


FIGURES = {
    "latency": Figure("mean latency", True, False, lambda v: f"{v:.3g} s"),
    "cost": Figure("the mean cost of a call", True, False, lambda v: f"${v:.3g}"),
    "refusals": Figure("the refusal rate", True, False, lambda v: f"{v:.1%}"),
    "validation_failures": Figure("the rate of invalid replies", True, False, lambda v: f"{v:.1%}"),
    "errors": Figure("the error rate", True, False, lambda v: f"{v:.1%}"),
    "reply_length": Figure("the mean length of replies", True, True, lambda v: f"{v:.0f} tokens"),
    "quality": Figure("quality", False, True, lambda v: f"{v:.2f}"),
}


@dataclass
class Alert:
    """`name` of the figure; times in seconds since 1970. `ended` is None while it is on."""

    name: str
    group: Group
    began: float
    noticed: float
    rose: bool
    before: float  # means: of the reference window, and since it began
    after: float
    ended: float | None = None

    @property
    def sentence(self) -> str:
        figure = FIGURES[self.name]
        model, prompt, version = self.group
        what = model + (f" with prompt {prompt}" if prompt else "") + (f" {version}" if version else "")
        went = "rose" if self.rose else "fell"
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.began))
        until = "" if self.ended is None else time.strftime(", until %H:%M:%S", time.gmtime(self.ended))
        values = f"from {figure.show(self.before)} to {figure.show(self.after)}"
        return f"{figure.noun} of {what} {went} {values} since {when}{until}"

    def as_dict(self) -> dict[str, Any]:
        model, prompt, version = self.group
        return {
            "name": self.name,
            "model": model,
            "prompt": prompt,
            "version": version,
            "began": self.began,
            "noticed": self.noticed,
            "ended": self.ended,
            "rose": self.rose,
            "before": self.before,
            "after": self.after,
            "sentence": self.sentence,
        }


class _Watched:
    """One figure of one group: its test, its newest values, and the alert that is on."""

    def __init__(self, name: str, group: Group, reference: int, run_length: float, seed: int) -> None:
        figure = FIGURES[name]
        self.name, self.group, self._reference = name, group, reference
        self._test = ChangeTest(reference, run_length, up=figure.up, down=figure.down, seed=seed)
        self._newest: deque[tuple[float, float]] = deque(maxlen=STRETCH * reference)  # (when, value)
        self._quiet = self._count = 0  # numbers since the change was last found, and since it began
        self.on: Alert | None = None

    def see(self, value: float, when: float) -> Alert | None:
        """An alert that was not on before."""
        self._newest.append((when, value))
        change, new, on = self._test.see(value), None, self.on
        if change is not None:
            self._quiet = 0
            if on is None or change.rose != on.rose:
                if on is not None:
                    on.ended = when
                count = min(change.noticed - change.began + 1, len(self._newest))
                since = list(islice(self._newest, len(self._newest) - count, None))
                before, after = fmean(self._test.reference), fmean(value for _, value in since)
                self.on = new = Alert(self.name, self.group, since[0][0], when, change.rose, before, after)
                self._count = count
        elif on is not None:
            self._quiet += 1
            if self._quiet >= QUIET * self._reference:
                on.ended, self.on = when, None
        if on is not None and on.ended is None:
            self._count += 1
            on.after += (value - on.after) / self._count
        return new


class DriftAlerts:
    """A watcher. `alerts` are all there were, `current()` those that are on.

    `on_alert` is called with each new one, from where the call ended: it must be quick. The first `reference`
    calls of each group are the rule and alert nobody; each figure of each group then brings a false alarm
    within N calls with a chance of at most N / `run_length`, as long as calls are exchangeable. A call's
    figures: latency, cost and reply length of replies that came from a model, refusals of all replies, errors
    and invalid replies of all calls that nobody cancelled, quality where the judge is measured.
    """

    def __init__(
        self,
        reference: int = REFERENCE,
        run_length: float = RUN_LENGTH,
        on_alert: Callable[[Alert], None] | None = None,
        seed: int = 0,
    ) -> None:
        if reference < 20 or run_length < 1:
            raise UsageError(
                f"a reference window of {reference} calls, a false alarm in {run_length:g}",
                fix="take at least 20 calls, better some hundred, and a run length of thousands",
            )
        self.alerts: list[Alert] = []
        self._reference, self._run_length, self._on_alert, self._seed = reference, run_length, on_alert, seed
        self._watched: dict[tuple[str, Group], _Watched] = {}
        self._lock = threading.Lock()

    def current(self) -> list[Alert]:
        with self._lock:
            return [alert for alert in self.alerts if alert.ended is None]

    def record(self, call: Call) -> None:
        if call.operation == genai.CHAT:
            self.see(group_of(call), call.began + call.seconds, figures_of(call))

    def judged(self, call: Call, verdict: Verdict) -> None:
        if verdict.is_quality:
            self.see(group_of(call), call.began + call.seconds, {"quality": verdict.score})

    def flush(self) -> None:
        """Nothing waits."""

    def see(self, group: Group, when: float, figures: Mapping[str, float]) -> None:
        """Take in a call's figures, by the names of FIGURES; those that it has not are left out."""
        new = []
        with self._lock:
            for name, value in figures.items():
                watched = self._watched.get((name, group))
                if watched is None:
                    seed = self._seed + len(self._watched)
                    watched = _Watched(name, group, self._reference, self._run_length, seed)
                    self._watched[name, group] = watched
                alert = watched.see(value, when)
                if alert is not None:
                    new.append(alert)
            self.alerts += new
        if self._on_alert is not None:
            for alert in new:
                self._on_alert(alert)


def group_of(call: Call) -> Group:
    return call.asked, call.prompt, call.version


def figures_of(call: Call) -> dict[str, float]:
    """What a call says about each figure but quality."""
    if call.error == CANCELLED:
        return {}
    figures = {"errors": float(call.failed)}
    if call.finish is not None or call.validation_failures:
        figures["validation_failures"] = float(call.validation_failures > 0)
    if call.finish is None:
        return figures
    figures["refusals"] = float(call.refused)
    if not call.cache_hit:
        figures["latency"] = call.seconds
        if call.cost is not None:
            figures["cost"] = call.cost
        if call.usage is not None:
            figures["reply_length"] = float(call.usage.new_tokens)
    return figures
