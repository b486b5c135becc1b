"""Whether a model that was adapted takes the place of the one before it.

It does when all of this holds:

1. of the fields of the regression tests it has more right than the model before, so many more that chance
   alone does so at most one time in twenty (an exact sign test on the fields that only one of the two has
   right, McNemar 1947, one-sided); where fewer than five fields changed at all, none may have changed for
   the worse, since no count so small passes that test;
2. no task and domain of the regression tests lost significantly by the same test;
3. no probe fell: none is significantly worse (the 95% intervals do not overlap), and none by more than
   `tolerance` (2 points), where its interval is narrow enough to tell.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from glasshouse.core.config import Config
from glasshouse.core.errors import DataError
from glasshouse.documents.corrections import Case
from glasshouse.documents.result import Result
from glasshouse.evaluation.suite import LOWER_IS_BETTER
from glasshouse.files.document import Document

CHANCE = 0.05
"""How often chance may look like a gain, or like a loss."""

FEW = 5
"""Changed fields up to which the sign test cannot reach CHANCE: 2 ** -4 is more."""

TOLERANCE = 0.02

Answers = dict[tuple[str, str], bool]
"""(case, path) -> right."""


class Analyzes(Protocol):
    """As documents.Analyzer does."""

    async def run(
        self,
        document: Document,
        task: Any,
        *,
        schema: dict[str, Any] | None = None,
        instructions: str | None = None,
    ) -> Result: ...


class Change(Config):
    """The regression tests of one task and domain, or of all."""

    name: str
    fields: int
    right_before: int
    right_after: int
    gained: int  # right now, wrong before
    lost: int
    p_gain: float  # how often chance alone would gain at least so much
    p_loss: float


class ProbeChange(Config):
    name: str
    before: float
    after: float
    fell: bool
    why: str = ""


class Promotion(Config):
    """The decision, and every figure that it rests on."""

    promoted: bool
    reasons: tuple[str, ...]  # what speaks against it, one sentence each; else what speaks for it
    overall: Change
    groups: tuple[Change, ...]
    probes: tuple[ProbeChange, ...]

    def lines(self) -> list[str]:
        """For a terminal or a log."""
        verdict = "promoted" if self.promoted else "not promoted"
        shown = [f"{verdict}: {'; '.join(self.reasons)}"]
        for change in (self.overall, *self.groups):
            shown.append(
                f"{change.name}: {change.right_before} of {change.fields} right before, "
                f"{change.right_after} after ({change.gained} gained, {change.lost} lost)"
            )
        shown += [
            f"{probe.name}: {probe.before:.3f} before, {probe.after:.3f} after"
            + (f", fell: {probe.why}" if probe.fell else "")
            for probe in self.probes
        ]
        return shown


async def ask_cases(analyzer: Analyzes, cases: Sequence[Case]) -> Answers:
    """Which fields of the regression tests a model has right; of a result that failed, none."""
    results = await asyncio.gather(
        *(
            analyzer.run(case.document, case.task, schema=case.schema, instructions=case.instructions)
            for case in cases
        )
    )
    return {
        (_group(case), f"{case.name}#{number} {path}"): right
        for number, (case, result) in enumerate(zip(cases, results, strict=True))
        for path, right in case.judge(result).items()
    }


def decide(
    before: Mapping[tuple[str, str], bool],
    after: Mapping[tuple[str, str], bool],
    probes_before: Mapping[str, Mapping[str, Any]],
    probes_after: Mapping[str, Mapping[str, Any]],
    *,
    tolerance: float = TOLERANCE,
) -> Promotion:
    """`before` and `after`: what `ask_cases` gave for the two models; the probes as a run's evaluation has
    them, {"value", "low", "high", "n"}.

    Raises DataError where there are no regression tests, or the two were not asked the same.
    """
    if not before or before.keys() != after.keys():
        what = "there are no regression tests" if not before else "the models were asked different tests"
        raise DataError(what, where="promotion", fix="ask both models the cases of one store of corrections")
    lost_probes = sorted(probes_before.keys() - probes_after.keys())
    overall = _change("regression tests", list(before), before, after)
    by_group: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key in before:
        by_group[key[0]].append(key)
    groups = tuple(_change(name, keys, before, after) for name, keys in sorted(by_group.items()))
    probes = tuple(
        _probe(name, probes_before[name], probes_after[name], tolerance)
        for name in probes_before
        if name in probes_after
    )
    against = []
    changed = overall.gained + overall.lost
    if overall.gained == 0:
        against.append("no field of the regression tests is gained")
    elif changed < FEW and overall.lost:
        against.append(f"only {changed} fields changed, {overall.lost} of them for the worse")
    elif changed >= FEW and overall.p_gain > CHANCE:
        against.append(f"the gain may be chance (p = {overall.p_gain:.2f})")
    against += [
        f"{group.name} lost {group.lost} fields and gained {group.gained}"
        for group in groups
        if group.lost > group.gained and group.p_loss <= CHANCE
    ]
    against += [f"the probe {probe.name} fell: {probe.why}" for probe in probes if probe.fell]
    against += [f"the probe {name} was not asked again" for name in lost_probes]
    why = f"{overall.gained} fields gained, {overall.lost} lost, no probe fell"
    return Promotion(
        promoted=not against,
        reasons=tuple(against) or (why,),
        overall=overall,
        groups=groups,
        probes=probes,
    )


def sign_test(gained: int, lost: int) -> float:
    """How often a fair coin thrown gained + lost times shows at least `gained` heads; 1 for no throw."""
    n = gained + lost
    return math.fsum(math.comb(n, k) for k in range(gained, n + 1)) / 2**n


def _change(
    name: str,
    keys: Sequence[tuple[str, str]],
    before: Mapping[tuple[str, str], bool],
    after: Mapping[tuple[str, str], bool],
) -> Change:
    gained = sum(after[key] and not before[key] for key in keys)
    lost = sum(before[key] and not after[key] for key in keys)
    return Change(
        name=name,
        fields=len(keys),
        right_before=sum(before[key] for key in keys),
        right_after=sum(after[key] for key in keys),
        gained=gained,
        lost=lost,
        p_gain=sign_test(gained, lost),
        p_loss=sign_test(lost, gained),
    )


def _probe(name: str, before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float) -> ProbeChange:
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    drop = sign * (before["value"] - after["value"])
    apart = _apart(before, after)
    why = ""
    if drop > 0 and apart:
        why = "the 95% intervals do not overlap"
    elif drop > tolerance and max(_half(before), _half(after)) <= tolerance:
        why = f"by {drop:.3f}, more than {tolerance:g}"
    return ProbeChange(name=name, before=before["value"], after=after["value"], fell=bool(why), why=why)


def _apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the intervals do not overlap; figures without intervals are apart where they differ."""
    if any(estimate.get(end) is None for estimate in (first, second) for end in ("low", "high")):
        return first["value"] != second["value"]
    return first["high"] < second["low"] or second["high"] < first["low"]


def _half(estimate: Mapping[str, Any]) -> float:
    if estimate.get("low") is None or estimate.get("high") is None:
        return 0.0
    return (estimate["high"] - estimate["low"]) / 2


def _group(case: Case) -> str:
    return f"{case.task}, {case.domain}"
