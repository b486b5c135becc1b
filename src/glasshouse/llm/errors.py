"""Why a call failed, and whether asking again may help.

LLMError
├── RateLimitedError       429: too many at once, or a quota           retryable
├── ServerFaultError       5xx and Anthropic's 529                     retryable
├── TimedOutError          no answer in time                           retryable
├── UnreachableError       no connection                               retryable
├── BrokenStreamError      a reply that stopped half-way               retryable
├── GarbledReplyError      what came is not what the protocol says     retryable
├── BadRequestError        400, 404, 413, 422: the same again fails again
│   └── ContextTooLongError    it does not fit in the model's context
├── NotAllowedError        401, 403: key or rights
├── NotAbleError           this backend has no such thing
├── BudgetExceededError    the call would spend more than is left: it was not made
└── InvalidOutputError     the reply does not follow its schema
"""

from __future__ import annotations

from glasshouse.core.errors import GlasshouseError
from glasshouse.llm.interface import Usage


class LLMError(GlasshouseError):
    """`status`: HTTP's, where there was one. `retry_after`: seconds that the server asks to wait.

    `usage` and `cost`: what the failed call used up all the same, None where nobody knows. No message holds a
    key: `where` is a model's name or an address without its credentials.
    """

    retryable = False
    tries = 1  # calls that ended so, where a layer asked again

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        fix: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        usage: Usage | None = None,
        cost: float | None = None,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.status, self.retry_after, self.usage, self.cost = status, retry_after, usage, cost


class RateLimitedError(LLMError):
    retryable = True


class ServerFaultError(LLMError):
    retryable = True


class TimedOutError(LLMError):
    retryable = True


class UnreachableError(LLMError):
    retryable = True


class BrokenStreamError(LLMError):
    """`text`: what had come until then."""

    retryable = True
    text = ""


class GarbledReplyError(LLMError):
    retryable = True


class BadRequestError(LLMError):
    pass


class ContextTooLongError(BadRequestError):
    pass


class NotAllowedError(LLMError):
    pass


class NotAbleError(LLMError):
    pass


class BudgetExceededError(LLMError):
    pass


class InvalidOutputError(LLMError):
    """`text`: the reply. `problem`: what is wrong with it, as a sentence for whoever writes it anew."""

    def __init__(self, what: str, *, text: str, problem: str, **rest: object) -> None:
        super().__init__(what, **rest)  # pyright: ignore[reportArgumentType]
        self.text, self.problem = text, problem
