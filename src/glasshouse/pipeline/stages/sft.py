"""sft: supervised fine-tuning on conversations, with the loss on the assistant's words, and on documents.

sft/conversations.jsonl        what it learns from, readable (documents too)
sft/held_out.jsonl             the user's rows that it does not learn from, where there are such
sft/model/ state/ metrics.jsonl
sft/adapter/                   with lora
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from glasshouse.alignment.sft import SFTConfig
from glasshouse.alignment.sft import sft as fine_tune
from glasshouse.core.config import nearest
from glasshouse.core.errors import ConfigError
from glasshouse.core.seeds import derive
from glasshouse.core.storage import disk_errors
from glasshouse.files import read_examples
from glasshouse.pipeline.held_out import HELD_OUT, Row, split
from glasshouse.pipeline.replay import replayed

CONVERSATIONS = "conversations.jsonl"


class SFTStage(SFTConfig):
    data: tuple[str, ...] = ()
    """The user's own conversations and documents; without them the recipe's world supplies conversations."""
    validation_fraction: float = Field(0.0, ge=0, lt=0.5)
    """Part of the user's rows that is kept from training, to measure the model before and after."""
    weights: dict[str, float] = Field(default_factory=dict)
    """How often rows of an entry of `data` are taken: 0.1 is a tenth of them, 2.5 is each twice and half of
    them once more. 1 where nothing is said."""

    @model_validator(mode="after")
    def _weights_are_of_data(self) -> Self:
        for path, weight in self.weights.items():
            if path not in self.data:
                close = nearest(path, self.data)
                raise ConfigError(
                    f"sft.weights names '{path}', which is not in sft.data",
                    fix=f"did you mean '{close}'?" if close else "write it as it stands in data",
                )
            if not 0 < weight < math.inf:
                raise ConfigError(f"sft.weights of '{path}' is {weight:g}", fix="give a number above 0")
        return self

    def rows(self) -> Iterator[Row]:
        """Those of `data`, file by file, with a "weight" where it is not 1."""
        for path in self.data:
            weight = self.weights.get(path, 1.0)
            for row in read_examples(path):
                yield row if weight == 1 else {**row, "weight": weight}


def sft(
    config: SFTStage,
    model: Path,
    rows: Callable[[], Iterable[Row]],
    out: Path,
    corpus: Path | None = None,
) -> dict[str, Any]:
    """Fine-tune the model folder `model`, replaying documents of the corpus folder where there is one.

    `rows()` begins the stream of rows. Returns the training loop's summary and what became of the rows.
    """
    held_out: list[Row] = []

    def train() -> Iterator[Row]:
        for part, row in split(rows, config.validation_fraction):
            if part == "train":
                yield from repeated(row)
            else:
                held_out.append({key: value for key, value in row.items() if key != "weight"})

    write(train(), out / CONVERSATIONS)
    if held_out:
        write(held_out, out / HELD_OUT)
    texts = replayed(corpus, "sft", config.seed)
    return {**fine_tune(model, read(out / CONVERSATIONS), out, config, texts), "held_out": len(held_out)}


def repeated(row: Row) -> Iterator[Row]:
    """The row as often as its weight says; its content decides whether a fraction brings it once more."""
    kept = {key: value for key, value in row.items() if key != "weight"}
    whole, fraction = divmod(row.get("weight", 1.0), 1.0)
    drawn = fraction and derive(0, "weight", json.dumps(kept, sort_keys=True)) / 2**63 < fraction
    yield from [kept] * (int(whole) + bool(drawn))


def write(rows: Iterable[Row], path: Path) -> None:
    """One row a line; the file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.replace(temporary, path)


def read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)
