"""sft: supervised fine-tuning on conversations, with the loss on the assistant's words only.

sft/conversations.jsonl        what it learns from, readable
sft/model/ state/ metrics.jsonl
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from glasshouse.alignment.sft import SFTConfig
from glasshouse.alignment.sft import sft as fine_tune
from glasshouse.core.storage import disk_errors
from glasshouse.pipeline.documents import read_rows
from glasshouse.pipeline.stages.corpus import TRAIN

CONVERSATIONS = "conversations.jsonl"


class SFTStage(SFTConfig):
    data: tuple[str, ...] = ()
    """Files of the user's own conversations; without them the recipe's world supplies some."""


def sft(
    config: SFTConfig,
    model: Path,
    conversations: Iterable[dict[str, Any]],
    out: Path,
    corpus: Path | None = None,
) -> dict[str, Any]:
    """Fine-tune the model folder `model`, replaying documents of the corpus folder where there is one.

    Returns the training loop's summary and what became of the rows.
    """
    write(conversations, out / CONVERSATIONS)
    texts = (row["text"] for row in read_rows(corpus / TRAIN)) if corpus is not None else ()
    return fine_tune(model, read(out / CONVERSATIONS), out, config, texts)


def write(conversations: Iterable[dict[str, Any]], path: Path) -> None:
    """One conversation a line; the file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for conversation in conversations:
                file.write(json.dumps(conversation, ensure_ascii=False) + "\n")
        os.replace(temporary, path)


def read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)
