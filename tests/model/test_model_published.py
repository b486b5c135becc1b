"""Published models: from the config.json that their folders hold to the parameter count on their cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glasshouse.model import read_config

LLAMA_3_2 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def sizes(
    hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, context: int
) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "max_position_embeddings": context,
    }


# name -> (config.json as published, the keys that shape the model; parameters)
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "gpt2": (
        {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "n_ctx": 1024}
        | {"vocab_size": 50257, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05}
        | {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "summary_type": "cls_index"},
        124_439_808,
    ),
    "SmolLM2-135M": (
        {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 100000}
        | {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "rope_scaling": None}
        | sizes(576, 1536, 30, 9, 3, 49152, 8192),
        134_515_008,
    ),
    "TinyLlama-1.1B": (
        {"model_type": "llama", "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False}
        | sizes(2048, 5632, 22, 32, 4, 32000, 2048),
        1_100_048_384,
    ),
    "Llama-3.2-1B": (
        {"model_type": "llama", "head_dim": 64, "rope_theta": 500000.0, "rope_scaling": LLAMA_3_2}
        | {"tie_word_embeddings": True, "rms_norm_eps": 1e-05, "pretraining_tp": 1}
        | sizes(2048, 8192, 16, 32, 8, 128256, 131072),
        1_235_814_400,
    ),
    "Mistral-7B-v0.1": (
        {"model_type": "mistral", "sliding_window": 4096, "rope_theta": 10000.0, "rms_norm_eps": 1e-05}
        | sizes(4096, 14336, 32, 32, 8, 32000, 32768),
        7_241_732_096,
    ),
    "Qwen2.5-0.5B": (
        {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 24}
        | {"tie_word_embeddings": True, "rope_theta": 1000000.0, "use_mrope": False}
        | sizes(896, 4864, 24, 14, 2, 151936, 32768),
        494_032_768,
    ),
    "Qwen3-0.6B": (
        {"model_type": "qwen3", "head_dim": 128, "use_sliding_window": False, "sliding_window": None}
        | {"max_window_layers": 28, "tie_word_embeddings": True, "rope_theta": 1000000, "rope_scaling": None}
        | sizes(1024, 3072, 28, 16, 8, 151936, 40960),
        596_049_920,
    ),
    "Mixtral-8x7B-v0.1": (
        {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None}
        | {"rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "output_router_logits": False}
        | sizes(4096, 14336, 32, 32, 8, 32000, 32768),
        46_702_792_704,
    ),
    "Qwen3-30B-A3B": (
        {"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8, "head_dim": 128}
        | {"moe_intermediate_size": 768, "norm_topk_prob": True, "decoder_sparse_step": 1}
        | {"mlp_only_layers": [], "use_sliding_window": False, "tie_word_embeddings": False}
        | {"max_window_layers": 48, "rope_theta": 1000000.0, "sliding_window": None}
        | sizes(2048, 6144, 48, 32, 4, 151936, 40960),
        30_532_122_624,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_give_the_published_size(name: str, tmp_path: Path) -> None:
    """Every shape of the family is read as its authors meant it, to the last parameter."""
    config, parameters = PUBLISHED[name]
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["any"], "torch_dtype": "bfloat16"} | config)
    )
    assert read_config(tmp_path).num_parameters() == parameters


def test_what_a_token_passes_through_in_a_mixture() -> None:
    """Qwen3-30B-A3B is called A3B because a token meets 3.3 billion of its parameters."""
    config, _ = PUBLISHED["Qwen3-30B-A3B"]
    from glasshouse.model import ModelConfig

    known = {key: value for key, value in config.items() if key in ModelConfig.model_fields}
    shape = ModelConfig(**(known | {"max_window_layers": 0, "sliding_window": None}))
    attention = 12 * 48 * 32 * 128  # of one position in the closed form, not weights
    active = (shape.flops_per_token(1) - attention) / 6 + shape.vocab_size * shape.hidden_size
    assert 3.3e9 < active < 3.4e9
