"""A labelled document, and what a result about it is worth."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from glasshouse.core.errors import DataError
from glasshouse.documents.result import FieldResult, Result
from glasshouse.files.document import Document
from glasshouse.files.jsonl import read_jsonl

T = TypeVar("T")


@dataclass(frozen=True)
class Grade:
    """One field of one result."""

    field: str
    right: bool
    f1: float | None = None  # 0 to 1, where an answer can be partly right
    told: tuple[tuple[FieldResult, bool], ...] = ()  # the result's own values with whether each is right
    clauses: tuple[
        bool, ...
    ] = ()  # for each quote of a value that is due: whether it is the labelled passage


@dataclass(frozen=True)
class Example:
    """A document, what is asked about it, and the judge of the answer."""

    document: Document
    schema: dict[str, Any]
    grade: Callable[[Result], Sequence[Grade]]
    instructions: str | None = None


def sample(items: Sequence[T], n: int, seed: int) -> list[T]:
    """`n` of them, or all, in a drawn order: a larger sample begins with the smaller one."""
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    return [items[place] for place in order[:n]]


def rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a data set. Raises DataError that says where it can be had."""
    path = Path(path)
    if not path.is_file():
        raise DataError(
            "the labelled documents are not there",
            where=path,
            fix="name the folder that holds them with --data or GLASSHOUSE_TEST_DATA; "
            "docs/document-evaluation.md says where they are from",
        )
    for _, row in read_jsonl(path):
        yield row
