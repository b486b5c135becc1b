"""The single values of an answer by their paths, and where each stands in the JSON text that told it.

Paths are "revenue", "lines[0].amount". Of an extraction each leaf comes as {"quote": ..., "value": ...}: the
path is that of the pair, the value that of "value".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from json.decoder import scanstring  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

PAIR = {"quote", "value"}

_INDEX = re.compile(r"\[\d+\]")
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|-?Infinity|NaN")
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Leaf:
    """A value and the characters of the text that tell it."""

    path: str
    value: Any
    spans: tuple[tuple[int, int], ...]  # half open; of a pair the quote's and the value's


def without_indices(path: str) -> str:
    """The same place of any item.

    >>> without_indices("findings[0].finding")
    'findings[].finding'
    """
    return _INDEX.sub("[]", path)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every single value, in order; an empty list or object has none."""
    if isinstance(value, dict):
        if path and set(value) == PAIR and not isinstance(value["quote"], dict | list):
            yield path, value["value"]
            return
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def spans(text: str, start: int = 0) -> tuple[tuple[Leaf, ...], int]:
    """The leaves of the JSON value that begins at `start` of the text, and where it ends.

    Of a key that stands twice the last counts, as in Python's json. Raises ValueError where no JSON is.
    """
    found: dict[str, Leaf] = {}
    at = _SPACE.match(text, start).end()  # pyright: ignore[reportOptionalMemberAccess]
    end = _value(text, at, "", found)
    return tuple(_pairs(found).values()), end


def _value(text: str, at: int, path: str, found: dict[str, Leaf]) -> int:
    """Reads one value, and gives where it ends."""
    match text[at : at + 1]:
        case "{":
            return _object(text, at, path, found)
        case "[":
            return _array(text, at, path, found)
        case '"':
            value, end = scanstring(text, at + 1, True)
        case _:
            scalar = _SCALAR.match(text, at)
            if scalar is None:
                raise JSONDecodeError("no JSON value", text, at)
            word, end = scalar[0], scalar.end()
            value = _WORDS[word] if word in _WORDS else float(word) if _is_float(word) else int(word)
    for old in [key for key in found if key == path or key.startswith((f"{path}.", f"{path}["))]:
        del found[old]
    found[path] = Leaf(path, value, ((at, end),))
    return end


def _is_float(word: str) -> bool:
    return not word.lstrip("-").isdigit()


def _object(text: str, at: int, path: str, found: dict[str, Leaf]) -> int:
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return at + 1
    while True:
        if text[at : at + 1] != '"':
            raise JSONDecodeError("no key", text, at)
        key, at = scanstring(text, at + 1, True)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise JSONDecodeError("no colon", text, at)
        at = _skip(text, _value(text, _skip(text, at + 1), f"{path}.{key}" if path else key, found))
        if text[at : at + 1] == "}":
            return at + 1
        if text[at : at + 1] != ",":
            raise JSONDecodeError("no comma", text, at)
        at = _skip(text, at + 1)


def _array(text: str, at: int, path: str, found: dict[str, Leaf]) -> int:
    at, index = _skip(text, at + 1), 0
    if text[at : at + 1] == "]":
        return at + 1
    while True:
        at = _skip(text, _value(text, at, f"{path}[{index}]", found))
        if text[at : at + 1] == "]":
            return at + 1
        if text[at : at + 1] != ",":
            raise JSONDecodeError("no comma", text, at)
        at, index = _skip(text, at + 1), index + 1


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]


def _pairs(found: dict[str, Leaf]) -> dict[str, Leaf]:
    """The leaves with each {"quote", "value"} folded into one."""
    children: dict[str, set[str]] = {}
    for path in found:
        above, _, key = path.rpartition(".")
        children.setdefault(above, set()).add(key)
    folded = dict(found)
    for above, keys in children.items():
        if above and keys == PAIR:
            quote, value = folded.pop(f"{above}.quote"), folded.pop(f"{above}.value")
            folded[above] = Leaf(above, value.value, quote.spans + value.spans)
    return folded
