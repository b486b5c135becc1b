"""Is a reward model good enough? Accuracy, calibration and length bias on pairs that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from glasshouse.alignment.bradley_terry import preference_loss
from glasshouse.evaluation.intervals import bootstrap, proportion

CONFIDENCE_BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Edges of the probability of the reply that the model likes better."""

LENGTH_BINS = (-1.0, -0.5, -0.1, 0.1, 0.5, 1.0)
"""Edges of (chosen - rejected) / the longer one, in tokens: the chosen reply much shorter ... much longer."""


def judge(rewards: Tensor, lengths: Tensor, ties: Tensor) -> dict[str, Any]:
    """What rewards (n, 2) of chosen and rejected conversations are worth; `lengths` (n, 2) of the replies.

    accuracy              share of the pairs, ties apart, whose chosen reply has the higher reward
    loss                  Bradley–Terry loss in nats, ties half-half
    calibration           of max(p, 1 - p), p = sigmoid(difference): expected calibration error, and bins
    by_length_difference  accuracy by how much longer the chosen reply is
    prefers_longer        share of pairs of unequal lengths whose longer reply has the higher reward;
    chosen_longer         ... whose longer reply the raters chose: the difference is length bias

    Shares are {"value", "low", "high", "n"} with 95% intervals, None where nothing can be counted.
    """
    difference = rewards[:, 0] - rewards[:, 1]
    loss = preference_loss(difference, 1 - 0.5 * ties.float()).mean()
    kept = ~ties
    d, length = difference[kept].double().numpy(), lengths[kept].double().numpy()
    hits = d > 0
    relative = (length[:, 0] - length[:, 1]) / length.max(1, initial=1)
    unequal = relative != 0
    return {
        "pairs": len(ties),
        "ties": int(ties.sum()),
        "loss": float(loss),
        "accuracy": _share(hits),
        "calibration": _calibration(d, hits),
        "by_length_difference": _by(relative, hits, LENGTH_BINS),
        "prefers_longer": _share((d * relative > 0)[unequal]),
        "chosen_longer": _share((relative > 0)[unequal]),
    }


def _calibration(difference: np.ndarray, hits: np.ndarray) -> dict[str, Any]:
    confidence = 1 / (1 + np.exp(-np.abs(difference)))
    bins = _by(confidence, hits, CONFIDENCE_BINS, confidence)

    def error(rows: np.ndarray) -> float:
        which = np.digitize(confidence[rows], CONFIDENCE_BINS[1:-1])
        gaps = np.bincount(which, hits[rows] - confidence[rows])
        return float(np.abs(gaps).sum() / len(rows))

    return {"ece": _estimate(error, len(hits)), "bins": bins}


def _estimate(statistic: Callable[[np.ndarray], float], rows: int) -> dict[str, Any] | None:
    return bootstrap(statistic, rows, seed=0).as_dict() if rows else None


def _by(
    values: np.ndarray, hits: np.ndarray, edges: tuple[float, ...], confidence: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Accuracy of the pairs whose value lies between two edges, for each two of them."""
    which = np.digitize(values, edges[1:-1])
    rows = []
    for number, (low, high) in enumerate(pairwise(edges)):
        here = which == number
        row: dict[str, Any] = {"from": low, "to": high, "accuracy": _share(hits[here])}
        if confidence is not None and here.any():
            row["confidence"] = float(confidence[here].mean())
        rows.append(row)
    return rows


def _share(hits: np.ndarray) -> dict[str, Any] | None:
    return proportion(hits.tolist()).as_dict() if len(hits) else None
