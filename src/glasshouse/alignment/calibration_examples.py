"""Conversations that teach a model to say what it knows, made from what it was measured to know.

A plain question gets the model's answer, or "I do not know" where it is right too seldom. With a penalty
stated it gets an answer exactly where that pays off. Asked how sure it is, the model says its own reply with
the share of its replies that were right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from glasshouse.alignment.self_consistency import confidences
from glasshouse.alignment.self_knowledge import Knowledge
from glasshouse.evaluation import confidence as stated


def examples(
    known: Sequence[Knowledge],
    rng: random.Random,
    thresholds: Sequence[float],
    plain_threshold: float,
    levels: int,
) -> Iterator[dict[str, Any]]:
    """Conversations {"messages", "source"} for each question: plain, with each penalty, how sure (twice).

    Nothing is taught where an answer would pay off and the model has no right one: not a falsehood, and not
    to hold back what it gets right on most questions that look like this one. Who is known and wrongly taken
    for a stranger is no example either, or the model would hold back more than before.
    """
    for row, confidence in zip(known, confidences(known, levels), strict=True):
        if (reply := answer(row, confidence, plain_threshold)) is not None:
            yield _conversation(row.prompt, reply, "plain")
        for threshold in thresholds:
            reply = answer(row, confidence, threshold)
            if row.abstains:  # where that is right, it is also the answer
                reply = row.reply if row.reply == row.right_reply else None
            rule = stated.penalty(stated.PENALTY.draw(rng, "train"), threshold)
            if reply is not None:
                yield _conversation(stated.also_asked(row.prompt, rule), reply, "penalty")
        reply = row.right_reply if confidence > 0.5 else row.reply
        for how_sure in rng.sample(stated.HOW_SURE.train, 2):
            if reply is not None:
                prompt = stated.also_asked(row.prompt, how_sure)
                yield _conversation(prompt, stated.state(reply, confidence), "how sure")


def answer(row: Knowledge, confidence: float, threshold: float) -> str | None:
    """The model's right reply, if it has one, at more than `threshold`; else that it does not know."""
    return row.right_reply if confidence > threshold else row.unknown


def _conversation(prompt: Sequence[dict[str, Any]], reply: str, source: str) -> dict[str, Any]:
    return {"messages": [*prompt, {"role": "assistant", "content": reply}], "source": source}
