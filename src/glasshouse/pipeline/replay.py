"""What was learnt before and later stages learn again, so that it is not forgotten: documents, conversations.

Every stage begins at a place of its own: the same few documents, learnt in stage after stage, would be known
by heart, and the accidents in them with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from glasshouse.core.seeds import derive
from glasshouse.core.storage import read_json
from glasshouse.pipeline.documents import read_rows
from glasshouse.pipeline.stages.corpus import STATISTICS, TRAIN


def replayed(corpus: Path | None, stage: str, seed: int) -> Iterator[str]:
    """The texts of a corpus folder in their order, each once, from where `stage` begins; none without it."""
    if corpus is None:
        return
    documents = read_json(corpus / STATISTICS)["train"]["documents"]
    first = derive(seed, "replay", stage) % documents
    rows = chain(islice(read_rows(corpus / TRAIN), first, None), islice(read_rows(corpus / TRAIN), first))
    yield from (row["text"] for row in rows)


def settled(conversations: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The world's conversations but those with an open request.

    What fine-tuning replies to one says little or much by chance; how much is best, raters and principles
    teach, and who rehearsed chance would unlearn that.
    """
    return (row for row in conversations if "descriptions" not in row["source"].split("+"))
