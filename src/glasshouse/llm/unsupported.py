"""Settings that a model turns down: left out from then on, and told.

Reasoning models have no temperature, many servers no seed, older models no schema. Which model knows what
changes faster than any table, so the server is asked: where it answers that it has no such setting, the call
is made again without it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

_NONE_SUCH = re.compile(
    r"unsupported|not support|n.t support|unknown|unrecognized|not recognized|unexpected|extra inputs"
    r"|extra fields|not permitted|not allowed|deprecated|not available|no longer|removed",
    re.IGNORECASE,
)


def turned_down(body: object, settings: Iterable[str]) -> str | None:
    """The one of `settings` that an answer 400 or 422 says the model has not; None: it complains of another.

    A value out of its range is the caller's mistake, and no setting that is missing.

    >>> turned_down({"message": "Unsupported parameter: 'seed'", "param": "seed"}, ["seed", "stop"])
    'seed'
    >>> turned_down({"message": "temperature must be at most 2", "param": "temperature"}, ["temperature"])
    """
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping | str):
        body = body["error"]
    told: Mapping[str, Any] = body if isinstance(body, Mapping) else {"message": body}
    words = f"{told.get('code') or ''} {told.get('message') or told.get('detail') or ''}"
    if not _NONE_SUCH.search(words):
        return None
    named = str(told.get("param") or "")
    for setting in settings:
        if named == setting or named.startswith(setting + "."):
            return setting
    found = [setting for setting in settings if re.search(rf"(?<![\w-]){re.escape(setting)}(?![\w-])", words)]
    return found[0] if found and not named else None


def ignored(asked: Mapping[str, Any], gone: Container[str]) -> tuple[str, ...]:
    """Names of what was asked for and is among the gone, in order."""
    return tuple(name for name, value in asked.items() if name in gone and value not in (None, ()))
