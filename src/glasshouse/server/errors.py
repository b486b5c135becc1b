"""Failures as each dialect tells them, so that its own client raises its own exception class.

OpenAI:    {"error": {"message", "type", "param", "code"}}
Anthropic: {"type": "error", "error": {"type", "message"}, "request_id"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from starlette.exceptions import HTTPException

from glasshouse.core.errors import DataError, GlasshouseError, ModelError, UsageError
from glasshouse.inference.request import QueueFullError

Dialect = Literal["openai", "anthropic"]

OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status; every other one is an `invalid_request_error` in both dialects."""

FIELDS = ("tools", "tool_choice", "response_format", "guided_json")
"""Fields of a body that the rooms below name when they complain."""


class ApiError(Exception):
    """A request that ends with this status and message."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self, dialect: Dialect, request_id: str) -> dict[str, Any]:
        if dialect == "anthropic":
            kind = ANTHROPIC_TYPES.get(self.status, "invalid_request_error")
            error = {"type": kind, "message": self.message}
            return {"type": "error", "error": error, "request_id": request_id}
        kind = OPENAI_TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def too_long(dialect: Dialect, tokens: str, context: int) -> ApiError:
    """A prompt that the context cannot hold, in the words that clients look for."""
    if dialect == "anthropic":
        return ApiError(400, f"prompt is too long: {tokens} tokens > {context} maximum")
    return ApiError(
        400,
        f"This model's maximum context length is {context} tokens, your prompt has {tokens}: "
        "shorten the messages",
        param="messages",
        code="context_length_exceeded",
    )


def deadline_exceeded() -> ApiError:
    return ApiError(
        504,
        "the reply was not finished within the time that this server gives to a request",
        code="deadline_exceeded",
        headers={"x-should-retry": "false"},  # both SDKs obey: the same request would take as long again
    )


def draining() -> ApiError:
    return ApiError(503, "the server is shutting down", code="shutting_down", headers={"retry-after": "5"})


def known(error: Exception) -> ApiError | None:
    """What an exception means to the client; None: it is our own failure."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            seconds = max(1, round(error.retry_after))
            return ApiError(
                429, str(error), code="rate_limit_exceeded", headers={"retry-after": str(seconds)}
            )
        case UsageError() | DataError() | ModelError():
            return ApiError(400, str(error), param=str(error.where) if error.where in FIELDS else None)
        case GlasshouseError():
            return None
        case HTTPException():
            text = {404: "there is nothing at this address", 405: "this address takes another method"}
            message = text.get(error.status_code, error.detail)
            return ApiError(error.status_code, message, headers=dict(error.headers or {}))
    return None


def invalid(problems: Sequence[Any]) -> ApiError:
    """The first of pydantic's complaints about a body: which field, and what is wrong with it."""
    first = problems[0]
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    param = ".".join(path) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        param, message = None, f"the body is not valid JSON: {first.get('ctx', {}).get('error', message)}"
    elif param is None:
        message = f"the body must be a JSON object, sent as application/json: {message}"
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return bad_request(f"{param}: {message}{more}" if param else message + more, param)
