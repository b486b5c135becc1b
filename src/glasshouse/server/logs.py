"""One line of JSON a request on stderr. What was said in it stands there only where asked for."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from glasshouse.server.call import Call

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines; logged only where they fail."""


CONTENT = {"system", "messages", "prompt", "input", "tools"}
"""Fields of a body that hold what was said."""


class RequestLog:
    """Writes to `out`, by default stderr as it is at that time."""

    def __init__(self, content: bool = False, out: TextIO | None = None) -> None:
        self._content, self._out = content, out

    def write(self, call: Call, status: int) -> None:
        """The request is answered, or its client has left (status 499)."""
        if call.path in QUIET and status < 400:
            return
        line: dict[str, Any] = {
            "event": "request",
            "request_id": call.id,
            "method": call.method,
            "path": call.path[:200],
            "status": status,
            "ms": round(call.seconds * 1000, 2),
            "overhead_ms": round(call.overhead * 1000, 2),
            "key": call.key,
            "model": call.model,
            "error": call.error,
        }
        if call.operation is not None:
            line |= {
                "stream": call.stream,
                "first_token_ms": None if call.first_token is None else round(call.first_token * 1000, 2),
                "prompt_tokens": call.prompt_tokens,
                "cached_tokens": call.cached_tokens,
                "new_tokens": call.new_tokens,
                "finish_reasons": call.finish_reasons,
            }
        if self._content and call.asked is not None:
            line |= call.asked.model_dump(include=CONTENT, exclude_none=True)
            line["replies"] = call.replies
        self._write("error" if status == 500 else "info", line)

    def notice(self, event: str, level: str = "info", **more: Any) -> None:
        """News about the server itself."""
        self._write(level, {"event": event, **more})

    def take_over(self) -> None:
        """Write what others in this process log (the HTTP protocol, the engine) as lines of the same kind."""
        logging.basicConfig(handlers=[_Others(self)], level=logging.WARNING, force=True)

    def _write(self, level: str, line: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = json.dumps({"time": now, "level": level, **line}, ensure_ascii=False, default=str)
        print(text, file=self._out or sys.stderr, flush=True)


class _Others(logging.Handler):
    def __init__(self, log: RequestLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        more = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            more["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        self._log.notice("log", record.levelname.lower(), **more)
