"""Self-consistency: several samples, and the answer that most of them reach (Wang et al.,
arXiv:2203.11171)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from glasshouse.core.errors import ConfigError
from glasshouse.llm.ballot import Ballot, agreement, vote
from glasshouse.llm.errors import InvalidOutputError, LLMError
from glasshouse.llm.interface import LLM, Chunk, Completion, Note, Request
from glasshouse.llm.layer import Layer, at_once, noted
from glasshouse.llm.reseed import other_seed
from glasshouse.llm.spent import Spent

Extractor = Callable[[Completion], Any]
"""The answer in a reply: a text or number, or what JSON can hold, which is voted on field by field. None:
there is none, and the reply has no vote."""


def said(completion: Completion) -> Any:
    """The tools called with their arguments; else the JSON object that the reply is; else its text without
    capitals, spaces and marks at its ends. What is asked for without a schema."""
    if completion.tool_calls:
        calls = [call["function"] for call in completion.tool_calls]
        return json.dumps([[call["name"], _arguments(call["arguments"])] for call in calls], sort_keys=True)
    found = parsed(completion)
    if isinstance(found, dict):
        return found
    return " ".join(completion.text.casefold().split()).strip(" .,;:!?\"'*`") or None


def parsed(completion: Completion) -> Any:
    """The JSON that the reply is, None where it is none: what is asked for with a schema."""
    try:
        return json.loads(completion.text)
    except ValueError:
        return None


def last_number(completion: Completion) -> float | None:
    """The last number in the reply: what a worked sum ends with (as the paper reads GSM8K)."""
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", completion.text)
    return float(numbers[-1].replace(",", "")) if numbers else None


class Vote(Layer):
    """`samples` replies at most, each with a seed of its own, derived from the request's, at the request's
    temperature, or `temperature` where it has none or 0.

    `answer` finds the answer in a reply: by default its JSON where the request has a schema, else what it
    `said`. Plain answers are decided by plurality, objects key by key (ballot.py). Equally many votes are
    decided by the mean log-probability of the voters' tokens where all replies tell it (ask with
    `logprobs=0`), else by who came first.

    As many are asked at once as the decision needs at least if all agree; more only while it is open, so
    that none is paid for in vain. A sample that fails, refuses or has no answer has no vote, and where none
    has one, the first refusal or reply is handed on, or the last error raised. An answer put together from
    several samples that breaks the request's `output_schema` gives way to the sample nearest to it.

    The reply is the first, or likeliest, that gave the answer, with usage and cost of all; its note tells
    the shares. A stream is one piece.
    """

    def __init__(
        self, inner: LLM, samples: int = 5, *, temperature: float = 0.7, answer: Extractor | None = None
    ) -> None:
        if samples < 1:
            raise ConfigError(f"samples must be 1 or more, got {samples}", where="Vote")
        if temperature <= 0:
            raise ConfigError("temperature must be above 0: greedy samples are all the same", where="Vote")
        super().__init__(inner)
        self.samples, self.temperature, self.answer = samples, temperature, answer

    async def complete(self, request: Request) -> Completion:
        if self.samples == 1:
            return await self.inner.complete(request)
        poll = _Poll(self, request)
        while (number := poll.needed()) > 0:
            await poll.ask(number)
        return poll.result()

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        return at_once(self, request) if self.samples > 1 else self.inner.stream(request)


class _Poll:
    """One request: the samples that came, and what they say together."""

    def __init__(self, rules: Vote, request: Request) -> None:
        self.rules, self.request = rules, request
        self.answer = rules.answer or (said if request.output_schema is None else parsed)
        self.spent = Spent()
        self.asked = 0
        self.voters: list[Completion] = []
        self.answers: list[Any] = []
        self.silent: list[Completion] = []
        self.errors: list[LLMError] = []

    def needed(self) -> int:
        """Samples to ask for now; 0: nothing can change any more, or none is left."""
        left = self.rules.samples - self.asked
        if not self.answers:
            if self.errors and not any(error.retryable for error in self.errors):
                return 0  # a wrong key stays wrong
            return min(left, self.rules.samples // 2 + 1)
        return vote(self.answers, left=left).still

    async def ask(self, number: int) -> None:
        first, self.asked = self.asked, self.asked + number
        tasks = [asyncio.create_task(self._sample(place)) for place in range(first, self.asked)]
        try:
            outcomes = await asyncio.gather(*tasks)
        except BaseException:  # the others have nobody left to answer
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for outcome in outcomes:
            self.spent.add(outcome)
            if isinstance(outcome, LLMError):
                self.errors.append(outcome)
                continue
            answer = None if outcome.finish == "refusal" else self.answer(outcome)
            if answer is None:
                self.silent.append(outcome)
            else:
                self.voters.append(outcome)
                self.answers.append(answer)

    def result(self) -> Completion:
        """The reply; raises the last error where there is none."""
        if not self.voters and not self.silent:
            last = self.errors[-1]
            raise self.spent.error(
                last, f"{last.what.rstrip('.')}; none of {self.asked} samples came"
            ) from last
        if not self.voters:
            first = next((each for each in self.silent if each.finish == "refusal"), self.silent[0])
            return self._noted(first, "no sample had an answer", {}, None)
        weights = [_likelihood(voter) for voter in self.voters]
        told = [weight for weight in weights if weight is not None]
        ballot = vote(self.answers, told if len(told) == len(weights) else None)
        return self._elected(ballot, [weight or 0.0 for weight in weights])

    def _elected(self, ballot: Ballot, weights: list[float]) -> Completion:
        near = [agreement(answer, ballot.winner) for answer in self.answers]
        best = max(range(len(near)), key=lambda at: (near[at], weights[at], -at))
        reply, winner = self.voters[best], ballot.winner
        mended = False
        if near[best] < 1:  # nobody said exactly this
            if _holds(winner, self.request.output_schema):
                text = json.dumps(winner, ensure_ascii=False)
                reply = replace(reply, text=text, logprobs=None, reasoning=None, tool_calls=())
            else:
                winner, mended = self.answers[best], True
        if mended:
            near = [agreement(answer, winner) for answer in self.answers]
        alike = near.count(1)
        what = f"{alike} of {len(self.voters)} answers are this one"
        if not alike:
            what = f"put together field by field from {len(self.voters)} answers"
        elif mended:
            what += ": the nearest to a vote by fields, which breaks the schema"
        return self._noted(reply, what, ballot.shares, alike / len(self.voters))

    def _noted(
        self, reply: Completion, what: str, shares: dict[str, dict[str, float]], share: float | None
    ) -> Completion:
        if self.errors or self.silent:
            what += f"; {len(self.errors)} samples failed, {len(self.silent)} had no answer"
        details = {
            "asked": self.asked,
            "votes": len(self.voters),
            "failed": tuple(str(error) for error in self.errors),
            "share": share,
            "shares": shares,
            "seconds_each": tuple(each.seconds for each in (*self.voters, *self.silent)),
        }
        return noted(self.spent.reply(reply), Note("vote", what, details))

    async def _sample(self, place: int) -> Completion | LLMError:
        seed = other_seed(self.request, "vote", place)
        changes = {"seed": seed, "temperature": self.request.temperature or self.rules.temperature}
        try:
            return await self.rules.inner.complete(self.request.model_copy(update=changes))
        except LLMError as error:
            return error


def _likelihood(completion: Completion) -> float | None:
    """Mean log-probability of the tokens, in nats; None where none is told."""
    if not completion.logprobs:
        return None
    return sum(token.logprob for token in completion.logprobs) / len(completion.logprobs)


def _holds(answer: Any, schema: dict[str, Any] | None) -> bool:
    if schema is None:
        return True
    import jsonschema_rs

    try:
        return jsonschema_rs.is_valid(schema, answer)
    except jsonschema_rs.ValidationError as error:  # the schema itself is none
        raise InvalidOutputError(
            f"the schema cannot be used: {error}", text=json.dumps(answer), problem=str(error)
        ) from None


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
