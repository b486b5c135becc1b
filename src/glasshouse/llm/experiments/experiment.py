"""An experiment stands where an LLM stands: it draws the arm of a request's key, asks it, and keeps count."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glasshouse.core.errors import DataError
from glasshouse.llm.errors import BadRequestError, InvalidOutputError, LLMError
from glasshouse.llm.experiments.assignment import assign
from glasshouse.llm.experiments.outcomes import Outcome, Outcomes
from glasshouse.llm.experiments.plan import Guard, Metric, Plan
from glasshouse.llm.experiments.report import Report, report
from glasshouse.llm.interface import LLM, Capabilities, Chunk, Completion, Note, Request
from glasshouse.llm.layer import noted

Measure = Callable[[Request, Completion | LLMError], float | None]
"""The metric's value of a call that ended well or not; None where only somebody else can tell it later."""


@dataclass(frozen=True)
class Arm:
    """One of the things to be compared: a model, a version of a prompt, or both."""

    name: str
    llm: LLM
    render: Callable[[Request], Request] | None = None  # puts its prompt around what was asked
    share: float | None = None  # of all keys; None: an equal part of what the others leave


def validation_success(request: Request, outcome: Completion | LLMError) -> float | None:
    """1 for a reply, 0 for one that broke its schema, None for a call that failed: ask arms that validate."""
    if isinstance(outcome, Completion):
        return 1.0
    return 0.0 if isinstance(outcome, InvalidOutputError) else None


class Experiment:
    """An `LLM` over its arms; the first is the control. A request's label "key" says whose it is.

    Everybody with the same key (a person, a document) gets the same arm. Outcomes are kept in `file`, where
    an experiment of the same name goes on after a restart.

        Experiment("greeting", [Arm("v1", llm), Arm("v2", llm, v2)], file="experiments.sqlite",
                   metric=Metric(name="accepted"), guards=[Guard(name="seconds", limit=0.2)])
    """

    def __init__(
        self,
        name: str,
        arms: Sequence[Arm],
        *,
        file: str | Path,
        metric: Metric,
        guards: Sequence[Guard] = (),
        alpha: float = 0.05,
        measure: Measure | None = None,
    ) -> None:
        """Raises ConfigError for shares that do not fit, and for another plan than the file's."""
        self.arms = {arm.name: arm for arm in arms}
        self._control = arms[0].llm
        self.plan = Plan.parse(
            {
                "name": name,
                "arms": list(zip((arm.name for arm in arms), _shares(arms), strict=True)),
                "metric": metric,
                "guards": tuple(guards),
                "alpha": alpha,
            },
            source="experiment",
        )
        self._measure = measure
        self.outcomes = Outcomes(file)
        self.outcomes.start(self.plan)

    @property
    def name(self) -> str:
        return f"experiment:{self.plan.name}"

    @property
    def can(self) -> Capabilities:
        """What every arm can."""
        able = [arm.llm.can for arm in self.arms.values()]
        return Capabilities(**{name: all(getattr(can, name) for can in able) for name in vars(able[0])})

    @property
    def context(self) -> int | None:
        known = [arm.llm.context for arm in self.arms.values() if arm.llm.context is not None]
        return min(known, default=None)

    def arm(self, key: str) -> Arm:
        """The arm of a key, which never changes."""
        return self.arms[assign(self.plan.name, key, self.plan.shares)]

    def record(self, key: str, value: float) -> None:
        """The metric's value that somebody else found: a judge, a person's choice. Raises DataError."""
        self.outcomes.judge(self.plan.name, key, self.arm(key).name, self._checked(value))

    def report(self) -> Report:
        """What is known by now; looking costs nothing, however often."""
        return report(self.outcomes, self.plan)

    async def complete(self, request: Request) -> Completion:
        key, arm, sent = self._drawn(request)
        asked, began = time.time_ns(), time.perf_counter()
        try:
            completion = await arm.llm.complete(sent)
        except LLMError as error:
            self._keep(key, arm, request, error, asked, began)
            raise
        self._keep(key, arm, request, completion, asked, began)
        return self._told(completion, arm)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """A stream that its reader leaves is no outcome."""
        key, arm, sent = self._drawn(request)
        asked, began = time.time_ns(), time.perf_counter()
        try:
            async for chunk in arm.llm.stream(sent):
                if chunk.completion is not None:
                    self._keep(key, arm, request, chunk.completion, asked, began)
                    chunk = replace(chunk, completion=self._told(chunk.completion, arm))
                yield chunk
        except LLMError as error:
            self._keep(key, arm, request, error, asked, began)
            raise

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The control's: vectors of two models do not mix."""
        return await self._control.embed(texts)

    async def count_tokens(self, request: Request) -> int:
        _, arm, sent = self._drawn(request)
        return await arm.llm.count_tokens(sent)

    async def close(self) -> None:
        for arm in self.arms.values():
            await arm.llm.close()
        self.outcomes.close()

    def _drawn(self, request: Request) -> tuple[str, Arm, Request]:
        key = request.labels.get("key")
        if not key:
            raise BadRequestError(
                "a request without the label 'key' belongs to no arm",
                where=self.name,
                fix='set labels={"key": ...} to the person or document that it is for',
            )
        arm = self.arm(key)
        sent = arm.render(request) if arm.render else request
        labels = {**request.labels, **sent.labels, "experiment": self.plan.name, "arm": arm.name}
        return key, arm, sent.model_copy(update={"labels": labels})

    def _keep(
        self, key: str, arm: Arm, request: Request, result: Completion | LLMError, asked: int, began: float
    ) -> None:
        value = None if self._measure is None else self._measure(request, result)
        done = isinstance(result, Completion)
        invalid = isinstance(result, InvalidOutputError)
        seconds = result.seconds if done and result.seconds is not None else time.perf_counter() - began
        outcome = Outcome(
            key,
            arm.name,
            None if value is None else self._checked(value),
            seconds if done or invalid else None,  # how soon a call failed is no virtue
            result.cost,
            done and result.finish == "refusal",
            invalid,
            not done and not invalid,
        )
        self.outcomes.add(self.plan.name, outcome, asked)

    def _told(self, completion: Completion, arm: Arm) -> Completion:
        about = {"experiment": self.plan.name, "arm": arm.name}
        return noted(completion, Note("experiment", f"answered by arm {arm.name}", about))

    def _checked(self, value: float) -> float:
        low, high = self.plan.metric.bounds or (-math.inf, math.inf)
        if not (math.isfinite(value) and low <= value <= high):
            raise DataError(
                f"{value} is no value of '{self.plan.metric.name}', which lies within {low:g} and {high:g}",
                where=self.name,
                fix="correct what measures it, or state other bounds in an experiment of another name",
            )
        return float(value)


def _shares(arms: Sequence[Arm]) -> list[float]:
    open_ = sum(arm.share is None for arm in arms)
    left = 1 - sum(arm.share or 0 for arm in arms)
    return [left / open_ if arm.share is None else arm.share for arm in arms]
