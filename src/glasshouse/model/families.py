"""The model families that one set of blocks computes: what each leaves out, and what its config calls things.

A new family of the same kind is one more entry here, and one more list of tensor names in `layout.py`
where it does not share one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """How a family's decoder differs from the others, and from transformers' names for the same things."""

    architecture: str  # the class with which transformers opens the folder
    norm: Literal["rms", "layer"] = "rms"
    qk_norm: bool = False  # RMSNorm on each head's queries and keys
    rotary: bool = True  # RoPE on queries and keys; else vectors added to the embeddings
    gated: bool = True  # act(gate) * up, else act(up)
    qkv_bias: bool | None = None  # None: as the config's attention_bias says
    output_bias: bool | None = None
    mlp_bias: bool | None = False  # None: as the config's mlp_bias says
    experts: bool = False  # mixture of experts in its MLPs
    window: Literal["never", "always", "switched"] = "never"  # switched: only with use_sliding_window
    layerwise_window: bool = False  # only the layers from max_window_layers on slide
    keys: Mapping[str, str] = field(default_factory=dict)  # our key -> its key in config.json
    absent: Mapping[str, Any] = field(default_factory=dict)  # what transformers takes for an absent key
    fixed: Mapping[str, Any] = field(default_factory=dict)  # keys of config.json that we know one value of


_EXPERTS = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.001}

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        norm="layer",
        rotary=False,
        gated=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        keys={
            "hidden_size": "n_embd",
            "intermediate_size": "n_inner",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "hidden_act": "activation_function",
            "rms_norm_eps": "layer_norm_epsilon",
        },
        absent={
            "vocab_size": 50257,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_positions": 1024,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        fixed={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
    ),
    "llama": Family("LlamaForCausalLM", mlp_bias=None, absent={"max_position_embeddings": 2048}),
    "mistral": Family(
        "MistralForCausalLM",
        qkv_bias=False,
        output_bias=False,
        window="always",
        absent={"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        qkv_bias=True,
        output_bias=False,
        window="switched",
        layerwise_window=True,
        absent={"sliding_window": 4096, "max_window_layers": 28},
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        qk_norm=True,
        window="switched",
        layerwise_window=True,
        absent={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        qkv_bias=False,
        output_bias=False,
        experts=True,
        window="always",
        keys={"num_experts": "num_local_experts", "moe_intermediate_size": "intermediate_size"},
        absent={
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "rope_theta": 1_000_000.0,
            "rms_norm_eps": 1e-5,
            "num_local_experts": 8,
            **_EXPERTS,
        },
        fixed={"router_jitter_noise": 0.0},
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        qk_norm=True,
        experts=True,
        window="switched",
        absent={
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            **_EXPERTS,
            "num_experts_per_tok": 8,
        },
    ),
}
