"""pretrain: next-token prediction on the corpus, from untrained weights or from a base model.

pretrain/shards/train/        token ids of the corpus, written once (see glasshouse.data.shards)
pretrain/shards/validation/
pretrain/model/ state/ metrics.jsonl       what the training loop leaves
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from glasshouse.core.progress import bar
from glasshouse.core.storage import read_json
from glasshouse.pipeline.documents import read_rows
from glasshouse.pipeline.stages.corpus import STATISTICS, TRAIN, VALIDATION
from glasshouse.training import TrainingConfig

if TYPE_CHECKING:
    from glasshouse.model import ModelConfig, Transformer
    from glasshouse.tokenizer import Tokenizer

ENCODED_TOGETHER = 512
"""Documents handed to the tokenizer's threads at once; memory stays at so many texts."""

T = TypeVar("T")


class PretrainStage(TrainingConfig):
    eval_tokens: int = Field(200_000, gt=0)
    """Held-out tokens scored at each evaluation during training, the same ones every time."""


def pretrain(
    config: PretrainStage,
    start: Transformer,
    tokenizer: Tokenizer,
    corpus: Path,
    out: Path,
    *,
    shards_at: Path | None = None,
    title: str = "pretrain",
) -> dict[str, Any]:
    """Train `start` on the corpus folder's training part; returns the training loop's summary.

    `shards_at`: where the token ids stand, or shall stand, if not in out/shards.
    """
    from glasshouse.data import PackedBatches, Shards
    from glasshouse.model import save
    from glasshouse.training import NextToken, expert_load, train, validation_loss

    for part, name in (("train", TRAIN), ("validation", VALIDATION)):
        write_shards(corpus / name, part, tokenizer, (shards_at or out / "shards") / part)
    shards, held_out = (Shards((shards_at or out / "shards") / part) for part in ("train", "validation"))
    batches = PackedBatches(shards, config.sequence_length, config.rows_per_batch, config.seed)
    window = min(config.sequence_length, int(held_out.offsets[-1]))

    def evaluate(model: Transformer, step: int) -> dict[str, float]:
        loss = validation_loss(model, held_out, window, config.eval_tokens).nats_per_token
        return {"val_loss": loss, **expert_load(model, held_out, window, config.eval_tokens)}

    return train(
        start,
        NextToken(batches),
        config,
        out,
        title=title,
        evaluate=evaluate,
        save_model=lambda model, folder: save(model, tokenizer, folder),
    )


def untrained(model: ModelConfig, tokenizer: Tokenizer, seed: int) -> Transformer:
    """The starting weights of a recipe, with an embedding for exactly the tokens the tokenizer has."""
    from glasshouse.model import initialise

    return initialise(model.model_copy(update={"vocab_size": tokenizer.vocab_size}), seed)


def write_shards(documents: Path, part: str, tokenizer: Tokenizer, out: Path) -> None:
    """Encode a file of documents, unless an earlier start of the same stage has done so."""
    if (out / "index.json").is_file():
        return
    from glasshouse.data import ShardWriter

    total = read_json(documents.parent / STATISTICS)[part]["bytes"]
    done = 0
    with (
        ShardWriter(out, tokenizer.vocab_size, end_of_text=tokenizer.eos_id) as writer,
        bar(f"encode {part}", total=total, unit="B") as progress,
    ):
        for rows in _groups(read_rows(documents), ENCODED_TOGETHER):
            texts = [row["text"] for row in rows]
            for row, ids in zip(rows, tokenizer.encode_batch(texts), strict=True):
                writer.add(ids, source=row.get("source", ""))
            done += sum(len(text.encode("utf-8")) for text in texts)
            progress.update(done)


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while group := list(islice(stream, size)):
        yield group
