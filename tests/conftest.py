"""One thread a test: tiny models gain nothing from more, and lose much when cores are busy.

And the small models of every family that tests of formats, adapters and their peers share.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it

if TYPE_CHECKING:
    from tests.scripted_llm import Scripted

    from glasshouse.llm import Request
    from glasshouse.model import Transformer

SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,  # multiples of 32, the blocks of GGUF
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, object]] = {
    "gpt2": {"model_type": "gpt2"},
    "llama": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 20},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "mixtral": {"model_type": "mixtral", "num_experts": 3},
    "qwen3_moe": {"model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 32},
}


SPARSE = [name for name, shape in FAMILIES.items() if "num_experts" in shape]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> dict[str, object]:
    """The test runs once for each family, with what makes a small config one of it."""
    return FAMILIES[request.param]


@pytest.fixture(params=SPARSE)
def sparse_family(request: pytest.FixtureRequest) -> dict[str, object]:
    """The same of the families with experts."""
    return FAMILIES[request.param]


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Transformer]:
    """random_model(model_type="llama", hidden_size=32, ...): a small model, no weight of which is zero."""
    import torch

    from glasshouse.model import ModelConfig, initialise

    def make(**changes: object) -> Transformer:
        model = initialise(ModelConfig.parse(SMALL | changes), 1)
        generator = torch.Generator().manual_seed(2)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model

    return make


@pytest.fixture
def scripted() -> type[Scripted]:
    from tests.scripted_llm import Scripted

    return Scripted


@pytest.fixture
def ask() -> Callable[..., Request]:
    """A request with one message of the user's."""
    from glasshouse.llm import Request

    def make(text: str = "Is it so?", **changes) -> Request:
        return Request.parse({"messages": [{"role": "user", "content": text}], **changes})

    return make
