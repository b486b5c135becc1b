"""How good predicted probabilities are."""

from __future__ import annotations

import numpy as np

from glasshouse.classify.calibration import log_loss

BINS = 10


def quality(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Of (n, labels) probabilities and (n,) right labels: accuracy; ece, the expected calibration error of
    the likeliest label over ten bins (Guo et al. 2017); brier, 0 at best; log_loss in nats; and the accuracy
    of always saying the commonest label."""
    hit = probabilities.argmax(axis=1) == targets
    right = np.zeros_like(probabilities)
    right[np.arange(len(targets)), targets] = 1
    return {
        "accuracy": float(hit.mean()),
        "commonest": float(np.bincount(targets).max() / len(targets)),
        "ece": expected_calibration_error(probabilities.max(axis=1), hit),
        "brier": float(((probabilities - right) ** 2).sum(axis=1).mean()),
        "log_loss": log_loss(probabilities, targets),
    }


def expected_calibration_error(sure: np.ndarray, hit: np.ndarray) -> float:
    """Mean distance between confidence and share of hits over bins of the confidence; (n,) each."""
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return sum(abs(float((sure - hit)[bins == b].sum())) for b in range(BINS)) / len(sure)
