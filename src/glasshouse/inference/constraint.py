"""A grammar within one choice's text: which tokens may follow, and whether the text can still be closed.

The promise of budget-aware closing: if, at the beginning, the shortest known text of the grammar with its end
fits the budget, then the choice becomes whole within the budget, whatever the model prefers. It holds because
a plan, a series of tokens that the grammar accepts and that makes the text whole, is kept at every step, and
only such tokens are chosen from whose state a plan is known that still fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from glasshouse.inference.closing import ByteVocabulary, Plan, plan_from

if TYPE_CHECKING:
    from llguidance import LLMatcher


class GrammarState:
    """The `Constraint` of request.py, by two matchers of llguidance: one of tokens, one of bytes."""

    def __init__(
        self, tokens: LLMatcher, units: LLMatcher, vocabulary: ByteVocabulary, plan: Plan | None
    ) -> None:
        """`plan` makes the text whole from its beginning."""
        self._tokens, self._units = tokens.deep_copy(), units.deep_copy()
        self._vocabulary = vocabulary
        self._plan = plan
        self._tried: dict[int, tuple[LLMatcher, Plan | None]] = {}  # what `closes` found out in this state

    @property
    def ended(self) -> bool:
        return self._tokens.is_stopped()

    @property
    def whole(self) -> bool:
        """Whether the text may end here."""
        return self._tokens.is_accepting()

    @property
    def needed(self) -> int | None:
        """Tokens that are enough to close from here, with the one that ends the text; None: not known."""
        return None if self._plan is None else self._plan.cost

    def mask(self, logits: Tensor, remaining: int) -> Tensor:
        if self._plan is not None and self._plan.cost == remaining and self._plan.tokens:
            allowed = torch.zeros(len(logits), dtype=torch.bool)
            allowed[self._plan.tokens[0]] = True
        else:
            allowed = torch.zeros(len(logits), dtype=torch.bool)
            bits = np.unpackbits(np.frombuffer(self._tokens.compute_bitmask(), np.uint8), bitorder="little")
            count = min(len(bits), len(logits))
            allowed[:count] = torch.from_numpy(bits[:count].astype(bool))
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def closes(self, token: int, remaining: int) -> bool:
        plan = self._plan
        if plan is None or plan.cost > remaining or token in self._vocabulary.end_ids:
            return True
        if plan.tokens and token == plan.tokens[0]:
            return True
        after = self._after(token, remaining - 1)
        return after is not None and after.cost < remaining

    def shortest(self) -> int:
        assert self._plan is not None, "closes() denies nothing where no plan is known"
        return self._plan.tokens[0] if self._plan.tokens else min(self._vocabulary.end_ids)

    def accept(self, token: int) -> None:
        if not self._tokens.consume_token(token):
            raise AssertionError(
                f"the grammar does not allow token {token}: {self._tokens.get_error()[:200]}"
            )
        if token in self._vocabulary.end_ids:
            self._plan = Plan((), (), 0)
        elif self._plan is not None and self._plan.tokens[:1] == (token,):
            self._units.consume_tokens(self._vocabulary.units_of(token))
            self._plan = self._plan.rest(self._vocabulary)
        else:
            self._plan = self._after(token, None)
            self._units = self._tried[token][0]
        self._tried.clear()

    def valid_prefix(self, tokens: list[int]) -> int:
        return self._tokens.validate_tokens(tokens)

    def _after(self, token: int, budget: int | None) -> Plan | None:
        """A plan for the state after a token; looked for harder where the first found exceeds the budget."""
        if token not in self._tried:
            matcher = self._units.deep_copy()
            matcher.consume_tokens(self._vocabulary.units_of(token))
            self._tried[token] = (matcher, plan_from(matcher, self._vocabulary, self._plan, budget))
        return self._tried[token][1]
