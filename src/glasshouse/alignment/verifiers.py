"""Rewards that a program can check: does a reply end with the answer that its row knows?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from glasshouse.alignment.judge import Program
from glasshouse.core.errors import DataError

_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


def ends_with_answer(example: Mapping[str, Any], reply: str) -> float:
    """1 where the reply's last number equals the row's "answer", or, for words, its last line ends with it.

    Raises DataError for a row without an answer.
    """
    answer = str(example.get("answer", "")).strip()
    if not answer:
        raise DataError(
            'a prompt without an "answer" to check replies by',
            where=str(example.get("prompt"))[:200],
            fix='write {"prompt": "What is 2 + 2?", "answer": "4"}',
        )
    if _NUMBER.fullmatch(answer):
        said = _NUMBER.findall(reply)
        return float(bool(said) and _value(said[-1]) == _value(answer))
    lines = reply.strip().splitlines()
    return float(bool(lines) and _plain(lines[-1]).endswith(_plain(answer)))


ANSWERS = Program("ends with the answer", ends_with_answer)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
