"""One result of several by rules, for when no model can join them: nothing is written anew.

Choices go to what most of the text says, each part weighing as much as it is long. Points come in turn from
every part, those with a quote first, and each once. Sentences of the parts stand one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from glasshouse.documents.result import Task
from glasshouse.documents.values.equality import normal

POINTS = {"findings": 5, "claims": 8, "features": 5, "aspects": 8}
"""Of a list with quotes, as many as its prompt asks for."""

SENTENCES = 8
"""Of a list without."""


def join(task: Task, values: Sequence[dict[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    """`values`: at least one, in the order of the document; `weights`: how much text is behind each."""
    if task == "summary":
        return {
            "topic": values[weights.index(max(weights))]["topic"],
            "findings": _points("findings", values),
            "conclusions": _sentences("conclusions", values),
        }
    if task == "reasoning":
        return {
            "claims": _points("claims", values),
            "logical_flow": _paragraph("logical_flow", values),
            "gaps": _sentences("gaps", values),
            "evidence_quality": plurality([value["evidence_quality"] for value in values], weights),
            "strength": plurality([value["strength"] for value in values], weights),
            "overall": _paragraph("overall", values),
        }
    if task == "classification":
        primary = plurality([value["primary"] for value in values], weights)
        of_it = [value for value in values if value["primary"] == primary]
        others = [label for value in values for label in (value["primary"], *value["secondary"])]
        return {
            "features": _points("features", of_it),
            "primary": primary,
            "secondary": [label for label in dict.fromkeys(others) if label != primary],
            "uncertainty": _sentences("uncertainty", values),
        }
    assert task == "sentiment", task
    return {
        "aspects": _aspects(values),
        "emotions": _sentences("emotions", values),
        "overall": feeling([value["overall"] for value in values], weights),
    }


@dataclass(frozen=True)
class Disagreement:
    """Values of different parts, the chosen one first, each with the quote beside it, and why the first."""

    path: str
    values: tuple[str, ...]
    quotes: tuple[str, ...]
    why: str


def disagreements(
    task: Task, values: Sequence[dict[str, Any]], weights: Sequence[float], joined: dict[str, Any]
) -> list[Disagreement]:
    """Where parts choose differently about the same thing, and each gives a quote for it."""
    if task == "classification":
        total = sum(weights)
        told = [(value["primary"], _first_quote(value["features"])) for value in values]
        behind = sum(
            w for value, w in zip(values, weights, strict=True) if value["primary"] == joined["primary"]
        )
        why = f"Parts with {behind / total:.0%} of the text say so, more than say anything else."
        return _disagreement("primary", joined["primary"], told, why)
    if task != "sentiment":
        return []
    by_aspect: dict[str, list[tuple[str, str]]] = {}
    for aspect in (aspect for value in values for aspect in value["aspects"]):
        by_aspect.setdefault(normal(aspect["aspect"]), []).append((aspect["sentiment"], aspect["quote"]))
    found = []
    for number, aspect in enumerate(joined["aspects"]):
        told = by_aspect[normal(aspect["aspect"])]
        why = f"Parts of the document feel differently about it; together that is {aspect['sentiment']}."
        first = told[0][0]
        found += _disagreement(f"aspects[{number}].sentiment", first, told, why)
    return found


def _disagreement(path: str, chosen: str, told: Sequence[tuple[str, str]], why: str) -> list[Disagreement]:
    quotes: dict[str, str] = {}
    for value, quote in told:
        if quote:
            quotes.setdefault(value, quote)
    if len(quotes) < 2 or chosen not in quotes:
        return []
    order = [chosen, *(value for value in quotes if value != chosen)]
    return [Disagreement(path, tuple(order), tuple(quotes[value] for value in order), why)]


def _first_quote(features: Sequence[dict[str, Any]]) -> str:
    return next((feature["quote"] for feature in features if feature["quote"]), "")


def plurality(said: Sequence[Any], weights: Sequence[float]) -> Any:
    """What has most weight behind it, the first of equally heavy ones."""
    total: dict[Any, float] = {}
    for one, weight in zip(said, weights, strict=True):
        total[one] = total.get(one, 0.0) + weight
    return max(total, key=lambda one: total[one])


def feeling(said: Sequence[str], weights: Sequence[float]) -> str:
    """Good and bad side by side are mixed, unless one of them has three quarters of what is not neutral."""
    felt = [(one, weight) for one, weight in zip(said, weights, strict=True) if one != "neutral"]
    if not felt:
        return "neutral"
    most = plurality([one for one, _ in felt], [weight for _, weight in felt])
    share = sum(weight for one, weight in felt if one == most) / sum(weight for _, weight in felt)
    return most if share >= 0.75 else "mixed"


def _points(name: str, values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    in_turn = [point for row in zip_longest(*(value[name] for value in values)) for point in row if point]
    in_turn.sort(key=lambda point: not point["quote"])  # stable
    return _once(in_turn, lambda point: {key: point[key] for key in point if key != "quote"})[: POINTS[name]]


def _aspects(values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An aspect of several parts once, mixed where they feel differently about it."""
    made: dict[str, dict[str, Any]] = {}
    for aspect in (aspect for value in values for aspect in value["aspects"]):
        known = made.setdefault(normal(aspect["aspect"]), dict(aspect))
        if known["sentiment"] != aspect["sentiment"]:
            known["sentiment"] = feeling([known["sentiment"], aspect["sentiment"]], [1, 1])
        known["quote"] = known["quote"] or aspect["quote"]
    return sorted(made.values(), key=lambda aspect: not aspect["quote"])[: POINTS["aspects"]]


def _sentences(name: str, values: Sequence[dict[str, Any]]) -> list[str]:
    in_turn = [each for row in zip_longest(*(value[name] for value in values)) for each in row if each]
    return _once(in_turn, lambda each: each)[:SENTENCES]


def _paragraph(name: str, values: Sequence[dict[str, Any]]) -> str:
    return " ".join(
        _once([value[name].strip() for value in values if value[name].strip()], lambda each: each)
    )


def _once(items: Iterable[Any], key: Any) -> list[Any]:
    kept: dict[str, Any] = {}
    for item in items:
        kept.setdefault(repr(normal(key(item))), item)
    return list(kept.values())
