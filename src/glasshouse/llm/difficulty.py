"""How hard a request is, seen from its words: which tier is the cheapest that is likely to be right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glasshouse.classify import TextClassifier
from glasshouse.core.errors import DataError
from glasshouse.llm.interface import Request

LEAST_TEXTS = 10
"""Different requests that a tier needs to be a label; with fewer they count for the next dearer."""


def train_difficulty(texts: Sequence[str], right: Sequence[Sequence[bool]], seed: int = 0) -> TextClassifier:
    """A classifier whose labels are tiers, from "0", the cheapest.

    `right`: for each text, which tiers answered it well; where none did, the label is the last. Raises
    DataError where the tiers cannot be told apart, or examples are too few.
    """
    if len(texts) != len(right):
        raise DataError(f"{len(texts)} texts, and {len(right)} rows that say who was right")
    tiers = {len(row) for row in right}
    if len(tiers) != 1 or tiers == {1}:
        raise DataError("every row needs the same tiers, two or more", fix="say of each tier if it was right")
    last = tiers.pop() - 1
    cheapest = [next((t for t, good in enumerate(row) if good), last) for row in right]
    for tier in range(last):
        mine = {text for text, label in zip(texts, cheapest, strict=True) if label == tier}
        if len(mine) < LEAST_TEXTS:
            cheapest = [tier + 1 if label == tier else label for label in cheapest]
    return TextClassifier.train(texts, [str(tier) for tier in cheapest], seed)


def likely_right(classifier: TextClassifier, texts: Sequence[str], tiers: int) -> np.ndarray:
    """(n, tiers - 1) probability that a tier is enough: that it or a cheaper one is right."""
    found = np.zeros((len(texts), tiers))
    for label, column in zip(classifier.labels, classifier.predict_proba(texts).T, strict=True):
        if not label.isdigit() or int(label) >= tiers:
            raise DataError(
                f"the label '{label}' is none of {tiers} tiers",
                fix="take what train_difficulty gives",
            )
        found[:, int(label)] += column
    return np.cumsum(found, axis=1)[:, :-1]


def request_text(request: Request) -> str:
    """What the user said last."""
    for message in reversed(request.messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            return " ".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))
    return ""
