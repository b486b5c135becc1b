"""One HTTP request as logs, metrics and spans will tell it. Lies in the ASGI scope's state."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import Headers

from glasshouse.server.errors import ApiError, Dialect, known

log = logging.getLogger(__name__)


def dialect_of(path: str, headers: Mapping[str, str]) -> Dialect:
    """Whose client asks. Both ask for /v1/models; Anthropic's names its version."""
    return "anthropic" if path.startswith("/v1/messages") or "anthropic-version" in headers else "openai"


@dataclass
class Call:
    """Filled in while the request passes; `engine_seconds` is time spent waiting for the engine."""

    method: str
    path: str
    dialect: Dialect
    headers: Headers = field(repr=False)
    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    started: float = field(default_factory=time.perf_counter)
    started_ns: int = field(default_factory=time.time_ns)
    key: str | None = None  # the name of the API key
    route: str | None = None  # as declared, so that metrics stay few
    operation: str | None = None  # GenAI's name of what is done
    model: str | None = None
    stream: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # the request's own, by their GenAI names
    ignored: tuple[str, ...] = ()  # fields of the body that mean nothing here
    engine_seconds: float = 0.0
    first_token: float | None = None  # seconds from the start
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    response_id: str | None = None
    asked: BaseModel | None = field(default=None, repr=False)  # its body; like the replies, told in the
    replies: list[str] = field(default_factory=list, repr=False)  # log only where that is wanted
    error: str | None = None

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Call:
        """The call of an ASGI scope."""
        return scope["state"]["call"]

    @classmethod
    def begin(cls, scope: Mapping[str, Any]) -> Call:
        path, headers = scope["path"], Headers(raw=scope["headers"])
        return cls(scope["method"], path, dialect_of(path, headers), headers)

    @contextmanager
    def with_engine(self) -> Iterator[None]:
        """What happens inside is the engine's time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.engine_seconds += time.perf_counter() - began

    def failed(self, error: Exception) -> ApiError:
        """What the client is told. A failure of our own is logged, and told by no more than the call's id."""
        problem = known(error)
        if problem is None:
            log.error("request %s failed", self.id, exc_info=error)
            problem = ApiError(500, f"the server failed on this request; its id is {self.id}")
        self.error = problem.code or problem.message[:200]
        return problem

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def overhead(self) -> float:
        """Seconds so far in which the engine was not waited for."""
        return max(self.seconds - self.engine_seconds, 0.0)
