"""Stated confidence: how it is asked for, how a reply is read, and how good the stated figures are.

"Answer only if you are more than t sure: a mistake costs t/(1-t) points" makes an answer pay off exactly
where it is right with more than probability t (Kalai et al. 2025, "Why language models hallucinate"). A
confidence in words is read as its percentage (Lin et al. 2022, arXiv:2205.14334).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glasshouse.world.task import Message, Phrasings

HOW_SURE = Phrasings(
    (
        "How sure are you?",
        "Say how sure you are.",
        "Please tell me how sure you are.",
        "And how sure are you?",
        "How certain are you?",
    ),
    ("Tell me how sure you are.", "Please say how sure you are.", "How sure are you of that?"),
)
PENALTY = Phrasings(
    (
        "Answer only if you are more than {t}% sure: a mistake costs {c}.",
        "A mistake costs {c}, so answer only if you are more than {t}% sure.",
        "Answer if you are more than {t}% sure. A wrong answer costs {c}.",
        "Only answer when you are more than {t}% sure, since a mistake costs {c}.",
    ),
    (
        "Please answer only if you are more than {t}% sure: a mistake costs {c}.",
        "A wrong answer costs {c}. Answer only if you are more than {t}% sure.",
    ),
)

BINS = 10

_STATED = re.compile(r"\s*\bI am (\d{1,3}) ?% sure\b\.?|\b(\d{1,3}) ?%")


def cost(threshold: float) -> float:
    """Points that a mistake costs where one should answer above `threshold`.

    >>> cost(0.75)
    3.0
    """
    return round(threshold / (1 - threshold), 6)


def penalty(wording: str, threshold: float) -> str:
    """The sentence that states the rule."""
    points = cost(threshold)
    return wording.format(t=f"{100 * threshold:g}", c=f"{points:g} point{'s' * (points != 1)}")


def also_asked(messages: Sequence[Message], request: str) -> list[Message]:
    """The conversation with a sentence more in its last turn, the user's."""
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']} {request}"}]


def state(answer: str, confidence: float, step: int = 5) -> str:
    """An answer with its confidence, to the nearest `step` percent.

    >>> state("40 + 2 = 42", 0.81)
    '40 + 2 = 42. I am 80% sure.'
    """
    end = "" if answer.endswith((".", "!", "?")) else "."
    return f"{answer}{end} I am {step * round(100 * confidence / step)}% sure."


def read(reply: str) -> tuple[str, float | None]:
    """(the answer alone, the confidence that the reply states); None where it states none.

    >>> read("40 + 2 = 42. I am 80% sure.")
    ('40 + 2 = 42.', 0.8)
    """
    found = list(_STATED.finditer(reply))
    if not found:
        return reply, None
    percent = found[-1].group(1) or found[-1].group(2)
    return _STATED.sub("", reply).strip(), min(int(percent), 100) / 100


def expected_calibration_error(stated: np.ndarray, right: np.ndarray) -> float:
    """Mean distance of confidence and rightness over ten bins of the confidence (Guo et al. 2017), (n,) each.

    `right` is the exact probability of being right where it is known, else 0 or 1.
    """
    bins = _bins(stated)
    gaps = [abs(float((stated[bins == b] - right[bins == b]).sum())) for b in range(BINS)]
    return sum(gaps) / len(stated)


def brier_skill(stated: np.ndarray, right: np.ndarray) -> float:
    """1 minus the expected Brier score over that of one who always states the mean of `right`.

    Where all are right, or none, nobody can be better than that: then it is 0, or negative.
    """
    average = float(right.mean())
    reference = average * (1 - average)
    score = float(((stated - right) ** 2 + right * (1 - right)).mean())
    return 1 - score / reference if reference > 0 else -score


def reliability(stated: Sequence[float], right: Sequence[float]) -> list[dict[str, float]]:
    """What was stated and what was right in each bin that is not empty: {"stated", "right", "n"}."""
    s, q = np.asarray(stated), np.asarray(right)
    bins = _bins(s)
    return [
        {
            "stated": float(s[bins == b].mean()),
            "right": float(q[bins == b].mean()),
            "n": int((bins == b).sum()),
        }
        for b in range(BINS)
        if (bins == b).any()
    ]


def risk_coverage(stated: Sequence[float], right: Sequence[float]) -> list[dict[str, float]]:
    """The share of wrong answers among those stated surest: {"coverage", "risk"} at each stated confidence.

    (El-Yaniv and Wiener 2010.) Answers of one confidence come together: nothing orders them.
    """
    s, q = np.asarray(stated), np.asarray(right)
    points = []
    for level in sorted(set(s.tolist()), reverse=True):
        kept = s >= level
        points.append({"coverage": float(kept.mean()), "risk": float(1 - q[kept].mean())})
    return points


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """ece, brier_skill and bias_gap of rows {"stated", "right"}."""
    stated, right = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("stated", "right"))
    return {
        "ece": expected_calibration_error(stated, right),
        "brier_skill": brier_skill(stated, right),
        "bias_gap": float((stated - right).mean()),
    }


def _bins(stated: np.ndarray) -> np.ndarray:
    return np.minimum((stated * BINS + 1e-9).astype(int), BINS - 1)
