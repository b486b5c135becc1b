"""A tiny model, corpus and settings that the tests of this room share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glasshouse.data import PackedBatches, Shards, ShardWriter
from glasshouse.model import ModelConfig, Transformer, initialise, save
from glasshouse.training import NextToken, TrainingConfig, train


class Tiny:
    vocab, row, rows = 64, 16, 4

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, seed: int = 0, **shape: Any) -> Transformer:
        settings = {
            "vocab_size": self.vocab,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 64,
        }
        return initialise(ModelConfig.parse(settings | shape), seed)

    def corpus(self, name: str = "shards", documents: int = 60, seed: int = 0) -> Shards:
        """Documents that count upwards from a random start, so that there is something to learn."""
        if not (self.folder / name).exists():
            rng = np.random.default_rng(seed)
            with ShardWriter(self.folder / name, self.vocab, end_of_text=0) as writer:
                for _ in range(documents):
                    start, length = rng.integers(1, self.vocab), rng.integers(3, 25)
                    writer.add((1 + (start + np.arange(length)) % (self.vocab - 1)).tolist())
        return Shards(self.folder / name)

    def objective(self, shards: Shards | None = None, seed: int = 0) -> NextToken:
        return NextToken(PackedBatches(shards or self.corpus(), self.row, self.rows, seed))

    def config(self, **settings: Any) -> TrainingConfig:
        base = {
            "batch_tokens": self.row * self.rows,
            "sequence_length": self.row,
            "dtype": "float32",
            "compile": "off",
            "device": "cpu",
            "log_every": 1,
        }
        if "epochs" not in settings:
            base["tokens"] = 12 * self.row * self.rows
        return TrainingConfig.parse(base | settings)

    def train(
        self,
        out: str = "out",
        model: Transformer | None = None,
        objective: Any = None,
        evaluate: Any = None,
        **settings: Any,
    ) -> dict[str, Any]:
        return train(
            model or self.model(),
            objective or self.objective(),
            self.config(**settings),
            self.folder / out,
            evaluate=evaluate,
            save_model=lambda trained, folder: save(trained, None, folder),
        )


@pytest.fixture
def tiny(tmp_path):
    return Tiny(tmp_path)
