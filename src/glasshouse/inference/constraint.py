"""A grammar within one choice's text: which tokens may follow, and whether the text can still be closed.

The promise of budget-aware closing: if, at the beginning, the shortest known text of the grammar with its end
fits the budget, then the choice becomes whole within the budget, whatever the model prefers. It holds because
a plan, a series of tokens that the grammar accepts and that makes the text whole, is kept at every step, and
only such tokens are chosen from whose state a plan is known that still fits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glasshouse.core.errors import GlasshouseError
from glasshouse.inference.closing import Closer, Plan, in_string

if TYPE_CHECKING:
    from llguidance import LLMatcher


TAIL = 16
"""Bytes of the text that are kept: longer than the beginning of an exponent."""

_HUGE = re.compile(rb"[0-9][eE][+-]?0*[1-9][0-9]{2,}")


def allowed_bits(matcher: LLMatcher) -> npt.NDArray[np.bool_]:
    """Which tokens may follow, (vocab rounded up to 32,) bool."""
    mask = matcher.compute_bitmask()
    if matcher.is_error():  # then only an end was allowed
        raise GlasshouseError(
            f"the grammar cannot be followed with this vocabulary: {reason(matcher.get_error())}",
            where="grammar",
            fix="use a simpler grammar",
        )
    return np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little").astype(bool)


def reason(message: str) -> str:
    """llguidance's message without its copy of the grammar and the dump of its state."""
    lines = re.split(r"<state>|<non-verbose|\n +[0-9]+ \| ", message)[0].split()
    return " ".join(lines)[:500]


class GrammarState:
    """The `Constraint` of request.py, by two matchers of llguidance: one of tokens, one of bytes."""

    def __init__(self, tokens: LLMatcher, units: LLMatcher, closer: Closer, plan: Plan | None) -> None:
        """`plan` makes the text whole from its beginning."""
        self._tokens, self._units = tokens.deep_copy(), units.deep_copy()
        self._closer, self._vocabulary = closer, closer.vocabulary
        self._plan = plan
        self._tail = b""  # the text's last bytes
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
        """See `Constraint`. Raises GlasshouseError where llguidance gives up: the grammar is too complex."""
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        if self._plan is not None and self._plan.cost == remaining and self._plan.tokens:
            allowed[self._plan.tokens[0]] = True
        else:
            bits = allowed_bits(self._tokens)
            allowed[: len(bits)] = torch.from_numpy(bits[: len(logits)])
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def closes(self, token: int, remaining: int) -> bool:
        plan = self._plan
        if plan is None or plan.cost > remaining or token in self._vocabulary.end_ids:
            return True
        if plan.tokens and token == plan.tokens[0]:
            return True
        if not self._stays_finite(token):
            return False
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
        self._tail = (self._tail + self._vocabulary.bytes_of(token))[-TAIL:]
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

    def _stays_finite(self, token: int) -> bool:
        """Whether no number of JSON gets an exponent of three digits: 1e999 is no number to any program.

        llguidance allows it.
        """
        text = self._tail + self._vocabulary.bytes_of(token)
        if not any(match.end() > len(self._tail) for match in _HUGE.finditer(text)):
            return True
        return in_string(self._units)

    def _after(self, token: int, budget: int | None) -> Plan | None:
        """A plan for the state after a token; looked for harder where the first found exceeds the budget."""
        if token not in self._tried:
            matcher = self._units.deep_copy()
            matcher.consume_tokens(self._vocabulary.units_of(token))
            self._tried[token] = (matcher, self._closer.plan(matcher, self._plan, budget))
        return self._tried[token][1]
