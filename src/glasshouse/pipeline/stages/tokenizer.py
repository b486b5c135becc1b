"""tokenizer: byte-level BPE trained on the corpus; leaves standard Hugging Face tokenizer files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.seeds import python_rng
from glasshouse.core.storage import read_json
from glasshouse.pipeline.documents import read_rows
from glasshouse.pipeline.stages.corpus import STATISTICS, TRAIN


class TokenizerConfig(Config):
    vocab_size: int = Field(2048, ge=265, le=200_000)
    """Tokens in all: 9 special ones, the 256 bytes, and merges. 265 means plain bytes."""
    train_bytes: int = Field(32_000_000, ge=1)
    """Merges are learnt on about so much text, documents drawn evenly over the corpus."""


def tokenizer(config: TokenizerConfig, corpus: Path, out: Path, seed: int) -> dict[str, Any]:
    """Train on the corpus folder's training part; `out` then opens with transformers' AutoTokenizer."""
    from glasshouse.tokenizer import Tokenizer

    trained = Tokenizer.train(sample(config, corpus, seed), config.vocab_size)
    trained.save(out)
    return {"vocab_size": trained.vocab_size}


def sample(config: TokenizerConfig, corpus: Path, seed: int) -> Iterator[str]:
    """Texts of the training part, each kept with the same chance, so that about `train_bytes` remain."""
    share = config.train_bytes / read_json(corpus / STATISTICS)["train"]["bytes"]
    rng = python_rng(seed, "tokenizer sample")
    for row in read_rows(corpus / TRAIN):
        if share >= 1 or rng.random() < share:
            yield row["text"]
