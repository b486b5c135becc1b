"""The small models of plain bytes that the tests of this room train and sample from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from glasshouse.model import Transformer


@pytest.fixture(scope="session")
def small_model() -> Callable[..., Transformer]:
    """small_model(noise=0.1, seed=0, num_hidden_layers=1, ...): two layers over the tokens of plain bytes.

    A new head is zero, and new blocks are silent: whatever stands before, the model says the same. `noise`
    is the standard deviation of what is added to every weight, so that it does not.
    """
    import torch

    from glasshouse.model import ModelConfig, initialise

    shape = {
        "vocab_size": 265,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
    }

    def make(noise: float = 0.0, seed: int = 0, **changes: Any) -> Transformer:
        model = initialise(ModelConfig.parse(shape | changes), seed)
        generator = torch.Generator().manual_seed(seed + 1)
        for parameter in model.parameters():
            parameter.data += noise * torch.randn(parameter.shape, generator=generator)
        return model

    return make


@pytest.fixture(scope="module")
def small_folder(
    small_model: Callable[..., Transformer], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """small_folder(noise=0.1, ...): the same, saved with the tokenizer of plain bytes."""
    from glasshouse.model import save
    from glasshouse.tokenizer import Tokenizer

    def make(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("small") / "model"
        save(small_model(**changes), Tokenizer.train([], 265), folder)
        return folder

    return make
