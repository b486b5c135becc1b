"""Lists of words as regular expressions."""

from __future__ import annotations

import re


def words(pattern: str) -> re.Pattern[str]:
    """The pattern as whole words, in either case."""
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


def any_of(*patterns: str) -> re.Pattern[str]:
    """One of the patterns, which may end in a sign."""
    return re.compile("|".join(rf"\b(?:{pattern})(?!\w)" for pattern in patterns), re.IGNORECASE)
