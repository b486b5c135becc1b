"""The shape of a decoder, in Hugging Face's own key names.

`ModelConfig` is what a recipe's `model:` block and a folder's `config.json` both turn into. Only
keys that change the computed function are here; how a model is trained is not its shape.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from glasshouse.core.config import Config


class ModelConfig(Config):
    """Sizes and constants of one decoder-only transformer (Qwen3-shaped by default)."""

    model_type: Literal["qwen3"] = "qwen3"
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(128, ge=1)  # width of the residual stream
    intermediate_size: int = Field(384, ge=1)  # width inside the SwiGLU
    num_hidden_layers: int = Field(4, ge=1)
    num_attention_heads: int = Field(4, ge=1)  # query heads
    num_key_value_heads: int = Field(2, ge=1)  # divides the query heads
    head_dim: int = Field(32, ge=2)  # even, because RoPE turns pairs; need not be hidden/heads
    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(10_000.0, gt=0)  # base of the rotary wavelengths
    max_position_embeddings: int = Field(512, ge=1)  # longest context, in tokens
    tie_word_embeddings: bool = False  # whether the head is the embedding matrix
    attention_bias: bool = False  # biases on q, k, v and o
    initializer_range: float = Field(0.02, gt=0)  # spread of a new tied embedding; see init.py

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: RoPE rotates pairs of channels")
        return self

    def num_parameters(self, *, embedding: bool = True) -> int:
        """Count of trained numbers; with `embedding=False` without the token embedding and head."""
        d, queries = self.hidden_size, self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        attention = d * (queries + 2 * keys) + queries * d + 2 * self.head_dim
        if self.attention_bias:
            attention += queries + 2 * keys + d
        block = attention + 3 * d * self.intermediate_size + 2 * d
        tables = self.vocab_size * d * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * block + d + (tables if embedding else 0)

    def flops_per_token(self, sequence_length: int) -> int:
        """Floating-point operations of forward and backward, per trained token.

        PaLM, appendix B (arXiv:2204.02311): 6 for every weight of a matrix product, plus
        12 · layers · query width · sequence length for the attention scores and their weighted sum
        (not halved for causality, not reduced by document masks). The head's product counts, the
        embedding's lookup does not.
        """
        d, queries = self.hidden_size, self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        block = d * (queries + 2 * keys) + queries * d + 3 * d * self.intermediate_size
        weights = self.num_hidden_layers * block + self.vocab_size * d
        return 6 * weights + 12 * self.num_hidden_layers * queries * sequence_length
