"""Whether a model that was adapted takes the place of the one before it.

It does when all of this holds:

1. Of the regression tests on documents that it was not trained on (`corrections.HELD_OUT`) more have gained
   than lost, so many more that chance alone does so at most one time in twenty: an exact one-sided sign test
   on the passages of which one model has more fields right than the other (McNemar 1947). Passages, not
   fields, since the fields of one go right and wrong together. Where fewer than five passages changed, which
   no such test can tell from chance, at least one must have gained and none lost.
2. No task and domain, of all regression tests, has lost significantly by the same test.
3. No probe fell: of none do the 95% intervals of before and after lie apart the wrong way round, and none
   whose intervals are narrow enough to tell is worse by more than `tolerance` (2 points).
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from glasshouse.core.config import Config
from glasshouse.core.errors import DataError
from glasshouse.documents.learning.corrections import Case
from glasshouse.documents.result import Result
from glasshouse.evaluation.suite import LOWER_IS_BETTER
from glasshouse.files.document import Document

CHANCE = 0.05
"""How often chance may look like a gain, or like a loss."""

FEW = 5
"""Changed passages from which on the sign test can reach CHANCE: 2 ** -5 is less, 2 ** -4 more."""

TOLERANCE = 0.02


class Asked(NamedTuple):
    """One field of one regression test."""

    group: str  # task and domain
    case: str
    path: str
    held_out: bool


Answers = Mapping[Asked, bool]
"""Whether a model has it right."""


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
    """Some of the regression tests: those held out, or those of one task and domain."""

    name: str
    fields: int
    right_before: int
    right_after: int
    gained: int  # passages with more fields right than before
    lost: int  # with fewer
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
    held_out: Change
    groups: tuple[Change, ...]
    probes: tuple[ProbeChange, ...]

    def lines(self) -> list[str]:
        """For a terminal or a log."""
        verdict = "promoted" if self.promoted else "not promoted"
        shown = [f"{verdict}: {'; '.join(self.reasons)}"]
        for change in (self.held_out, *self.groups):
            shown.append(
                f"{change.name}: {change.right_before} of {change.fields} fields right before, "
                f"{change.right_after} after ({change.gained} passages gained, {change.lost} lost)"
            )
        shown += [
            f"{probe.name}: {probe.before:.3f} before, {probe.after:.3f} after"
            + (f", fell: {probe.why}" if probe.fell else "")
            for probe in self.probes
        ]
        return shown


async def ask_cases(analyzer: Analyzes, cases: Sequence[Case]) -> dict[Asked, bool]:
    """Which fields of the regression tests a model has right; of a result that failed, none that is there."""
    results = await asyncio.gather(
        *(
            analyzer.run(case.document, case.task, schema=case.schema, instructions=case.instructions)
            for case in cases
        )
    )
    return {
        Asked(f"{case.task}, {case.domain}", f"{case.name} #{number}", path, case.held_out): right
        for number, (case, result) in enumerate(zip(cases, results, strict=True))
        for path, right in case.judge(result).items()
    }


def decide(
    before: Answers,
    after: Answers,
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
    fresh = _change("held-out regression tests", [key for key in before if key.held_out], before, after)
    by_group: dict[str, list[Asked]] = defaultdict(list)
    for key in before:
        by_group[key.group].append(key)
    groups = tuple(_change(name, keys, before, after) for name, keys in sorted(by_group.items()))
    probes = tuple(
        _probe(name, probes_before[name], probes_after[name], tolerance)
        for name in probes_before
        if name in probes_after
    )
    against = _against_gain(fresh)
    against += [
        f"{group.name} lost {group.lost} passages and gained {group.gained}"
        for group in groups
        if group.p_loss <= CHANCE
    ]
    against += [f"the probe {probe.name} fell: {probe.why}" for probe in probes if probe.fell]
    against += [f"the probe {name} was not asked again" for name in probes_before if name not in probes_after]
    why = f"{fresh.gained} held-out passages gained, {fresh.lost} lost, no probe fell"
    return Promotion(
        promoted=not against,
        reasons=tuple(against) or (why,),
        held_out=fresh,
        groups=groups,
        probes=probes,
    )


def _against_gain(fresh: Change) -> list[str]:
    if fresh.fields == 0:
        return ["no regression test is held out from training; correct more documents"]
    if fresh.gained == 0:
        return ["no held-out passage gained"]
    if fresh.gained + fresh.lost < FEW:
        return [f"{fresh.lost} held-out passages lost, and few changed"] if fresh.lost else []
    if fresh.p_gain > CHANCE:
        return [f"{fresh.gained} held-out passages gained and {fresh.lost} lost: chance does so too"]
    return []


def sign_test(gained: int, lost: int) -> float:
    """How often a fair coin thrown gained + lost times shows at least `gained` heads; 1 for no throw."""
    n = gained + lost
    return sum(math.comb(n, k) for k in range(gained, n + 1)) / 2**n


def _change(name: str, keys: Sequence[Asked], before: Answers, after: Answers) -> Change:
    more: Counter[str] = Counter()
    for key in keys:
        more[key.case] += after[key] - before[key]
    gained, lost = (sum(sign * count > 0 for count in more.values()) for sign in (1, -1))
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
