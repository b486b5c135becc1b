"""The shape of a decoder, in Hugging Face's own key names.

`ModelConfig` is what a recipe's `model:` block and a folder's `config.json` both turn into. Only
keys that change the computed function are here; how a model is trained is not its shape.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from glasshouse.core.config import Config
from glasshouse.model.families import FAMILIES, Family


class RopeScaling(Config):
    """How rotary frequencies are stretched for contexts longer than the trained one; see `rope.py`."""

    rope_type: Literal["linear", "dynamic", "yarn", "llama3"]
    factor: float = Field(ge=1)  # the new context, in old ones
    original_max_position_embeddings: int | None = Field(None, ge=1)  # the trained context
    attention_factor: float | None = Field(None, gt=0)  # yarn: scale of queries and keys; default by factor
    beta_fast: float = Field(32.0, gt=0)  # yarn: turns in the old context from which nothing is stretched
    beta_slow: float = Field(1.0, gt=0)  # yarn: turns below which everything is
    mscale: float | None = None  # yarn, as DeepSeek writes the attention factor
    mscale_all_dim: float | None = None
    truncate: bool = True  # yarn: whole channels at both ends of the ramp
    low_freq_factor: float = Field(1.0, gt=0)  # llama3: beta_slow by another name
    high_freq_factor: float = Field(4.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.rope_type in ("yarn", "llama3") and self.original_max_position_embeddings is None:
            raise ValueError(f"{self.rope_type} needs original_max_position_embeddings, the trained context")
        if self.rope_type == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must be above low_freq_factor")
        return self


class ModelConfig(Config):
    """Sizes and constants of one decoder-only transformer (Qwen3-shaped by default)."""

    model_type: Literal["gpt2", "llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe"] = "qwen3"
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(128, ge=1)  # width of the residual stream
    intermediate_size: int = Field(384, ge=1)  # width inside the MLP
    num_hidden_layers: int = Field(4, ge=1)
    num_attention_heads: int = Field(4, ge=1)  # query heads
    num_key_value_heads: int = Field(2, ge=1)  # divides the query heads
    head_dim: int = Field(32, ge=1)  # even where RoPE turns pairs; need not be hidden/heads
    hidden_act: Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "silu"
    rms_norm_eps: float = Field(1e-6, gt=0)  # of RMSNorm, or of LayerNorm in a family that has it
    positions: Literal["rope", "learned", "sinusoidal", "none"] = "rope"
    rope_theta: float = Field(10_000.0, gt=0)  # base of the rotary wavelengths
    rope_scaling: RopeScaling | None = None
    max_position_embeddings: int = Field(512, ge=1)  # longest context, in tokens
    sliding_window: int | None = Field(None, ge=1)  # tokens that a token sees, itself among them
    max_window_layers: int = Field(0, ge=0)  # the layers before this one see everything
    tie_word_embeddings: bool = False  # whether the head is the embedding matrix
    attention_bias: bool = False  # biases on q, k, v and o, where the family leaves the choice
    mlp_bias: bool = False  # biases in the MLP, where the family leaves the choice
    num_experts: int = Field(0, ge=0)  # 0: every MLP is dense
    num_experts_per_tok: int = Field(2, ge=1)
    moe_intermediate_size: int = Field(0, ge=0)  # width inside one expert
    norm_topk_prob: bool = True  # whether the chosen experts' weights are scaled to add up to 1
    decoder_sparse_step: int = Field(1, ge=1)  # every how many layers has experts
    mlp_only_layers: tuple[int, ...] = ()  # layers with a dense MLP all the same
    router_aux_loss_coef: float = Field(0.001, ge=0)  # weight of the load-balancing loss in training
    router_z_loss_coef: float = Field(0.0, ge=0)  # weight of the router z-loss in training
    initializer_range: float = Field(0.02, gt=0)  # spread of a new tied embedding; see init.py

    @model_validator(mode="before")
    @classmethod
    def _family_defaults(cls, data: Any) -> Any:
        """What a family fixes need not be said: GPT-2's positions, Mixtral's experts."""
        family = FAMILIES.get(data.get("model_type", "qwen3")) if isinstance(data, dict) else None
        if family is None:
            return data
        defaults: dict[str, Any] = {}
        if not family.rotary:
            heads = data.get("num_attention_heads", 4)
            defaults = {"positions": "learned", "num_key_value_heads": heads, "hidden_act": "gelu_new"}
        if family.experts:
            defaults["num_experts"] = 8
            defaults["moe_intermediate_size"] = data.get("intermediate_size", 384)
        return {**defaults, **data}

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.family.rotary and self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: RoPE rotates pairs of channels")
        if self.num_experts and self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok is {self.num_experts_per_tok}, with {self.num_experts} experts in all"
            )
        if self.num_experts and not self.moe_intermediate_size:
            raise ValueError("moe_intermediate_size, the width inside one expert, is missing")
        return self

    @model_validator(mode="after")
    def _family_can(self) -> Self:
        """Refuse what no folder of this family could say: nothing may differ silently after a save."""
        family, kind = self.family, self.model_type
        if family.rotary != (self.positions == "rope"):
            fits = "rope" if family.rotary else "learned, sinusoidal or none"
            raise ValueError(f"positions of {kind} are {fits}, not {self.positions}")
        if not family.rotary and (self.rope_scaling or self.num_key_value_heads != self.num_attention_heads):
            raise ValueError(f"{kind} has neither RoPE scaling nor grouped queries")
        if not family.rotary and self.head_dim * self.num_attention_heads != self.hidden_size:
            raise ValueError(
                f"{kind} has heads of hidden_size / num_attention_heads, not head_dim {self.head_dim}"
            )
        if bool(self.num_experts) != family.experts:
            raise ValueError(f"{kind} has {'a mixture of experts' if family.experts else 'no experts'}")
        if self.sliding_window is not None and family.window == "never":
            raise ValueError(f"{kind} has no sliding window")
        if self.max_window_layers and self.sliding_window and not family.layerwise_window:
            raise ValueError(f"every layer of {kind} slides, so max_window_layers must be 0")
        if self.attention_bias and family.qkv_bias is not None:
            raise ValueError(f"attention_bias is fixed for {kind}")
        if self.mlp_bias and family.mlp_bias is not None:
            raise ValueError(f"mlp_bias is fixed for {kind}")
        if kind == "mixtral" and (
            self.moe_intermediate_size != self.intermediate_size
            or not self.norm_topk_prob
            or self.decoder_sparse_step != 1
            or self.mlp_only_layers
        ):
            raise ValueError(
                "every layer of mixtral has experts of intermediate_size, weighted to add up to 1"
            )
        return self

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def context(self) -> int:
        """The longest row, in tokens: dynamic RoPE goes on beyond the trained context."""
        if self.rope_scaling is not None and self.rope_scaling.rope_type == "dynamic":
            return int(self.max_position_embeddings * self.rope_scaling.factor)
        return self.max_position_embeddings

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias if self.family.qkv_bias is None else self.family.qkv_bias

    @property
    def output_bias(self) -> bool:
        return self.attention_bias if self.family.output_bias is None else self.family.output_bias

    @property
    def has_mlp_bias(self) -> bool:
        return self.mlp_bias if self.family.mlp_bias is None else self.family.mlp_bias

    def window(self, layer: int) -> int | None:
        """How many tokens a token of this layer sees, itself among them; None: all before it."""
        return self.sliding_window if layer >= self.max_window_layers else None

    def has_experts(self, layer: int) -> bool:
        """Whether the layer's MLP is a mixture of experts."""
        return (
            self.num_experts > 0
            and layer not in self.mlp_only_layers
            and (layer + 1) % self.decoder_sparse_step == 0
        )

    def num_parameters(self, *, embedding: bool = True) -> int:
        """Count of trained numbers; with `embedding=False` without the tables of tokens and positions."""
        d, queries = self.hidden_size, self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        norm = 2 * d if self.family.norm == "layer" else d
        attention = d * (queries + 2 * keys) + queries * d
        attention += (queries + 2 * keys) * self.qkv_bias + d * self.output_bias
        attention += 2 * self.head_dim * self.family.qk_norm
        blocks = sum(attention + 2 * norm + self._mlp(i) for i in range(self.num_hidden_layers))
        tables = self.vocab_size * d * (1 if self.tie_word_embeddings else 2)
        tables += self.max_position_embeddings * d * (self.positions == "learned")
        return blocks + norm + (tables if embedding else 0)

    def _mlp(self, layer: int) -> int:
        """Trained numbers of one layer's MLP, router and all experts included."""
        d = self.hidden_size
        if self.has_experts(layer):
            return self.num_experts * (3 * d * self.moe_intermediate_size + d)
        width, maps = self.intermediate_size, 3 if self.family.gated else 2
        return maps * d * width + self.has_mlp_bias * ((maps - 1) * width + d)

    def flops_per_token(self, sequence_length: int) -> int:
        """Floating-point operations of forward and backward, per trained token.

        PaLM, appendix B (arXiv:2204.02311): 6 for every weight of a matrix product that a token passes
        through, plus 12 · layers · query width · sequence length for the attention scores and their
        weighted sum (not halved for causality, not reduced by document masks). The head's product
        counts, the embedding's lookup does not; of the experts those count that a token is sent to.
        """
        d, queries = self.hidden_size, self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        weights = self.num_hidden_layers * (d * (queries + 2 * keys) + queries * d) + self.vocab_size * d
        for layer in range(self.num_hidden_layers):
            if self.has_experts(layer):
                active = self.num_experts_per_tok * 3 * self.moe_intermediate_size
                weights += d * (active + self.num_experts)
            else:
                weights += d * self.intermediate_size * (3 if self.family.gated else 2)
        return 6 * weights + 12 * self.num_hidden_layers * queries * sequence_length
