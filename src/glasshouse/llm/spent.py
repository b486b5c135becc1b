"""What the tries of one call used up together, whoever paid for them.

A layer that asks more than once hands on sums, so that a budget outside of it counts what one inside would.
"""

from __future__ import annotations

from dataclasses import replace

from glasshouse.core.errors import GlasshouseError
from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import Completion, Usage


class Spent:
    """Adds up replies and errors.

    `usage` and `cost` (US dollars) are None until somebody told some; `untold` counts the failed tries of
    which nobody knows whether they used anything. A reply without a price makes the whole cost unknown.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.cost: float | None = None
        self.untold = 0
        self._priced = True

    def add(self, outcome: Completion | LLMError) -> None:
        if outcome.usage is None:
            self.untold += 1
        else:
            self.usage = outcome.usage if self.usage is None else self.usage + outcome.usage
        if outcome.cost is not None and self._priced:
            self.cost = (self.cost or 0.0) + outcome.cost
        elif isinstance(outcome, Completion):
            self.cost, self._priced = None, False

    @property
    def tokens(self) -> int:
        """Read and written, as far as told."""
        return 0 if self.usage is None else self.usage.prompt_tokens + self.usage.new_tokens

    def reply(self, completion: Completion) -> Completion:
        """The reply with the sums, into which it was added before."""
        return replace(completion, usage=self.usage or Usage(), cost=self.cost)

    def error(self, error: LLMError, what: str) -> LLMError:
        """A new error of the same class with the sums and other words; the old one may belong to others."""
        told = type(error).__new__(type(error))
        told.__dict__.update(error.__dict__)
        GlasshouseError.__init__(told, what, where=error.where, fix=error.fix)
        told.usage, told.cost = self.usage, self.cost
        return told
