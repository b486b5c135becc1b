"""Keeps what a model said and what it took, of all calls that belong together."""

from __future__ import annotations

from dataclasses import replace

from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import LLM, Completion, Request, Usage
from glasshouse.llm.layer import Layer
from glasshouse.llm.prices import Prices, Tariff
from glasshouse.llm.spent import Spent


class Heard(Layer):
    """Passes calls on. `replies`: those that came, in the order in which they did; `spent`: of all, also of
    those that failed.

    Where no layer further in tells a cost, it is that of the providers' list, and unknown without one.
    """

    def __init__(self, inner: LLM, above: Heard | None = None) -> None:
        """`above`: keeps the sums of several, and hears everything too."""
        super().__init__(inner)
        self.above, self.replies, self.spent, self.calls = above, list[Completion](), Spent(), 0
        self._price = above._price if above else Prices().find(inner.name)

    async def complete(self, request: Request) -> Completion:
        try:
            completion = await self.inner.complete(request)
        except LLMError as error:
            self._add(error)
            raise
        if completion.cost is None and isinstance(self._price, Tariff) and completion.usage != Usage():
            completion = replace(completion, cost=self._price.cost(completion.usage))
        self._add(completion)
        return completion

    def _add(self, outcome: Completion | LLMError) -> None:
        self.calls += 1
        self.spent.add(outcome)
        if isinstance(outcome, Completion):
            self.replies.append(outcome)
        if self.above is not None:
            self.above._add(outcome)

    @property
    def usage(self) -> Usage:
        return self.spent.usage or Usage()
