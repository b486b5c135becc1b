"""What is asked of the engine, and what it says while it works. Everything here is plain data.

A request is a prompt in ids with everything that decides its text. Its answer is a series of events:
one `PromptRead`, then for each of the request's choices some `Delta`s, the last of them with a `Finish`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from glasshouse.core.errors import GlasshouseError
from glasshouse.inference.sampling import Sampling


@dataclass(frozen=True)
class Grammar:
    """Which texts are allowed.

    json_schema  a JSON text that validates against the schema (its JSON text in `source`)
    regex        the whole text matches the pattern
    choices      one of the texts of `source`
    piece_of     a verbatim piece of the text in `source`, never empty
    lark         a context-free grammar in llguidance's Lark dialect
    """

    kind: Literal["json_schema", "regex", "choices", "piece_of", "lark"]
    source: str | tuple[str, ...]


class Constraint(Protocol):
    """A grammar's state within one choice's text."""

    def mask(self, logits: Tensor, remaining: int) -> Tensor:
        """Logits (vocab,) with -inf where a token may not follow; `remaining` tokens may still be chosen.

        At least one token stays. Where the shortest way to close just fits, its next token alone stays.
        """
        ...

    def closes(self, token: int, remaining: int) -> bool:
        """Whether the text can still be closed if this token, of `remaining`, is chosen; the state stays.

        True also where it could not be closed before.
        """
        ...

    def shortest(self) -> int:
        """The next token of the shortest known way to close; to be asked where `closes` denied another."""
        ...

    def accept(self, token: int) -> None:
        """The token was chosen."""
        ...

    def valid_prefix(self, tokens: list[int]) -> int:
        """How many of these tokens, one after the other, the grammar would accept now; the state stays."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the text is whole and nothing may follow."""
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt and everything that decides what is made of it."""

    prompt: tuple[int, ...]
    max_new_tokens: int | None = None  # None: as many as the context still holds
    sampling: Sampling = field(default_factory=lambda: Sampling.parse({}))
    n: int = 1  # choices, independent samples of one prompt; greedy ones are equal
    stop: tuple[str, ...] = ()  # the text ends before the first of these
    stop_ids: frozenset[int] = frozenset()  # the text ends before these
    logprobs: int | None = None  # alternatives told for each new token (0: the chosen one's alone)
    prompt_logprobs: int | None = None  # the same for the prompt's tokens
    grammar: Grammar | None = None
    adapter: str | None = None  # None: the base alone
    timeout: float | None = None  # seconds from submission to the end


@dataclass(frozen=True)
class TokenScore:
    """A token's log-probability in nats at temperature 1, before penalties, bias and grammar."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens and theirs, likeliest first


@dataclass(frozen=True)
class PromptRead:
    """The prompt is in the cache."""

    cached: int  # tokens that an earlier request had left there
    scores: tuple[TokenScore | None, ...] | None = None  # one a token; the first has none


@dataclass(frozen=True)
class Finish:
    """Why a choice ended. `stop` is the stop string that was met, or the id, or None (a grammar's end)."""

    reason: Literal["stop", "length", "timeout", "cancelled", "error"]
    stop: str | int | None = None


@dataclass(frozen=True)
class Delta:
    """What a step added to one choice."""

    choice: int
    text: str  # what became certain: whole characters, no part of a stop string; often empty
    ids: tuple[int, ...]  # new tokens, without the stop id that ended the text
    scores: tuple[TokenScore, ...] = ()  # of `ids`, if asked for
    finish: Finish | None = None


Event = PromptRead | Delta


class QueueFullError(GlasshouseError):
    """The engine's queue is full; asking again after `retry_after` seconds has a chance."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting already", fix=f"ask again in {retry_after:.0f} s")
        self.retry_after = retry_after
