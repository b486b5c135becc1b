"""How sure a model is of its reply: from its own probabilities, from asking it again, or by somebody else.

A confidence need not be calibrated, only larger where replies are right more often: what it is worth is
measured on labelled requests (routing_policy.py).
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import LLM, Completion, Request
from glasshouse.llm.spent import Spent


class Confidence(Protocol):
    @property
    def name(self) -> str:
        """Kept in a policy: thresholds of one confidence mean nothing to another."""
        ...

    def missing(self, llm: LLM) -> str | None:
        """What the model cannot do that this needs, as the end of "it ...": None if nothing."""
        ...

    async def ask(self, llm: LLM, request: Request) -> tuple[Completion, float | None]:
        """The reply, with the costs of all tries, and how sure it is: None where that cannot be told."""
        ...


async def asked(confidence: Confidence, llm: LLM, request: Request) -> tuple[Completion, float | None]:
    """What `ask` gives; of a reply that was cut or withheld nobody is sure."""
    completion, sure = await confidence.ask(llm, request)
    return completion, sure if completion.finish in ("stop", "tool_calls") else None


class MeanLogprob:
    """exp of the mean log-probability of the reply's tokens, 0 to 1: one over its perplexity."""

    name = "mean logprob"

    def missing(self, llm: LLM) -> str | None:
        return None if llm.can.logprobs else "tells no logprobs"

    async def ask(self, llm: LLM, request: Request) -> tuple[Completion, float | None]:
        wanted = request.logprobs is not None
        completion = await llm.complete(request if wanted else request.model_copy(update={"logprobs": 0}))
        told = completion.logprobs
        sure = math.exp(math.fsum(token.logprob for token in told) / len(told)) if told else None
        return (completion if wanted else replace(completion, logprobs=None)), sure


def plain_text(completion: Completion) -> str:
    """What counts as the same answer: its words, and the tools it calls, whatever the case and the end."""
    calls = [f"{call.get('function')}" for call in completion.tool_calls]
    return " ".join([*completion.text.casefold().split(), *calls]).rstrip(" .!")


class Agreement:
    """The share of `samples` replies that are the same as the most frequent, which is the one given
    (self-consistency, arXiv:2203.11171).

    `same`: what of a reply must be equal; of a long text, take its final answer. Replies are drawn at the
    request's temperature, or at `temperature` where that is 0 or not said. Costs `samples` replies.
    """

    def __init__(
        self,
        samples: int = 5,
        same: Callable[[Completion], str] = plain_text,
        temperature: float = 0.7,
    ) -> None:
        if samples < 2:
            raise ValueError("one reply agrees with itself: ask for two samples or more")
        self.samples, self.same, self.temperature = samples, same, temperature
        self.name = f"agreement of {samples} at temperature {temperature:g}"

    def missing(self, llm: LLM) -> str | None:
        return None if llm.can.temperature else "takes no temperature, so all its replies would agree"

    async def ask(self, llm: LLM, request: Request) -> tuple[Completion, float | None]:
        changes: dict[str, object] = {"temperature": request.temperature or self.temperature}

        async def draw(i: int) -> Completion:
            if llm.can.seed:
                changes_here = {**changes, "seed": (request.seed or 0) + i}
            else:
                changes_here = changes
            return await llm.complete(request.model_copy(update=changes_here))

        drawn = await asyncio.gather(*map(draw, range(self.samples)), return_exceptions=True)
        spent, replies = Spent(), []
        for outcome in drawn:
            if isinstance(outcome, Completion):
                replies.append(outcome)
            if isinstance(outcome, Completion | LLMError):
                spent.add(outcome)
        for outcome in drawn:
            if isinstance(outcome, LLMError):
                raise spent.error(outcome, outcome.what) from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        answers = [self.same(reply) for reply in replies]
        (best, votes) = Counter(answers).most_common(1)[0]
        return spent.reply(replies[answers.index(best)]), votes / self.samples


class Judged:
    """What a function thinks of a reply: a verifier, a judge, a note that another layer left."""

    def __init__(self, name: str, judge: Callable[[Request, Completion], float | Awaitable[float]]) -> None:
        self.name, self.judge = name, judge

    def missing(self, llm: LLM) -> str | None:
        return None

    async def ask(self, llm: LLM, request: Request) -> tuple[Completion, float | None]:
        completion = await llm.complete(request)
        found = self.judge(request, completion)
        return completion, float(await found if inspect.isawaitable(found) else found)
