"""From a reply of extraction to the object that the user's schema describes, and back to where it is from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glasshouse.documents.answers import Answer
from glasshouse.documents.reply_schema import Schema, is_array, is_object


def extracted(schema: Schema, reply: dict[str, Any]) -> tuple[dict[str, Any], list[Answer]]:
    """The object with plain values, and each value with its quote. `schema`: a plain one.

    Items of an array in which nothing is mentioned are left out; paths count those that stay.
    """
    value = _value(schema, reply)
    return value, list(_answers(schema, reply, "", ""))


def _value(schema: Schema, reply: Any) -> Any:
    if is_object(schema):
        return {name: _value(inner, reply[name]) for name, inner in schema["properties"].items()}
    if is_array(schema):
        return [_value(schema["items"], item) for item in reply if mentions(schema["items"], item)]
    return reply["value"]


def _answers(schema: Schema, reply: Any, path: str, source: str) -> Iterator[Answer]:
    if is_object(schema):
        for name, inner in schema["properties"].items():
            below, within = (f"{place}.{name}" if place else name for place in (path, source))
            yield from _answers(inner, reply[name], below, within)
    elif is_array(schema):
        told = [place for place, item in enumerate(reply) if mentions(schema["items"], item)]
        for number, place in enumerate(told):
            yield from _answers(schema["items"], reply[place], f"{path}[{number}]", f"{source}[{place}]")
    else:
        value = reply["value"]
        # the words beside a value that is not mentioned prove nothing
        quote = None if value is None else reply["quote"] or None
        yield Answer(path, value, quote, value is not None, source)


def mentions(schema: Schema, reply: Any) -> bool:
    """Whether any value is told in this part of a reply."""
    if is_object(schema):
        return any(mentions(inner, reply[name]) for name, inner in schema["properties"].items())
    if is_array(schema):
        return any(mentions(schema["items"], item) for item in reply)
    return reply["value"] is not None
