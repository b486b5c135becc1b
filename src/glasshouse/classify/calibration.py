"""From the scores of a classifier to probabilities that come true as often as they say.

Three ways, fitted on held-out scores: one temperature (Guo et al. 2017, arXiv:1706.04599), a logistic curve
for each label (Platt 1999), a monotone step function for each label (Zadrozny and Elkan 2002). The one with
the smallest log loss on rows that it was not fitted on is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["temperature", "platt", "isotonic"]

_TINY = 1e-12


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities; `numbers` are its parameters."""

    kind: Kind
    numbers: dict[str, np.ndarray]

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """(n, labels) probabilities of (n, labels) scores, which are log-probabilities up to a constant."""
        if self.kind == "temperature":
            return softmax(scores / self.numbers["temperature"])
        odds = _log_odds(scores)  # (n, curves): one for two labels, else one for each
        if self.kind == "platt":
            one = sigmoid(odds * self.numbers["slope"] + self.numbers["shift"])
        else:
            curves = range(odds.shape[1])
            one = np.stack(
                [np.interp(odds[:, k], self.numbers[f"x{k}"], self.numbers[f"y{k}"]) for k in curves], axis=1
            )
        if one.shape[1] == 1:
            return np.concatenate([1 - one, one], axis=1)
        return one / one.sum(axis=1, keepdims=True)


def softmax(scores: np.ndarray) -> np.ndarray:
    """(n, labels) to (n, labels), each row a distribution."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean of -ln p of what was right, in nats. (n, labels), (n,)"""
    return -float(np.log(np.maximum(probabilities[np.arange(len(targets)), targets], _TINY)).mean())


def choose(scores: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> Calibration:
    """The best of the three, fitted on all rows. `folds` (n,): each row is judged by fits on the other folds.

    The scores must come from models that were not trained on their rows.
    """

    def loss(fit: Callable[[np.ndarray, np.ndarray], Calibration]) -> float:
        losses = np.empty(len(targets))
        for fold in np.unique(folds):
            out = folds == fold
            found = fit(scores[~out], targets[~out]).apply(scores[out])
            losses[out] = -np.log(np.maximum(found[np.arange(out.sum()), targets[out]], _TINY))
        return float(losses.mean())

    best = min((fit_temperature, fit_platt, fit_isotonic), key=loss)
    return best(scores, targets)


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> Calibration:
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return log_loss(softmax(scores / np.exp(log_temperature)), targets)

    best = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6}).x
    return Calibration("temperature", {"temperature": np.array([np.exp(best)])})


def fit_platt(scores: np.ndarray, targets: np.ndarray) -> Calibration:
    odds, hits = _log_odds(scores), _hits(scores, targets)
    curves = [logistic_curve(odds[:, k], hits[:, k]) for k in range(odds.shape[1])]
    slope, shift = np.array(curves).T
    return Calibration("platt", {"slope": slope, "shift": shift})


def logistic_curve(x: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    """(slope, shift) of the likeliest P(hit) = sigmoid(slope * x + shift); x and hits (n,).

    With Platt's targets instead of 1 and 0, so that no set of rows, however clear-cut, claims certainty.
    """
    from scipy.optimize import minimize

    yes = float(hits.sum())
    wanted = np.where(hits, (yes + 1) / (yes + 2), 1 / (len(hits) - yes + 2))
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    z = (x - centre) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        t = parameters[0] * z + parameters[1]
        value = np.logaddexp(0, t) - wanted * t
        off = sigmoid(t) - wanted
        return float(value.mean()), np.array([float((off * z).mean()), float(off.mean())])

    slope, shift = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return float(slope / spread), float(shift - slope * centre / spread)


def fit_isotonic(scores: np.ndarray, targets: np.ndarray) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    odds, hits = _log_odds(scores), _hits(scores, targets)
    least = 1 / (len(targets) + 2)  # n rows cannot tell "never" from "once in n"
    numbers = {}
    for k in range(odds.shape[1]):
        steps = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
        steps.fit(odds[:, k], hits[:, k].astype(float))
        numbers[f"x{k}"] = np.asarray(steps.X_thresholds_, dtype=np.float64)
        numbers[f"y{k}"] = np.asarray(steps.y_thresholds_, dtype=np.float64)
    return Calibration("isotonic", numbers)


def _log_odds(scores: np.ndarray) -> np.ndarray:
    """ln p / (1 - p) of each label; of two labels only the second's, which tells all."""
    if scores.shape[1] == 2:
        return scores[:, 1:] - scores[:, :1]
    logs = np.log(np.clip(softmax(scores), _TINY, 1 - _TINY))
    return logs - np.log1p(-np.exp(logs))


def _hits(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    labels = np.arange(scores.shape[1])
    return targets[:, None] == (labels[1:] if len(labels) == 2 else labels)
