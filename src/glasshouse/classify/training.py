"""Training: TF-IDF and logistic regression by scikit-learn, then calibration on scores of held-out folds.

No row is used for both: a row is scored by a model trained without it, the calibration is fitted on those
scores, and how good the result is is measured on folds that had no part in any of it. Copies of a text are
always in one fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glasshouse.classify.calibration import Calibration, choose, softmax
from glasshouse.classify.features import ANALYZERS, Block
from glasshouse.classify.quality import quality
from glasshouse.core.errors import DataError
from glasshouse.core.seeds import python_rng

FOLDS = 5
LEAST_TEXTS = 10
"""Different texts that each label needs: with less, a fold of a fold may be without it."""

MOST_TERMS = {"words": 20_000, "characters": 40_000}
"""The commonest are kept."""

INVERSE_REGULARIZATION = 10.0
"""C of the logistic regression. Features of length 1 want less restraint than scikit-learn's 1; how much too
sure that makes a model is for the calibration to find out."""

ENOUGH_MEASURED = 2_000
"""Rows after which no further fold is measured: each costs as much as the training itself."""


@dataclass(frozen=True)
class Trained:
    """A linear model over blocks of features, with its calibration and what that was measured at."""

    labels: tuple[str, ...]
    blocks: tuple[Block, ...]
    weights: np.ndarray  # (terms of all blocks, columns): one column for two labels, else one for each
    bias: np.ndarray  # (columns,)
    calibration: Calibration
    measured: dict[str, Any]


def train(texts: Sequence[str], labels: Sequence[str], seed: int = 0) -> Trained:
    """Raises DataError for empty texts, a single label, and labels with too few texts."""
    from sklearn.feature_extraction.text import CountVectorizer

    check(texts, labels)
    names = tuple(sorted(set(labels)))
    targets = np.array([names.index(label) for label in labels])
    rows = np.arange(len(texts))
    counted, terms = [], []
    for grams in ANALYZERS.values():
        options: dict[str, Any] = {"analyzer": grams, "dtype": np.float64}
        vectorizer = CountVectorizer(**options)
        counts: Any = vectorizer.fit_transform(texts)
        counted.append(counts.tocsr())
        terms.append(vectorizer.get_feature_names_out())
    table = _Table(counted, targets, _folds(texts, targets, seed))
    model, calibration = table.calibrated(rows)
    blocks = tuple(
        Block(name, terms[i][model.kept[i]].tolist(), model.idf[i]) for i, name in enumerate(ANALYZERS)
    )
    coefficients = model.regression.coef_.T.copy(), model.regression.intercept_.copy()
    return Trained(names, blocks, *coefficients, calibration, table.measured(rows))


def check(texts: Sequence[str], labels: Sequence[str]) -> None:
    """Raises DataError telling what is missing."""
    if len(texts) != len(labels):
        raise DataError(f"{len(texts)} texts and {len(labels)} labels", fix="give one label for each text")
    for row, (text, label) in enumerate(zip(texts, labels, strict=True), 1):
        if not isinstance(text, str) or not text.strip():
            raise DataError("an empty text", where=f"row {row}", fix="leave such rows out")
        if not isinstance(label, str):
            raise DataError(f"the label {label!r} is no text", where=f"row {row}", fix="write it as text")
    found = Counter(dict(zip(texts, labels, strict=True)).values())
    if len(set(labels)) < 2:
        only = f"only the label '{labels[0]}'" if labels else "no rows"
        raise DataError(f"{only}: there is nothing to tell apart", fix="add texts of another label")
    for label in sorted(set(labels)):
        if found[label] < LEAST_TEXTS:
            raise DataError(
                f"the label '{label}' has {found[label]} different texts of its own, and needs {LEAST_TEXTS}",
                fix="add texts of it, or join it with another label",
            )


def _folds(texts: Sequence[str], targets: np.ndarray, seed: int) -> np.ndarray:
    """(n, 2): the fold of each row, and the fold within the rest; each label is dealt out evenly."""
    label = dict(zip(texts, targets.tolist(), strict=True))
    order = list(label)
    python_rng(seed, "folds").shuffle(order)
    order.sort(key=label.__getitem__)
    place = {text: (i % FOLDS, (i // FOLDS + i) % FOLDS) for i, text in enumerate(order)}
    return np.array([place[text] for text in texts])


@dataclass(frozen=True)
class _Model:
    kept: list[np.ndarray]
    idf: list[np.ndarray]
    regression: Any


class _Table:
    """Counts of all terms in all texts, and models of some of the rows."""

    def __init__(self, counted: list[Any], targets: np.ndarray, folds: np.ndarray) -> None:
        self.counted, self.targets, self.folds = counted, targets, folds

    def fit(self, rows: np.ndarray) -> _Model:
        from sklearn.linear_model import LogisticRegression

        kept, idf = [], []
        for counts, most in zip(self.counted, MOST_TERMS.values(), strict=True):
            mine = counts[rows]
            frequency = np.asarray(mine.sum(axis=0)).ravel()
            chosen = np.sort(np.argsort(-frequency, kind="stable")[: min(most, int((frequency > 0).sum()))])
            documents = np.bincount(mine.indices, minlength=mine.shape[1])[chosen]
            kept.append(chosen)
            idf.append(np.log((1 + len(rows)) / (1 + documents)) + 1)
        model = _Model(kept, idf, LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000))
        model.regression.fit(self._features(rows, model), self.targets[rows])
        return model

    def scores(self, rows: np.ndarray, model: _Model) -> np.ndarray:
        """(rows, labels) log-probabilities up to a constant."""
        found = model.regression.decision_function(self._features(rows, model))
        return np.stack([np.zeros_like(found), found], axis=1) if found.ndim == 1 else found

    def calibrated(self, rows: np.ndarray, level: int = 0) -> tuple[_Model, Calibration]:
        """A model of the rows, and the calibration that models of four fifths of them need on the rest."""
        fold = self.folds[rows, level]
        scores = np.empty((len(rows), len(np.unique(self.targets))))
        for out in range(FOLDS):
            scores[fold == out] = self.scores(rows[fold == out], self.fit(rows[fold != out]))
        return self.fit(rows), choose(scores, self.targets[rows], fold)

    def measured(self, rows: np.ndarray) -> dict[str, Any]:
        """What the whole of `calibrated` gives on folds that it did not see."""
        before, after, targets, chosen = [], [], [], []
        for out in range(FOLDS):
            inside, outside = rows[self.folds[:, 0] != out], rows[self.folds[:, 0] == out]
            model, calibration = self.calibrated(inside, level=1)
            scores = self.scores(outside, model)
            before.append(softmax(scores))
            after.append(calibration.apply(scores))
            targets.append(self.targets[outside])
            chosen.append(calibration.kind)
            if sum(map(len, targets)) >= ENOUGH_MEASURED:
                break
        right = np.concatenate(targets)
        return {
            "rows": len(right),
            "folds": len(chosen),
            "chosen": chosen,
            "uncalibrated": quality(np.concatenate(before), right),
            **quality(np.concatenate(after), right),
        }

    def _features(self, rows: np.ndarray, model: _Model) -> Any:
        from scipy.sparse import hstack
        from sklearn.preprocessing import normalize

        blocks = []
        for counts, kept, idf in zip(self.counted, model.kept, model.idf, strict=True):
            block = counts[rows][:, kept]
            block.data = np.log(block.data) + 1
            blocks.append(normalize(block.multiply(idf[None, :]).tocsr()))
        return hstack(blocks).tocsr()
