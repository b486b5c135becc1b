"""When two values say the same: "$1,200" and 1200.0 do, "ACME Corp." and "Acme corp"; 12 and 12.6 do not."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_MONEY = re.compile(r"^(?P<sign>-?)\s*[$€£¥]\s*")


def same(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal after `normal`; numbers may differ by one part in a billion.

    Lists are equal in any order, objects by their keys. True is not 1.
    """
    return _same(normal(first), normal(second))


def normal(value: Any) -> Any:
    """The value without what is only spelling: case, white space, accents' encoding, a full stop at the end,
    quotation marks around it; a text that is a number becomes one.

    >>> normal('  "Acme  Corp." '), normal("$1,200"), normal("(3.5)"), normal("30 days")
    ('acme corp', 1200.0, -3.5, '30 days')
    """
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    text = " ".join(unicodedata.normalize("NFKC", str(value)).casefold().split())
    number = as_number(text)
    return text.strip(" \"'“”‘’.,;:") if number is None else number


def as_number(text: str) -> float | None:
    """The number that a text is, with thousands' commas, a currency sign or an accountant's brackets; None
    where it is anything more, a percent sign included.

    >>> as_number("$ 1,452.4"), as_number("(12)"), as_number("12%"), as_number("1,2,3")
    (1452.4, -12.0, None, None)
    """
    plain, bracketed = text.strip().replace("−", "-"), False
    for _ in range(2):  # the sign of the currency stands before the bracket or in it
        plain = _MONEY.sub(lambda found: found["sign"], plain)
        if plain.startswith("(") and plain.endswith(")") and not bracketed:
            plain, bracketed = plain[1:-1].strip(), True
    if not _NUMBER.fullmatch(plain):
        return None
    number = float(plain.replace(",", ""))
    if not math.isfinite(number):
        return None
    return -number if bracketed else number


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(first, list) and isinstance(second, list):
        left = list(second)
        for item in first:
            place = next((i for i, other in enumerate(left) if _same(item, other)), None)
            if place is None:
                return False
            del left[place]
        return not left
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    return type(first) is type(second) and first == second
