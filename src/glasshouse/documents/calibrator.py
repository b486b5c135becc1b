"""From how sure a model was to how often it is right, learned from labelled fields.

For each setting (model, task, domain, prompt) a logistic regression of "this field is right" on the log odds
of token probability and vote share, the quote match, which of them are missing, whether the value is "not
mentioned", and the field itself. Its scores on rows that it was not fitted on are then made probabilities by
the best of Platt's curve, isotonic steps and one temperature (classify/calibration.py). What is learned in
one setting says nothing about another, so any other has no calibrated confidence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.errors import ConfigError, DataError
from glasshouse.core.storage import read_json, write_json
from glasshouse.documents.result import FieldResult, Task
from glasshouse.documents.values.leaves import without_indices

if TYPE_CHECKING:
    import numpy as np

    from glasshouse.classify.calibration import Calibration
    from glasshouse.evaluation.intervals import Estimate

LEAST_ROWS = 100
"""Labelled fields of a setting that are needed. With fewer, ECE itself is not known to within 0.1."""

LEAST_DOCUMENTS = 10
"""... and the documents that they must be from: fields of one document go right and wrong together."""

LEAST_OF_EACH = 10
"""Right and wrong fields that are needed to tell them apart; with fewer all fields get one probability."""

LEAST_OF_A_FIELD = 10
"""Rows from which on a field has a weight of its own; the rarer ones share one."""

FOLDS = 5

_EDGE = 1e-6
"""Probabilities are taken into log odds between this and one minus it."""


class Setting(Config):
    """What a calibration is good for."""

    model: str  # Result.model
    task: Task
    domain: str
    prompt: str  # Result.prompt: name, version, hash


class Labelled(Config):
    """A field that somebody knows to be right or wrong."""

    setting: Setting
    path: str
    document: str = ""  # rows of one document are fitted and judged together
    mentioned: bool = True  # the model gave a value
    token_probability: float | None = None
    vote_share: float | None = None
    quote_match: float | None = None
    right: bool

    @classmethod
    def of(cls, field: FieldResult, setting: Setting, right: bool, document: str = "") -> Self:
        return cls(
            setting=setting,
            path=without_indices(field.path),
            document=document,
            mentioned=field.value is not None,
            token_probability=field.token_probability,
            vote_share=field.vote_share,
            quote_match=field.quote_match,
            right=right,
        )


class Figure(Config):
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float
    n: int


class Curve(Config):
    """A `Calibration` as JSON has it."""

    kind: Literal["temperature", "platt", "isotonic"]
    numbers: dict[str, list[float]]


class Fitted(Config):
    """What was learned for one setting, and how well it does on rows that it was not fitted on."""

    setting: Setting
    rows: int
    documents: int
    right: float = Field(ge=0, le=1)  # share of the rows
    paths: tuple[str, ...]  # those with a weight of their own
    centre: tuple[float, ...] = ()  # of the features
    spread: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()  # empty: too few rows of a kind, every field gets the share
    shift: float = 0.0
    curve: Curve | None = None
    ece: Figure  # cross-validated over documents, intervals by resampling documents
    brier: Figure


class Calibrator(Config):
    """What was learned, setting by setting."""

    format: Literal[1] = 1
    fitted: tuple[Fitted, ...]

    @classmethod
    def fit(cls, rows: Iterable[Labelled], seed: int = 0) -> Self:
        """One calibration for each setting with LEAST_ROWS rows of LEAST_DOCUMENTS documents or more.

        Raises DataError where none has so many.
        """
        groups: dict[Setting, list[Labelled]] = defaultdict(list)
        for row in rows:
            groups[row.setting].append(row)
        enough = [
            group
            for group in groups.values()
            if len(group) >= LEAST_ROWS and len(set(_documents(group))) >= LEAST_DOCUMENTS
        ]
        if not enough:
            most = max(groups.values(), key=len, default=[])
            raise DataError(
                f"{LEAST_ROWS} labelled fields in {LEAST_DOCUMENTS} documents are needed of one model, task, "
                f"domain and prompt; the most there are is {len(most)} in {len(set(_documents(most)))}",
                where="calibration",
                fix="label more results, or correct them with `glasshouse documents correct`",
            )
        return cls(fitted=tuple(_fitted(group, seed) for group in enough))

    def of(self, setting: Setting) -> Fitted | None:
        """What was learned for exactly this setting."""
        return next((fitted for fitted in self.fitted if fitted.setting == setting), None)

    def confidence(self, field: FieldResult, setting: Setting) -> float | None:
        """The probability that the field is right; None, uncalibrated, for a setting without labels."""
        fitted = self.of(setting)
        if fitted is None:
            return None
        return float(_predict(fitted, [Labelled.of(field, setting, right=False)])[0])

    def save(self, path: str | Path) -> None:
        """As JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Raises DataError for a file that is no calibration."""
        content = read_json(path)
        try:
            if not isinstance(content, dict):
                raise ConfigError("expected an object")
            return cls.parse(content, str(path))
        except ConfigError as error:
            raise DataError(
                f"not a calibration: {error.what}", where=path, fix="fit it again with Calibrator.fit"
            ) from None


def _fitted(rows: Sequence[Labelled], seed: int) -> Fitted:
    import numpy as np

    from glasshouse.evaluation.confidence import expected_calibration_error
    from glasshouse.evaluation.intervals import bootstrap

    right = np.array([row.right for row in rows], dtype=np.float64)
    document = _documents(rows)
    judged = np.empty(len(rows))
    for out in _folds(document, seed):
        inside = [row for row, left in zip(rows, out, strict=True) if not left]
        outside = [row for row, left in zip(rows, out, strict=True) if left]
        judged[out] = _predict(_learned(inside, seed), outside)
    members = [np.flatnonzero(np.equal(document, number)) for number in range(max(document) + 1)]

    def over(statistic) -> Figure:
        def drawn(chosen: np.ndarray) -> float:
            index = np.concatenate([members[i] for i in chosen])
            return statistic(judged[index], right[index])

        found: Estimate = bootstrap(drawn, len(members), seed)
        return Figure(value=found.value, low=found.low, high=found.high, n=len(rows))

    return _learned(rows, seed).model_copy(
        update={
            "ece": over(lambda said, was: float(expected_calibration_error(said, was))),
            "brier": over(lambda said, was: float(((said - was) ** 2).mean())),
        }
    )


def _learned(rows: Sequence[Labelled], seed: int) -> Fitted:
    """Fitted on all of the rows; its figures are yet to be measured."""
    import numpy as np

    from glasshouse.classify.calibration import choose

    right = np.array([row.right for row in rows])
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row.path] += 1
    unknown = Figure(value=0.0, low=0.0, high=1.0, n=0)
    base = Fitted(
        setting=rows[0].setting,
        rows=len(rows),
        documents=len({row.document for row in rows}),
        right=float(right.mean()),
        paths=tuple(sorted(path for path, count in counts.items() if count >= LEAST_OF_A_FIELD)),
        ece=unknown,
        brier=unknown,
    )
    if min(right.sum(), (~right).sum()) < LEAST_OF_EACH:
        return base
    scores = np.empty(len(rows))
    folds = np.empty(len(rows), dtype=int)
    features = _features(rows, base.paths)
    for number, out in enumerate(_folds(_documents(rows), seed)):
        scores[out] = _scores(_regression(base, features[~out], right[~out]), features[out])
        folds[out] = number
    both = np.stack([np.zeros(len(rows)), scores], axis=1)
    curve = choose(both, right.astype(int), folds)
    numbers = {name: np.atleast_1d(value).tolist() for name, value in curve.numbers.items()}
    whole = _regression(base, features, right)
    return whole.model_copy(update={"curve": Curve(kind=curve.kind, numbers=numbers)})


def _regression(base: Fitted, features: np.ndarray, right: np.ndarray) -> Fitted:
    """L2-penalised (C = 1) logistic regression; of rows of one kind only, the constant."""
    from sklearn.linear_model import LogisticRegression

    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1.0
    if right.all() or not right.any():
        sure = math.log(len(right) + 1)  # the log odds of (n + 1) / (n + 2)
        weights, shift = [0.0] * features.shape[1], sure if right.all() else -sure
    else:
        found = LogisticRegression(C=1.0, max_iter=1000).fit((features - centre) / spread, right)
        weights, shift = found.coef_[0].tolist(), float(found.intercept_[0])
    return base.model_copy(
        update={
            "centre": tuple(centre.tolist()),
            "spread": tuple(spread.tolist()),
            "weights": tuple(weights),
            "shift": shift,
        }
    )


def _scores(fitted: Fitted, features: np.ndarray) -> np.ndarray:
    """(n, features) to (n,) log odds."""
    import numpy as np

    scaled = (features - np.array(fitted.centre)) / np.array(fitted.spread)
    return scaled @ np.array(fitted.weights) + fitted.shift


def _predict(fitted: Fitted, rows: Sequence[Labelled]) -> np.ndarray:
    """(n,) probabilities of being right. n rows cannot tell "always" from "all but once in n"."""
    import numpy as np

    if fitted.curve is None:
        return np.full(len(rows), (fitted.right * fitted.rows + 1) / (fitted.rows + 2))
    scores = _scores(fitted, _features(rows, fitted.paths))
    both = np.stack([np.zeros(len(rows)), scores], axis=1)
    least = 1 / (fitted.rows + 2)
    return np.clip(_curve(fitted.curve).apply(both)[:, 1], least, 1 - least)


def _curve(curve: Curve) -> Calibration:
    import numpy as np

    from glasshouse.classify.calibration import Calibration

    return Calibration(curve.kind, {name: np.array(numbers) for name, numbers in curve.numbers.items()})


def _features(rows: Sequence[Labelled], paths: Sequence[str]) -> np.ndarray:
    """(n, 7 + paths): what is missing counts as even odds, and has a weight of its own."""
    import numpy as np

    columns = np.zeros((len(rows), 7 + len(paths)))
    place = {path: 7 + i for i, path in enumerate(paths)}
    for i, row in enumerate(rows):
        for j, share in enumerate((row.token_probability, row.vote_share)):
            columns[i, 2 * j] = 0.0 if share is None else _log_odds(share)
            columns[i, 2 * j + 1] = share is None
        columns[i, 4] = 0.5 if row.quote_match is None else row.quote_match
        columns[i, 5] = row.quote_match is None
        columns[i, 6] = row.mentioned
        if row.path in place:
            columns[i, place[row.path]] = 1.0
    return columns


def _log_odds(share: float) -> float:
    import math

    inside = min(max(share, _EDGE), 1 - _EDGE)
    return math.log(inside / (1 - inside))


def _documents(rows: Sequence[Labelled]) -> list[int]:
    """A number for each row's document; a row without one is a document of its own."""
    numbers: dict[object, int] = {}
    keys = [row.document or i for i, row in enumerate(rows)]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _folds(document: Sequence[int], seed: int) -> list[np.ndarray]:
    """FOLDS masks (n,), with every document in one of them."""
    import numpy as np

    order = np.random.Generator(np.random.PCG64(seed)).permutation(max(document) + 1)
    return [np.isin(document, part) for part in np.array_split(order, FOLDS)]
