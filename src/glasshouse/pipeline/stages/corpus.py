"""corpus: the text a model will learn from, with a held-out part, in one form whatever it came from.

    corpus/train.jsonl.zst        {"id", "text", "source"} a line
    corpus/validation.jsonl.zst   the held-out part: nothing trains on it
    corpus/statistics.json        documents, bytes and words of both parts, by source

Documents come from the invented world of the recipe, or from the user's files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.errors import DataError
from glasshouse.core.seeds import python_rng
from glasshouse.core.storage import write_json
from glasshouse.pipeline.documents import DocumentWriter

if TYPE_CHECKING:
    from glasshouse.world import World
    from glasshouse.world.world import CorpusSplit

TRAIN, VALIDATION, STATISTICS = "train.jsonl.zst", "validation.jsonl.zst", "statistics.json"

LISTED_SOURCES = 24
"""Sources shown by name in the statistics; a folder of ten thousand files has its smallest ones added up."""


class CorpusConfig(Config):
    data: tuple[str, ...] = ()
    """Files or folders of the user's own text; without them the recipe's world is written out."""
    validation_fraction: float = Field(0.05, gt=0, lt=0.5)
    """Part of the user's documents (or, where they are few, of each one's end) that is held out."""


def corpus(config: CorpusConfig, out: Path, seed: int, world: World | None = None) -> dict[str, Any]:
    """Write both parts and their statistics; raises DataError when a part would be empty."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    if world is not None:
        parts: tuple[tuple[CorpusSplit, str], ...] = (("train", TRAIN), ("validation", VALIDATION))
        for part, name in parts:
            with DocumentWriter(out / name) as writer:
                for document in world.documents(part):
                    writer.write(document)
                    _count(counts, part, document)
    else:
        from glasshouse.files import read_documents

        with DocumentWriter(out / TRAIN) as train, DocumentWriter(out / VALIDATION) as validation:
            for part, document in split(read_documents(config.data), config.validation_fraction, seed):
                (train if part == "train" else validation).write(document)
                _count(counts, part, document)
    statistics = {part: _add_up(counts.get(part, {})) for part in ("train", "validation")}
    for part, found in statistics.items():
        if not found["bytes"]:
            raise DataError(
                f"the {part} part of the corpus is empty",
                where=", ".join(config.data) or "world",
                fix="give more text",
            )
    write_json(out / STATISTICS, statistics)
    return {part: {k: found[k] for k in ("documents", "bytes")} for part, found in statistics.items()}


def split(
    documents: Iterable[dict[str, Any]], fraction: float, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label each document "train" or "validation", holding one group of documents in memory.

    Of every group of round(1 / fraction) documents one is held out, drawn by the seed. When there is
    less than one group, the end of each document is held out instead, `fraction` of its characters.
    """
    stream = iter(documents)
    size = round(1 / fraction)
    first = list(islice(stream, size))
    if len(first) < size:
        for document in first:
            text = document["text"]
            cut = int(len(text) * (1 - fraction))
            if cut:
                yield "train", {**document, "text": text[:cut]}
            if text[cut:]:
                yield "validation", {**document, "id": f"{document['id']}#end", "text": text[cut:]}
        return
    rng = python_rng(seed, "held out")
    stream = chain(first, stream)
    while group := list(islice(stream, size)):
        chosen = rng.randrange(size)
        for place, document in enumerate(group):
            yield ("validation" if place == chosen else "train"), document


def _count(counts: dict[str, dict[str, dict[str, int]]], part: str, document: dict[str, Any]) -> None:
    text = document["text"]
    here = counts.setdefault(part, {}).setdefault(
        document.get("source", ""), {"documents": 0, "bytes": 0, "words": 0}
    )
    here["documents"] += 1
    here["bytes"] += len(text.encode("utf-8"))
    here["words"] += len(text.split())


def _add_up(sources: dict[str, dict[str, int]]) -> dict[str, Any]:
    ranked = sorted(sources.items(), key=lambda item: (-item[1]["bytes"], item[0]))
    listed = dict(ranked[:LISTED_SOURCES])
    rest = [numbers for _, numbers in ranked[LISTED_SOURCES:]]
    if rest:
        listed[f"({len(rest)} smaller sources)"] = {
            k: sum(numbers[k] for numbers in rest) for k in ("documents", "bytes", "words")
        }
    total = {k: sum(numbers[k] for numbers in sources.values()) for k in ("documents", "bytes", "words")}
    return {**total, "sources": listed}
