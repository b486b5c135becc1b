"""Bodies of requests: JSON read strictly, fields that we do not know kept apart by name."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from glasshouse.server.call import Call
from glasshouse.server.errors import bad_request

DEPTH = 100
"""Ceiling of nested arrays and objects: a schema of any use is shallower, and no parser falls over it."""

LARGE = 2**16
"""Bytes above which work on a body is left to another thread, so that the others' streams go on."""

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_TOO_DEEP = f"the body is nested deeper than {DEPTH} levels"


class Body(BaseModel):
    """A request's body. Types are taken strictly; unknown fields are allowed, and ignored."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    def note(self, call: Call) -> None:
        """Remember what is asked, and which of its fields mean nothing here."""
        call.asked = self
        call.ignored = tuple(sorted(self.model_extra or ()))


class Part(BaseModel):
    """An object inside a body; what it says beyond its fields is not read."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


def read_json(raw: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN, at most DEPTH levels, no half of a surrogate pair.

    Raises ApiError 400 that says what is wrong.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_number)
        if _ESCAPED_SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise bad_request("the body is not valid UTF-8, or holds half of a surrogate pair") from None
    except RecursionError:
        raise bad_request(_TOO_DEEP) from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise bad_request("a number in the body has thousands of digits") from None
        raise bad_request(f"the body is not valid JSON: {error}") from None
    if raw.count(b"[") + raw.count(b"{") > DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            child
            for container in level
            if isinstance(container, (dict, list))
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise bad_request(_TOO_DEEP)


def _number(text: str) -> float | int:
    """A number with a point or an exponent; 2.0 is a whole number, as JSON Schema has it."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


class _StrictRequest(Request):
    async def json(self) -> Any:
        raw = await self.body()
        return await asyncio.to_thread(read_json, raw) if len(raw) > LARGE else read_json(raw)


class StrictRoute(APIRoute):
    """A route that reads its body with `read_json`, and tells the call which route it is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            Call.of(request.scope).route = self.path
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict
