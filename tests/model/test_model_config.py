"""The shape of a decoder: refused contradictions, counts of parameters and operations."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glasshouse.core.errors import ConfigError
from glasshouse.model import ModelConfig, Transformer

SHAPES = [
    {},
    {"tie_word_embeddings": False},
    {"attention_bias": True, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_parameter_count_is_the_models(shape: dict) -> None:
    """The formula equals the number of parameters that the model really holds; a tied head counts once."""
    config = ModelConfig(vocab_size=97, **shape)
    model = Transformer(config)
    assert config.num_parameters() == model.num_parameters()
    tables = [p for name, p in model.named_parameters() if "embed" in name or "lm_head" in name]
    assert config.num_parameters(embedding=False) == model.num_parameters() - sum(p.numel() for p in tables)


def test_flops_equal_pytorchs_counter() -> None:
    """Operations per token, forward and backward, are what PyTorch counts for dense attention."""
    config = ModelConfig(vocab_size=160, num_hidden_layers=3, head_dim=48)
    model, seq = Transformer(config), 64
    ids = torch.zeros(2, seq, dtype=torch.int64)
    segments = torch.zeros(2, seq, dtype=torch.int64)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.head(model.hidden(ids, segments=segments))
    per_token = forward.get_total_flops() / ids.numel()
    assert config.flops_per_token(seq) == 3 * per_token  # backward is twice the forward pass


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "multiple"),
        ({"head_dim": 7}, "even"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_sise": 64}, "hidden_size"),
        ({"model_type": "gpt5"}, "model_type"),
    ],
)
def test_contradictions_are_refused(settings: dict, word: str) -> None:
    """A shape that cannot be built is a ConfigError naming the key, also a misspelled one."""
    with pytest.raises(ConfigError, match=word):
        ModelConfig.parse({"vocab_size": 10} | settings)
