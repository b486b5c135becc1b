"""TAT-QA (Zhu et al. 2021, arXiv:2105.07624; CC BY 4.0): questions about a table and the paragraphs around it
in annual reports.

Each question is an extraction of two fields, the answer's items and their scale. Graded by the type of the
answer, after the paper's exact match and numeracy-focused F1:

    arithmetic, count   right where the number with its scale is the label's, rounded as the label is
    span, multi-span    right where the items are the label's in any order: numbers with their scale as
                        numbers, words without case, signs and articles. F1 is of the words, items paired the
                        best way, and 0 for a pair whose numbers differ

A number may carry its scale itself ("$1.5 million"), or a percent sign. `scale` is a field of its own: right
where it says what the label says.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glasshouse.documents.evaluation.example import Example, Grade, rows, sample
from glasshouse.documents.result import Result
from glasshouse.documents.values.equality import as_number
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document

FILE = "docs/tatqa_dev.jsonl.gz"

SCALES = {"": 1.0, "percent": 0.01, "thousand": 1e3, "million": 1e6, "billion": 1e9}

_SCALED = re.compile(r"(.*?)\s*(percent|per cent|%|thousand|million|billion|k|m|mm|bn)?\s*(\)?)", re.DOTALL)
_SHORT = {"%": "percent", "per cent": "percent", "k": "thousand", "m": "million", "mm": "million"}
_SHORT |= {"bn": "billion"}
_WORD = re.compile(r"[\w.,%$()-]+")
_ARTICLES = {"a", "an", "the"}


def load(folder: str | Path, n: int, seed: int) -> list[Example]:
    """`n` questions, drawn by the seed: one of each table, and a second one only after all tables had one, so
    that the answers are about different reports. Raises DataError where the file is not there."""
    tables = sample(list(rows(Path(folder) / FILE)), 10**9, seed)
    rng = random.Random(seed)
    orders = [rng.sample(row["questions"], len(row["questions"])) for row in tables]
    found: list[Example] = []
    for turn in range(max(map(len, orders), default=0)):
        for row, order in zip(tables, orders, strict=True):
            if turn < len(order) and len(found) < n:
                found.append(question(row, order[turn]))
    return found


def question(row: Mapping[str, Any], asked: Mapping[str, Any]) -> Example:
    """One question of a row of the data."""
    told = asked["question"].strip()
    schema = {
        "type": "object",
        "properties": {
            "answer": {
                "type": "array",
                "items": {"type": "string"},
                "description": f"The answer to this question, as the document words it, one item for each "
                f"thing it asks for; a number is computed where the document does not state it: {told}",
            },
            "scale": {
                "type": "string",
                "enum": [scale for scale in SCALES if scale],
                "description": "In what the numbers of the answer are counted; null for plain numbers, "
                "years and words.",
            },
        },
    }
    return Example(document(row), schema, _judge(asked))


def document(row: Mapping[str, Any]) -> Document:
    """The table and the paragraphs in their order; a table has a line for each row."""
    builder = Builder()
    builder.add("\n".join(" | ".join(row) for row in row["table"]["table"]), "table")
    for paragraph in sorted(row["paragraphs"], key=lambda paragraph: paragraph["order"]):
        builder.add(paragraph["text"])
    return builder.document(row["table"]["uid"], "txt")


def _judge(asked: Mapping[str, Any]) -> Callable[[Result], list[Grade]]:
    kind, scale = asked["answer_type"], asked["scale"]
    answer = asked["answer"] if isinstance(asked["answer"], list) else [asked["answer"]]
    gold = [str(item) for item in answer]

    def grade(result: Result) -> list[Grade]:
        told = [
            field for field in result.fields if field.path.startswith("answer[") and field.value is not None
        ]
        scales = [field for field in result.fields if field.path == "scale"]
        given = str(scales[0].value) if scales and scales[0].value else ""
        items = [str(field.value) for field in told]
        exact, f1 = score(items, given, gold, scale, kind)
        right = result.success and given == scale
        single = tuple(
            (field, any(same_item(item, given, one, scale, kind) for one in gold))
            for field, item in zip(told, items, strict=True)
        )
        return [
            Grade(kind, exact, f1, single),
            Grade("scale", right, told=tuple((field, right) for field in scales)),
        ]

    return grade


def score(
    given: Sequence[str], given_scale: str, gold: Sequence[str], scale: str, kind: str
) -> tuple[bool, float]:
    """(exact match, F1) of the items of an answer."""
    table = [[f1_item(item, given_scale, one, scale, kind) for one in gold] for item in given]
    exact = len(given) == len(gold) and _all_paired(
        [[same_item(item, given_scale, one, scale, kind) for one in gold] for item in given]
    )
    if not given or not gold:
        return exact, float(exact)
    if kind in ("arithmetic", "count"):
        return exact, float(exact)
    return exact, 1.0 if exact else _best(table) / max(len(given), len(gold))


def same_item(given: str, given_scale: str, gold: str, scale: str, kind: str) -> bool:
    """Whether one item says what the label's does."""
    wanted, told = value(gold, scale), value(given, given_scale)
    if wanted is None or told is None:
        return wanted is told and plain(given) == plain(gold)
    if kind not in ("arithmetic", "count"):
        return math.isclose(wanted, told, rel_tol=1e-9, abs_tol=1e-12)
    digits = len(gold.partition(".")[2])
    return abs(wanted - told) <= 0.5 * 10.0**-digits * SCALES[scale] * (1 + 1e-6)


def value(text: str, scale: str) -> float | None:
    """The number in a text with its scale, its own before the one beside it.

    >>> value("$1.5 million", ""), value("(12)", "thousand"), value("12.5%", "percent"), value("two", "")
    (1500000.0, -12000.0, 0.125, None)
    """
    found = _SCALED.fullmatch(text.strip().lower())
    assert found is not None  # all of its parts may be empty
    number = as_number(found[1] + found[3])
    if number is None:
        return None
    own = _SHORT.get(found[2] or "", found[2] or scale)
    return number * SCALES[own]


def f1_item(given: str, given_scale: str, gold: str, scale: str, kind: str) -> float:
    if same_item(given, given_scale, gold, scale, kind):
        return 1.0
    if value(given, given_scale) is not None and value(gold, scale) is not None:
        return 0.0
    first, second = Counter(plain(given)), Counter(plain(gold))
    numbers = [{word for word in words if as_number(word) is not None} for words in (first, second)]
    common = sum((first & second).values())
    if not common or (numbers[1] and not numbers[0] & numbers[1]):
        return 0.0
    precision, recall = common / sum(first.values()), common / sum(second.values())
    return 2 * precision * recall / (precision + recall)


def plain(text: str) -> list[str]:
    """Words without case, articles and signs; numbers in one spelling."""
    words = []
    for word in _WORD.findall(text.casefold()):
        number = as_number(word.rstrip(".,%"))
        bare = re.sub(r"\W", "", word) if number is None else f"{number:g}"
        if bare and bare not in _ARTICLES:
            words.append(bare)
    return words


def _all_paired(fits: Sequence[Sequence[bool]]) -> bool:
    return _best([[float(fit) for fit in row] for row in fits]) == len(fits)


def _best(table: Sequence[Sequence[float]]) -> float:
    """The largest sum over pairs of which each row and each column is in one at most."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if not table or not table[0]:
        return 0.0
    costs = np.array(table)
    chosen = linear_sum_assignment(costs, maximize=True)
    return float(costs[chosen].sum())
