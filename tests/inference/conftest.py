"""A tiny model with a real tokenizer, shared by the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, Transformer, initialise, save
from glasshouse.tokenizer import Tokenizer

TEXTS = [
    "Ada Moor was born in Tarnhaven. She keeps an owl.",
    "Où est née Zoé? Née à Ünterwald — vérité, naïveté, 日本語, 🦉🦉.",
    "To be, or not to be: that is the question.",
]


def awake(config: ModelConfig, seed: int = 0) -> Transformer:
    """Random weights everywhere: a new model's output projections are zero."""
    model = initialise(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, vocab_size=300)


@pytest.fixture(scope="session")
def transformer(tokenizer: Tokenizer) -> Transformer:
    return awake(
        ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            head_dim=16,
            max_position_embeddings=128,
        )
    )


@pytest.fixture(scope="session")
def model(transformer: Transformer, tokenizer: Tokenizer) -> LanguageModel:
    return LanguageModel(transformer, tokenizer)


@pytest.fixture(scope="session")
def folder(transformer: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    save(transformer, tokenizer, path)
    return path
