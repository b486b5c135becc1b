"""context: a longer window for the model so far, and training on long rows until it uses it.

    context/model/ state/ metrics.jsonl        as pretrain leaves them
    context/shards/                            only where the run itself has no pretrain stage
    context/windows.json                       bits per byte by position, before and after

Documents are read as pretrain reads them: one that is longer than a row is cut, short ones share a row and do
not see each other. So only documents longer than the old window teach anything about the new positions;
windows.json counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from glasshouse.core.errors import ConfigError
from glasshouse.core.progress import say
from glasshouse.core.storage import write_json
from glasshouse.model.context import Scaling, extend_context, extended_config
from glasshouse.pipeline.stages.corpus import TRAIN, VALIDATION
from glasshouse.pipeline.stages.evaluate import as_json
from glasshouse.pipeline.stages.pretrain import PretrainStage, pretrain, write_shards

if TYPE_CHECKING:
    from glasshouse.data import Shards
    from glasshouse.model import ModelConfig, Transformer
    from glasshouse.tokenizer import Tokenizer

WINDOWS = "windows.json"

TOKENS = 500_000
"""The budget where neither tokens nor epochs are given. YaRN (arXiv:2309.00071) needs about a thousandth of
what pre-training read; small models have read so little that it is a larger part."""

BATCH_TOKENS = 8192


class ContextStage(PretrainStage):
    """The loop's settings with a fifth of pre-training's step sizes. `tokens: 0` trains nothing."""

    max_position_embeddings: int = Field(gt=1)
    """The new window, in tokens; any length above the old one."""
    scaling: Scaling | None = None
    """Of RoPE; None: the kind that the model has, else yarn. See `glasshouse.model.context`."""
    rope_theta: float | None = Field(None, gt=0)
    """A new base of RoPE's wavelengths; None: as it is."""
    tokens: int | None = Field(None, ge=0)
    position_tokens: int = Field(60_000, gt=0)
    """Tokens of long held-out documents that are scored by position, about."""
    muon_lr: float = Field(0.004, gt=0)
    embed_lr: float = Field(0.004, gt=0)
    head_lr: float = Field(0.0016, gt=0)
    scalar_lr: float = Field(0.002, gt=0)
    momentum_warmup_steps: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """Rows as long as the window, a batch that holds one, a budget."""
        if not isinstance(data, Mapping):
            return data
        window, defaults = data.get("max_position_embeddings"), {}
        if isinstance(window, int):
            rows = data.get("sequence_length", window)
            longest = rows if isinstance(rows, int) else window
            defaults = {"sequence_length": window, "batch_tokens": max(BATCH_TOKENS, longest)}
        if data.get("tokens") is None and data.get("epochs") is None:
            defaults["tokens"] = 0 if data.get("scaling") == "dynamic" else TOKENS
        return {**defaults, **{k: v for k, v in data.items() if k not in defaults or v is not None}}

    @model_validator(mode="after")
    def _rows_fit_the_window(self) -> Self:
        if self.sequence_length > self.max_position_embeddings:
            raise ValueError(
                f"sequence_length ({self.sequence_length}) is longer than the new window "
                f"({self.max_position_embeddings})"
            )
        return self

    def after(self, before: ModelConfig) -> ModelConfig:
        """The shape that a model gets. Raises ConfigError where it cannot be extended, or trained, so."""
        config = extended_config(before, self.max_position_embeddings, self.scaling, self.rope_theta)
        if config.context != config.max_position_embeddings and self.tokens != 0:
            raise ConfigError(
                "dynamic RoPE has other angles for every length beyond the old window, so it is not trained",
                fix="set tokens=0, or take another scaling",
            )
        return config


def context(
    config: ContextStage, before: Path, tokenizer: Tokenizer, corpus: Path, out: Path, shards_at: Path
) -> dict[str, Any]:
    """Extend the model folder `before`, train it on the corpus folder, measure what came of it.

    Returns the training loop's summary (where it trained) and both windows.
    """
    from glasshouse.model import load, save

    start = load(before)
    old = start.config.context
    longer = _extended(start, config)
    summary: dict[str, Any] = {}
    if config.tokens == 0:
        for part, name in (("train", TRAIN), ("validation", VALIDATION)):
            write_shards(corpus / name, part, tokenizer, shards_at / part)
        save(longer, tokenizer, out / "model")
        summary["parameters"] = longer.num_parameters()
    else:
        summary = pretrain(config, longer, tokenizer, corpus, out, shards_at=shards_at, title="context")
    windows = {"old": old, "new": config.max_position_embeddings}
    found = measure(config, before, out / "model", shards_at, old)
    write_json(out / WINDOWS, {**windows, **found})
    if config.tokens != 0 and not found["long_documents"]:
        say(f"notice: no document is longer than the old window of {old} tokens: nothing taught the new one")
    return {**summary, **windows}


def measure(config: ContextStage, before: Path, after: Path, shards_at: Path, old: int) -> dict[str, Any]:
    """How long the documents are, and bits per byte by position: of the model before, of the same one
    stretched but not trained, of the one trained, and of that one when it reads in old windows only.

    The last tells what the longer window is worth from what the training alone was worth.
    """
    from glasshouse.data import Shards
    from glasshouse.evaluation.windows import bits_per_byte_by_position, ranges
    from glasshouse.inference import LanguageModel

    train, held_out = Shards(shards_at / "train"), Shards(shards_at / "validation")
    new = config.max_position_embeddings
    pieces = long_pieces(held_out, old, new, config.position_tokens)
    parts = ranges(old, new)
    scored: dict[str, list[Any]] = {}
    if pieces:
        model = LanguageModel.load(before, device=config.device)
        scored["before"] = bits_per_byte_by_position(model, pieces, parts)
        if config.tokens != 0:
            stretched = LanguageModel(_extended(model.model, config), model.tokenizer)
            scored["stretched"] = bits_per_byte_by_position(stretched, pieces, parts)
        trained = LanguageModel.load(after, device=config.device)
        if config.tokens != 0:
            scored["after_in_old_windows"] = bits_per_byte_by_position(trained, pieces, parts, old)
        scored["after"] = bits_per_byte_by_position(trained, pieces, parts)
    rows = [
        {"from": first, "to": end}
        | as_json({name: found[i] for name, found in scored.items() if found[i] is not None})
        for i, (first, end) in enumerate(parts)
    ]
    lengths = np.diff(np.asarray(train.offsets, np.int64))
    beyond = np.minimum(lengths, new) - old
    return {
        "documents": len(train),
        "long_documents": int((beyond > 0).sum()),
        "pieces": len(pieces),
        "bits_per_byte": rows if pieces else [],
    }


def long_pieces(shards: Shards, old: int, new: int, limit: int) -> list[list[int]]:
    """Documents longer than `old`, in pieces of `new` tokens or what is left above `old`.

    About `limit` tokens, spread evenly over the shards; a document begins with its boundary token.
    """
    found = []
    for first, end in zip(shards.offsets[:-1].tolist(), shards.offsets[1:].tolist(), strict=True):
        for start in range(first, end, new):
            stop = min(start + new, end)
            if stop - start > old:
                found.append((start, stop))
    step = max(1, round(sum(stop - start for start, stop in found) / limit))
    return [shards.tokens[start:stop].tolist() for start, stop in found[::step]]


def _extended(model: Transformer, config: ContextStage) -> Transformer:
    return extend_context(model, config.max_position_embeddings, config.scaling, config.rope_theta)
