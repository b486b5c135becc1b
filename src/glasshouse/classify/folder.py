"""A classifier on disk: what can be read in JSON, numbers in safetensors, no pickle."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np

from glasshouse.classify.calibration import Calibration
from glasshouse.classify.features import Block
from glasshouse.classify.training import Trained
from glasshouse.core.errors import DataError
from glasshouse.core.storage import directory, read_json, write_json

FORMAT = 1
DESCRIPTION, NUMBERS = "classifier.json", "classifier.safetensors"


def save(trained: Trained, path: str | Path) -> None:
    from safetensors.numpy import save_file

    numbers = {
        "weights": trained.weights,
        "bias": trained.bias,
        **{f"idf.{block.analyzer}": block.idf for block in trained.blocks},
        **{f"calibration.{name}": value for name, value in trained.calibration.numbers.items()},
    }
    with directory(path) as whole:
        save_file({name: np.ascontiguousarray(value) for name, value in numbers.items()}, whole / NUMBERS)
        write_json(
            whole / DESCRIPTION,
            {
                "format": FORMAT,
                "date": datetime.date.today().isoformat(),
                "labels": trained.labels,
                "calibration": trained.calibration.kind,
                "measured": trained.measured,
                "terms": {block.analyzer: block.terms for block in trained.blocks},
            },
        )


def load(path: str | Path) -> Trained:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(path)
    told = read_json(path / DESCRIPTION)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise DataError("not a text classifier of this version", where=path, fix="train it again")
    try:
        numbers = load_file(path / NUMBERS)
        blocks = tuple(
            Block(name, terms, numbers[f"idf.{name}"].astype(np.float64))
            for name, terms in told["terms"].items()
        )
        calibration = {
            name.removeprefix("calibration."): value
            for name, value in numbers.items()
            if name.startswith("calibration.")
        }
        trained = Trained(
            tuple(told["labels"]),
            blocks,
            numbers["weights"],
            numbers["bias"],
            Calibration(told["calibration"], calibration),
            told["measured"],
        )
    except (OSError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise DataError(f"a broken text classifier: {error}", where=path, fix="train it again") from None
    columns = 1 if len(trained.labels) == 2 else len(trained.labels)
    terms = [len(block.terms) for block in blocks]
    shapes = [trained.weights.shape, trained.bias.shape, *(block.idf.shape for block in blocks)]
    if shapes != [(sum(terms), columns), (columns,), *((n,) for n in terms)]:
        raise DataError("a text classifier whose parts do not fit", where=path, fix="train it again")
    return trained
