"""What an experiment has shown so far: effect, interval, money, guards, and what to do in one sentence."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from glasshouse.llm.experiments.assignment import SUSPICIOUS, mismatch_p_value
from glasshouse.llm.experiments.outcomes import Outcomes
from glasshouse.llm.experiments.plan import Guard, Plan
from glasshouse.llm.experiments.sequential import Difference, compare, sample_size

MOMENTS = 40
"""Points of the picture's line, closer together at the beginning."""


@dataclass(frozen=True)
class ArmReport:
    """Numbers that nobody told are None. `guards`: means by name."""

    name: str
    share: float
    keys: int
    calls: int
    values: int
    mean: float | None
    cost: float | None  # US dollars of all calls whose cost is known
    cost_known: int  # how many those are
    guards: dict[str, float | None]


@dataclass(frozen=True)
class GuardReport:
    """Treated minus control. `holds`: certainly within the limit; `broken`: certainly beyond; else `open`."""

    name: str
    limit: float
    difference: Difference
    state: Literal["holds", "broken", "open"]


@dataclass(frozen=True)
class Comparison:
    """One arm against the control. `missing`: about how many more outcomes of the two would show a difference
    of `aim`, None where that is unknown."""

    arm: str
    difference: Difference
    verdict: Literal["better", "worse", "alike", "open"]
    guards: tuple[GuardReport, ...]
    aim: float | None
    missing: int | None


@dataclass(frozen=True)
class Report:
    plan: Plan
    arms: tuple[ArmReport, ...]
    comparisons: tuple[Comparison, ...]
    mismatch: float
    decision: str

    def to_json(self) -> dict[str, Any]:
        """The same for programs: None for what is not a finite number."""
        told = asdict(self) | {"plan": self.plan.model_dump()}
        return _finite(told)

    def __str__(self) -> str:
        metric, alpha = self.plan.metric, self.plan.alpha / len(self.comparisons)
        kind = "exact" if metric.bounds else "asymptotic"
        lines = [f"{self.plan.name}: {metric.name}", ""]
        for arm in self.arms:
            mean = "-" if arm.mean is None else f"{arm.mean:.4g}"
            cost = "unknown" if arm.cost is None else f"{arm.cost:.4g} USD for {arm.cost_known} of its calls"
            lines.append(
                f"  {arm.name}: mean {mean} of {arm.values} values, {arm.keys} keys, {arm.calls} calls, "
                f"cost {cost}"
            )
        for each in self.comparisons:
            about = f"  {each.arm} - {self.plan.control}: {_told(each.difference, alpha)}"
            lines += ["", f"{about}, p = {each.difference.p_value:.3g} ({kind}, at all times at once)"]
            lines += [
                f"    {guard.name}, at most {guard.limit:g} more: {guard.state}, "
                f"{_told(guard.difference, alpha)}"
                for guard in each.guards
            ]
            if each.missing and each.aim:
                lines.append(
                    f"    about {each.missing:,} more outcomes would show a difference of {each.aim:.3g}"
                )
        return "\n".join([*lines, "", self.decision])


def read_report(file: str | Path, experiment: str | None = None) -> Report:
    """The report of an experiment in a file; the name may be left out where there is only one.

    Raises DataError where there is none such.
    """
    outcomes = Outcomes(file, create=False)
    try:
        return report(outcomes, outcomes.plan(experiment))
    finally:
        outcomes.close()


def report(outcomes: Outcomes, plan: Plan) -> Report:
    values = outcomes.firsts(plan.name, "value")
    guarded = {guard.name: outcomes.firsts(plan.name, guard.name) for guard in plan.guards}
    totals = outcomes.totals(plan.name)
    arms = []
    for name, share in plan.arms:
        keys, calls, cost, known = totals.get(name, (0, 0, None, 0))
        mine = [value for arm, value in values if arm == name]
        means = {guard: _mean(rows, name) for guard, rows in guarded.items()}
        arms.append(ArmReport(name, share, keys, calls, len(mine), _mean(values, name), cost, known, means))
    comparisons = tuple(_comparison(plan, name, values, guarded) for name, _ in plan.arms[1:])
    mismatch = min(
        mismatch_p_value({arm.name: arm.keys for arm in arms}, plan.shares),
        mismatch_p_value({arm.name: arm.values for arm in arms}, plan.shares),
    )
    decision = _decision(plan, comparisons, mismatch)
    return Report(plan, tuple(arms), comparisons, mismatch, decision)


Rows = Sequence[tuple[str, float]]


def _difference(plan: Plan, arm: str, rows: Rows, bounds: tuple[float, float] | None) -> Difference:
    """Between an arm and the control; each of several arms gets its part of alpha."""
    mine = [row for row in rows if row[0] in (arm, plan.control)]
    share = plan.shares[arm] / (plan.shares[arm] + plan.shares[plan.control])
    values = np.array([value for _, value in mine], dtype=np.float64)
    treated = np.array([name == arm for name, _ in mine], dtype=bool)
    return compare(values, treated, share, plan.alpha / (len(plan.arms) - 1), bounds)


def _comparison(plan: Plan, arm: str, values: Rows, guarded: Mapping[str, Rows]) -> Comparison:
    metric = plan.metric
    difference = _difference(plan, arm, values, metric.bounds)
    smallest = metric.smallest
    up, down = difference.low > 0, difference.high < 0
    if up or down:
        verdict = "better" if up == metric.higher_is_better else "worse"
    elif smallest and -smallest < difference.low and difference.high < smallest:
        verdict = "alike"
    else:
        verdict = "open"
    guards = tuple(_guard(plan, arm, guard, guarded[guard.name]) for guard in plan.guards)
    aim = smallest or abs(difference.effect) or None
    total = sample_size(aim or 0, difference.spread, plan.alpha / (len(plan.arms) - 1))
    missing = 0 if verdict != "open" else None if total is None else max(total - difference.n, 1)
    return Comparison(arm, difference, verdict, guards, aim, missing)


def _guard(plan: Plan, arm: str, guard: Guard, rows: Rows) -> GuardReport:
    difference = _difference(plan, arm, rows, guard.bounds)
    if difference.n and difference.high <= guard.limit:
        state = "holds"
    else:
        state = "broken" if difference.low > guard.limit else "open"
    return GuardReport(guard.name, guard.limit, difference, state)


def _decision(plan: Plan, comparisons: Sequence[Comparison], mismatch: float) -> str:
    """One sentence: choose, keep, go on, or look for a fault."""
    control, alpha = plan.control, plan.alpha / len(comparisons)
    if mismatch < SUSPICIOUS:
        return (
            f"Decide nothing: the arms' sizes do not fit their shares (p = {mismatch:.1g}), so outcomes of "
            "one arm are lost on their way; find out where."
        )
    sign = 1 if plan.metric.higher_is_better else -1
    better = sorted(
        (each for each in comparisons if each.verdict == "better"),
        key=lambda each: -sign * each.difference.effect,
    )
    for each in better:
        if all(guard.state == "holds" for guard in each.guards):
            guards = ", and every guard holds" if each.guards else ""
            return f"Choose {each.arm}: it beats {control} by {_told(each.difference, alpha, sign)}{guards}."
    for each in better:
        waiting = [guard.name for guard in each.guards if guard.state == "open"]
        if waiting and not any(guard.state == "broken" for guard in each.guards):
            return (
                f"Go on: {each.arm} beats {control} by {_told(each.difference, alpha, sign)}, but it is not "
                f"yet certain of {' and '.join(waiting)} to stay within the limit."
            )
    going = [
        each
        for each in comparisons
        if each.verdict == "open" and not any(guard.state == "broken" for guard in each.guards)
    ]
    if going:
        least = min((each.missing for each in going if each.missing is not None), default=None)
        more = (
            f"about {least:,} more outcomes"
            if least is not None
            else "more outcomes than could be estimated yet"
        )
        return f"Go on: no difference is certain yet; {more} would show one of the size {_size(plan, going)}."
    reasons = []
    for each in comparisons:
        broken = [guard.name for guard in each.guards if guard.state == "broken"]
        why = {"worse": "is worse", "alike": "makes no difference that matters"}.get(each.verdict, "")
        if broken:
            why = f"goes beyond its limit of {' and '.join(broken)}"
        reasons.append(f"{each.arm} {why}")
    return f"Keep {control}: {'; '.join(reasons)}."


def _size(plan: Plan, going: Sequence[Comparison]) -> str:
    return (
        "that matters"
        if plan.metric.smallest
        else "seen so far"
        if any(each.aim for each in going)
        else "at hand"
    )


def _told(difference: Difference, alpha: float, sign: int = 1) -> str:
    low, high = sorted((sign * difference.low, sign * difference.high))
    return f"{sign * difference.effect:.3g} ({100 * (1 - alpha):g}% interval {low:.3g} to {high:.3g})"


def _mean(rows: Rows, arm: str) -> float | None:
    mine = [value for name, value in rows if name == arm]
    return sum(mine) / len(mine) if mine else None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report_svg(file: str | Path, experiment: str | None = None) -> str:
    """The interval over time, one band for each arm that is compared with the control, as an SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    outcomes = Outcomes(file, create=False)
    try:
        plan = outcomes.plan(experiment)
        values = outcomes.firsts(plan.name, "value")
    finally:
        outcomes.close()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": plan.name, "font.size": 10}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color="0.4", linewidth=1)
        for name, _ in plan.arms[1:]:
            rows = [row for row in values if row[0] in (name, plan.control)]
            ends = np.unique(np.geomspace(min(10, len(rows)), len(rows), MOMENTS).astype(int)) if rows else []
            seen = [(n, _difference(plan, name, rows[:n], plan.metric.bounds)) for n in ends]
            told = [(n, each) for n, each in seen if math.isfinite(each.low) and math.isfinite(each.high)]
            at = [n for n, _ in told]
            (line,) = axes.plot(at, [each.effect for _, each in told], label=f"{name} - {plan.control}")
            low, high = [each.low for _, each in told], [each.high for _, each in told]
            axes.fill_between(at, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_xscale("log")
        axes.set_xlabel("outcomes of both arms")
        axes.set_ylabel(f"difference in {plan.metric.name}")
        axes.legend(frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
