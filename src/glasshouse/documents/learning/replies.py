"""The reply that a model gave to a part of a document, and the one that it should have given.

Of an extraction each single value is {"quote", "value"}, as it was asked for; the other tasks' replies have
their quotes in them.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from glasshouse.core.errors import UsageError
from glasshouse.documents.result import FieldResult, QuoteCheck, Result
from glasshouse.documents.values.equality import same
from glasshouse.documents.values.leaves import PAIR

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def given(result: Result, start: int, end: int) -> dict[str, Any]:
    """What the model says of the characters [start, end) of the document.

    A value of an extraction whose quote stands elsewhere is not mentioned there; one without a place counts
    as mentioned only where nothing is left out, which is where `start` is 0 and all quotes are within `end`.
    """
    value = copy.deepcopy(result.value or {})
    if result.task != "extraction":
        return value
    fields = {field.path: field for field in result.fields}
    places = [quote for field in result.fields for quote in field.quotes if quote.end is not None]
    whole = start == 0 and all(quote.end is not None and quote.end <= end for quote in places)

    def pair(path: str, leaf: Any) -> dict[str, Any]:
        quote = _within(fields.get(path), start, end)
        if leaf is None or (quote is None and not whole):
            return {"quote": None, "value": None}
        return {"quote": None if quote is None else quote.text or quote.asked, "value": leaf}

    return _pairs(value, "", pair)


def corrected(
    reply: dict[str, Any], path: str, value: Any, quote: str | None, *, pairs: bool
) -> dict[str, Any]:
    """The reply with another value at `path`; an item right after the last of a list is added to it. A quote
    takes the place of the one beside the value; without one that of an extraction stays only where the value
    does, since it is no evidence of another.
    `pairs`: it is an extraction's, with {"quote", "value"}.

    Raises UsageError for a path that leads nowhere.
    """
    steps = path_steps(path)
    reply = copy.deepcopy(reply)
    here: Any = reply  # an object or a list
    for step in steps[:-1]:
        here = _at(here, step, path)
    last: Any = steps[-1]
    if isinstance(here, list) and last == len(here):
        here.append({"quote": quote, "value": value} if pairs else value)
        return reply
    old = _at(here, last, path)
    if pairs:
        if not isinstance(old, dict) or set(old) != PAIR:
            raise _no_such(path)
        kept = old["quote"] if quote is None and value is not None and same(old["value"], value) else quote
        here[last] = {"quote": None if value is None else kept, "value": value}
        return reply
    here[last] = value
    if quote is not None and isinstance(here, dict) and "quote" in here:
        here["quote"] = quote
    return reply


def pruned(reply: Any) -> Any:
    """Without the items of lists in which nothing is mentioned."""
    if isinstance(reply, dict):
        return {key: pruned(inner) for key, inner in reply.items()}
    if isinstance(reply, list):
        return [pruned(item) for item in reply if not _empty(item)]
    return reply


def path_steps(path: str) -> list[str | int]:
    """Keys and indices.

    >>> path_steps("lines[0].amount")
    ['lines', 0, 'amount']
    """
    return [found[1] if found[1] is not None else int(found[2]) for found in _STEP.finditer(path)]


def _at(here: Any, step: str | int, path: str) -> Any:
    try:
        return here[step]
    except (KeyError, IndexError, TypeError):
        raise _no_such(path) from None


def _no_such(path: str) -> UsageError:
    return UsageError(f"the reply has no single value at '{path}'", fix="name a path of the result's fields")


def _empty(item: Any) -> bool:
    """An item of pairs, all of which say "not mentioned"."""
    if not isinstance(item, dict) or not item:
        return False
    if set(item) == PAIR:
        return item["value"] is None
    return all(isinstance(inner, dict) and set(inner) == PAIR and _empty(inner) for inner in item.values())


def _pairs(value: Any, path: str, pair: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pairs(inner, f"{path}.{key}" if path else key, pair) for key, inner in value.items()}
    if isinstance(value, list):
        return [_pairs(inner, f"{path}[{index}]", pair) for index, inner in enumerate(value)]
    return pair(path, value)


def _within(field: FieldResult | None, start: int, end: int) -> QuoteCheck | None:
    for quote in field.quotes if field else ():
        if quote.start is not None and quote.end is not None and start <= quote.start and quote.end <= end:
            return quote
    return None
