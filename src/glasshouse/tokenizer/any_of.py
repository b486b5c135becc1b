"""Cutting a text at whole names."""

from __future__ import annotations

import re
from collections.abc import Iterable


def any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Splits a text at these names, the longest where several begin; the odd parts are the names."""
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(f"({'|'.join(longest_first) or '(?!)'})")
