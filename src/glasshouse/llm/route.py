"""Route: ask the cheapest model that will do.

Any number of tiers. A difficulty classifier passes over those that a request looks too hard for; the others
are asked in turn, until one is sure enough of its answer. How sure is enough comes from labelled requests,
with a guarantee (routing_policy.py). The last tier's answer is always taken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from glasshouse.classify import TextClassifier
from glasshouse.core.errors import UsageError
from glasshouse.llm.confidence import Confidence, asked
from glasshouse.llm.difficulty import likely_right, request_text
from glasshouse.llm.errors import ContextTooLongError, LLMError
from glasshouse.llm.interface import LLM, Capabilities, Chunk, Completion, Note, Request
from glasshouse.llm.layer import Layer, noted
from glasshouse.llm.reading import reading
from glasshouse.llm.routing_policy import Policy
from glasshouse.llm.routing_samples import check_able
from glasshouse.llm.spent import Spent


@dataclass(frozen=True)
class TierReport:
    """`cost` in US dollars; None where some answers came without one."""

    name: str
    asked: int
    answered: int
    share: float  # of all answers
    expected: float | None  # share in the labelled sample: far from it, requests are of another kind now
    cost: float | None


@dataclass(frozen=True)
class RouteReport:
    """What was asked of whom, and what it saved.

    `always_last`: US dollars, had every request gone to the last tier: `calls` times what it costs on
    average, in the labelled sample or, where that knows no money, in the requests that it answered
    (`basis`); those may be harder and dearer than others. None where nobody knows.
    """

    calls: int
    tiers: tuple[TierReport, ...]
    failed: int
    spent: float | None
    always_last: float | None
    saved: float | None
    basis: Literal["sample", "answers"] | None
    guarantee: str


@dataclass
class _Tally:
    asked: int = 0
    answered: int = 0
    cost: float = 0.0
    answers_cost: float = 0.0
    priced: bool = True


class Route(Layer):
    """Tiers are in order of cost. Errors of a tier that is not the last send the request to the next, where
    asking again would be right too, or where the context is too short; others are raised.

    What streams: the last tier, and one whose answer is taken unseen. Any other answer must be there as a
    whole before it is accepted, and comes as one piece.
    """

    def __init__(
        self,
        tiers: Sequence[LLM],
        policy: Policy,
        *,
        confidence: Confidence | None = None,
        classifier: TextClassifier | None = None,
    ) -> None:
        """`confidence` and `classifier`: those that the policy was calibrated with. Raises UsageError where
        they do not fit together."""
        _check(tiers, policy, confidence, classifier)
        super().__init__(tiers[-1])
        self.tiers, self.policy = tuple(tiers), policy
        self.confidence, self.classifier = confidence, classifier
        self._tallies = [_Tally() for _ in tiers]
        self._failed = 0
        self._guarantee = policy.guarantee

    @property
    def name(self) -> str:
        return f"route({', '.join(tier.name for tier in self.tiers)})"

    @property
    def can(self) -> Capabilities:
        """What all tiers can; vectors come from the last."""
        able = {
            field.name: all(getattr(tier.can, field.name) for tier in self.tiers)
            for field in fields(Capabilities)
        }
        last = self.inner.can
        return Capabilities(**able | {"embeddings": last.embeddings, "counts_tokens": last.counts_tokens})

    async def complete(self, request: Request) -> Completion:
        """The first answer that is sure enough. Usage and cost are those of all tiers that were asked."""
        call = _Call(self)
        for tier in self._order(request):
            try:
                if self._unseen(tier):
                    return call.answer(tier, await self.tiers[tier].complete(request))
                assert self.confidence is not None
                completion, sure = await asked(self.confidence, self.tiers[tier], request)
            except LLMError as error:
                call.failed(tier, error)
            else:
                if call.accepts(tier, completion, sure):
                    return call.answer(tier, completion, sure)
        raise AssertionError("the last tier answers or raises")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        call = _Call(self)
        for tier in self._order(request):
            begun = False
            try:
                if self._unseen(tier):
                    async with reading(self.tiers[tier], request) as pieces:
                        async for chunk in pieces:
                            begun = True
                            if chunk.completion is not None:
                                told = call.answer(tier, chunk.completion)
                                chunk = Chunk(chunk.text, chunk.reasoning, told)
                            yield chunk
                    return
                assert self.confidence is not None
                completion, sure = await asked(self.confidence, self.tiers[tier], request)
            except LLMError as error:
                call.failed(tier, error, begun)
            else:
                if call.accepts(tier, completion, sure):
                    completion = call.answer(tier, completion, sure)
                    yield Chunk(completion.text, completion.reasoning or "", completion)
                    return

    async def close(self) -> None:
        for tier in {id(tier): tier for tier in self.tiers}.values():
            await tier.close()

    def report(self) -> RouteReport:
        """All calls so far."""
        calls = sum(tally.answered for tally in self._tallies)
        evidence, last = self.policy.evidence, self._tallies[-1]
        spent = sum(t.cost for t in self._tallies) if all(t.priced for t in self._tallies) else None
        average, basis = None, None
        if evidence is not None and evidence.unit == "US dollars":
            average, basis = evidence.last_cost, "sample"
        elif last.answered and last.priced:
            average, basis = last.answers_cost / last.answered, "answers"
        always = None if average is None else calls * average
        return RouteReport(
            calls=calls,
            tiers=tuple(
                TierReport(
                    name=tier.name,
                    asked=tally.asked,
                    answered=tally.answered,
                    share=tally.answered / calls if calls else 0.0,
                    expected=None if evidence is None else evidence.answered[t],
                    cost=tally.cost if tally.priced else None,
                )
                for t, (tier, tally) in enumerate(zip(self.tiers, self._tallies, strict=True))
            ),
            failed=self._failed,
            spent=spent,
            always_last=always,
            saved=None if always is None or spent is None else always - spent,
            basis=basis,
            guarantee=self.policy.guarantee,
        )

    def _order(self, request: Request) -> list[int]:
        """The tiers to be asked, one after the other."""
        accept, last = self.policy.accept, len(self.tiers) - 1
        order = [tier for tier in range(last) if accept[tier] != "never"]
        if order and self.classifier is not None and self.policy.begin > 0:
            likely = likely_right(self.classifier, [request_text(request)], len(self.tiers))[0]
            order = [tier for tier in order if likely[tier] >= self.policy.begin]
        return [*order, last]

    def _unseen(self, tier: int) -> bool:
        return tier == len(self.tiers) - 1 or self.policy.accept[tier] == "always"


class _Call:
    """One request on its way up the tiers."""

    def __init__(self, route: Route) -> None:
        self.route, self.spent, self.asked = route, Spent(), []

    def _asked(self, tier: int, outcome: Completion | LLMError) -> None:
        tally = self.route._tallies[tier]
        tally.asked += 1
        self.asked.append(self.route.tiers[tier].name)
        if outcome.cost is not None:
            tally.cost += outcome.cost
        elif isinstance(outcome, Completion) or outcome.usage is not None:
            tally.priced = False
        self.spent.add(outcome)

    def failed(self, tier: int, error: LLMError, begun: bool = False) -> None:
        """Raises where the next tier is no help, or there is none."""
        self._asked(tier, error)
        last = tier == len(self.route.tiers) - 1
        if begun or last or not (error.retryable or isinstance(error, ContextTooLongError)):
            self.route._failed += 1
            if len(self.asked) == 1:
                raise error
            raise self.spent.error(error, error.what) from error

    def accepts(self, tier: int, completion: Completion, sure: float | None) -> bool:
        """Counts the reply, and tells whether it is taken."""
        self._asked(tier, completion)
        threshold = self.route.policy.accept[tier]
        assert not isinstance(threshold, str)
        return sure is not None and sure >= threshold

    def answer(self, tier: int, completion: Completion, sure: float | None = None) -> Completion:
        """With the sums of all tiers, and a note."""
        route, tiers = self.route, len(self.route.tiers)
        tally = route._tallies[tier]
        if sure is None:
            self._asked(tier, completion)
        tally.answered += 1
        tally.answers_cost += completion.cost or 0.0
        details = {
            "tier": tier,
            "tiers": tiers,
            "asked": tuple(self.asked),
            "confidence": sure,
            "threshold": None if sure is None else route.policy.accept[tier],
            "begin": route.policy.begin,
            "proved": bool(route.policy.evidence and route.policy.evidence.proved),
        }
        what = f"tier {tier + 1} of {tiers} answered; {route._guarantee}"
        return noted(self.spent.reply(completion), Note("route", what, details))


def _check(
    tiers: Sequence[LLM],
    policy: Policy,
    confidence: Confidence | None,
    classifier: TextClassifier | None,
) -> None:
    names = tuple(tier.name for tier in tiers)
    if len(tiers) != len(policy.accept) + 1:
        fix = "name as many models as it was calibrated for, the cheapest first"
        raise UsageError(f"{len(tiers)} models, and a policy for {len(policy.accept) + 1}", fix=fix)
    if policy.tiers and policy.tiers != names:
        fix = "calibrate anew: thresholds of other models mean nothing"
        raise UsageError(f"a policy for {', '.join(policy.tiers)}", where=", ".join(names), fix=fix)
    looks = any(not isinstance(threshold, str) for threshold in policy.accept)
    if looks and confidence is None:
        name = policy.confidence or "a confidence"
        raise UsageError(f"the policy needs {name}", fix="give confidence=..., MeanLogprob() for example")
    if looks and confidence is not None:
        if policy.confidence not in (None, confidence.name):
            fix = f"give the one that it was calibrated with, '{policy.confidence}'"
            raise UsageError(f"a policy for another confidence than '{confidence.name}'", fix=fix)
        check_able(tiers, confidence)
    if policy.begin > 0 and classifier is None:
        raise UsageError("the policy needs its difficulty classifier", fix="give classifier=...")
    if classifier is not None:
        likely_right(classifier, [], len(tiers))  # raises where its labels are no tiers
