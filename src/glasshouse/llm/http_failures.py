"""What a failed HTTP call means, whichever SDK made it: all of them stand on httpx2."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import Any

import httpx2

from glasshouse.llm.errors import (
    BadRequestError,
    BrokenStreamError,
    ContextTooLongError,
    GarbledReplyError,
    LLMError,
    NotAllowedError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
    UnreachableError,
)

LONGEST = 500
"""Characters of a server's own words that are told."""

_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (window|size|limit)"
    r"|prompt is too long|exceeds? the (model's )?(available )?context|too many tokens",
    re.IGNORECASE,
)
_SDKS = ("openai", "anthropic")
_KEY = re.compile(r"\b(sk-[A-Za-z0-9*_-]{4,}|Bearer\s+\S+)")
_STATUS_OF = {  # of a failure that is told in the middle of a stream, where the status was 200 already
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 529,
    "overloaded": 529,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "timeout_error": 408,
}


def explain(
    error: Exception, where: str, secrets: Iterable[str] = (), text: str = "", begun: bool = False
) -> LLMError | None:
    """The error of our family that says what an SDK's or the client's means; our own come back as they are.

    None: it is of another kind, a mistake in a program and not in a call. `begun`: the reply's stream was
    open, and `text` of it had come. `secrets` are taken out of every message.
    """
    if isinstance(error, LLMError):
        return error
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response) and response.status_code >= 400:
        return from_answer(response.status_code, response.headers, _body(error, response), where, secrets)
    if getattr(error, "body", None) is not None:  # an SDK's word for a failure in a stream
        return from_answer(500, {}, error.body, where, secrets, told_late=True)  # pyright: ignore[reportAttributeAccessIssue]
    cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
    if isinstance(cause, httpx2.TimeoutException):
        return TimedOutError("no answer in time", where=where, fix="ask again, or allow a longer timeout")
    if isinstance(cause, httpx2.RemoteProtocolError) and "without sending complete" in str(cause):
        begun = True
    if isinstance(cause, httpx2.HTTPError) and begun:
        return broken("the connection ended in the middle of the reply", where, text)
    if isinstance(cause, httpx2.HTTPError):
        return UnreachableError(
            f"no connection ({type(cause).__name__})", where=where, fix="check that the server runs"
        )
    if isinstance(error, JSONDecodeError | UnicodeDecodeError) or type(error).__module__.startswith(_SDKS):
        return garbled(type(error).__name__, where)
    return None


def broken(what: str, where: str, text: str) -> BrokenStreamError:
    """A reply that stopped half-way."""
    failure = BrokenStreamError(what, where=where, fix="ask again")
    failure.text = text
    return failure


def garbled(what: str, where: str) -> GarbledReplyError:
    return GarbledReplyError(f"the reply cannot be read: {what}", where=where, fix="ask again")


def from_answer(
    status: int,
    headers: Mapping[str, str],
    body: object,
    where: str,
    secrets: Iterable[str] = (),
    told_late: bool = False,
) -> LLMError:
    """An answer of status 400 and above; `told_late`: an error event in a stream, which names its kind."""
    message, kinds = told(body)
    if told_late:
        status = next((_STATUS_OF[kind] for kind in kinds if kind in _STATUS_OF), status)
    said = f"the server answered {status}"
    if message:
        said += f": {redacted(message, secrets)[:LONGEST]}"
    kind, fix = _meaning(status, " ".join([*kinds, message]))
    failure = kind(said, where=where, fix=fix, status=status, retry_after=retry_after(headers))
    if "insufficient_quota" in kinds or headers.get("x-should-retry") == "false":
        failure.retryable = False  # no money left, or the server itself says that it would fail again
    return failure


def _meaning(status: int, words: str) -> tuple[type[LLMError], str]:
    match status:
        case 401 | 402 | 403:
            return NotAllowedError, "check the key, what it may do, and the account behind it"
        case 408:
            return TimedOutError, "ask again"
        case 429:
            return RateLimitedError, "ask more slowly"
        case 409 | 425:  # a conflict of two calls, as both SDKs see it
            return ServerFaultError, "ask again"
        case _ if status >= 500:
            return ServerFaultError, "ask again later"
        case 400 | 413 | 422 if _TOO_LONG.search(words):
            return ContextTooLongError, "shorten the conversation"
        case 404:
            return BadRequestError, "check the model's name and the address"
    return BadRequestError, "change the request"


def told(body: object) -> tuple[str, tuple[str, ...]]:
    """The message in an error's body, and the words for its kind (type, code), in any server's shape.

    >>> told({"error": {"message": "slow down", "type": "rate_limit_error", "code": None}})
    ('slow down', ('rate_limit_error',))
    """
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping | str):
        body = body["error"]
    if isinstance(body, Mapping):
        message = body.get("message") or body.get("detail") or ""
        return str(message), tuple(str(body[key]) for key in ("type", "code") if body.get(key))
    return ("" if body is None else str(body)), ()


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without keys: neither ours nor anything that looks like one."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _KEY.sub("***", text)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: retry-after-ms, or Retry-After in seconds or as an HTTP date."""
    try:
        if "retry-after-ms" in headers:
            return _seconds(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return _seconds(float(value))
        except ValueError:
            date = parsedate_to_datetime(value)
            aware = date if date.tzinfo else date.replace(tzinfo=UTC)
            return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(value: float) -> float | None:
    return max(0.0, value) if math.isfinite(value) else None


def _body(error: Exception, response: httpx2.Response) -> Any:
    body = getattr(error, "body", None)
    if body is not None:
        return body
    try:
        return response.json()
    except (ValueError, httpx2.ResponseNotRead):
        return None
