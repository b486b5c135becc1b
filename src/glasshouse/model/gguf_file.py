"""GGUF, the single file of llama.cpp: weights, tokenizer and chat template, written by the `gguf` library.

A file is written only where llama.cpp computes the same as we do. What it lacks is folded away exactly
(a sliding window by a shorter context, Llama 3's frequencies as factors) or refused with a reason.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from glasshouse.core.errors import ModelError
from glasshouse.core.storage import replaced
from glasshouse.model.config import ModelConfig
from glasshouse.model.hf_folder import file_tensors
from glasshouse.model.lora import adapter_names
from glasshouse.model.quantize import quantization
from glasshouse.model.rope import frequencies
from glasshouse.model.transformer import Transformer
from glasshouse.tokenizer.byte_alphabet import to_characters
from glasshouse.tokenizer.merges import merge_pairs
from glasshouse.tokenizer.split_pattern import GPT2, LLAMA3, QWEN2

if TYPE_CHECKING:
    import gguf

    from glasshouse.tokenizer import Tokenizer

Precision = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

_ARCHITECTURES = {
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
}
SPLITTERS = {QWEN2: "qwen2", LLAMA3: "llama-bpe", GPT2: "gpt-2"}
"""Split pattern -> llama.cpp's name for it: it knows patterns by name only."""

_BLOCK = 32  # weights of a row that share a scale in Q8_0 and Q4_0


def save_gguf(
    model: Transformer, tokenizer: Tokenizer, path: str | Path, precision: Precision = "F16"
) -> None:
    """Write `path`. Norms and biases stay F32, as llama.cpp wants them.

    Raises ModelError where llama.cpp would compute something else, or has no name for the tokenizer.
    """
    import gguf

    config = model.config
    if quantization(model) is not None or adapter_names(model):
        raise ModelError(
            "the model is quantized or carries adapters", fix="export the full-precision, merged model"
        )
    _check(config, tokenizer, precision)
    with replaced(path) as temporary:
        writer = gguf.GGUFWriter(temporary, _ARCHITECTURES[config.model_type])
        _write_shape(writer, config)
        _write_tokenizer(writer, tokenizer, config.vocab_size)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[precision]])
        for name, tensor in _tensors(model):
            data, kind = _encode(tensor, precision if tensor.ndim > 1 and _is_product(name) else "F32")
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


_FILE_TYPES = {
    "F32": "ALL_F32",
    "F16": "MOSTLY_F16",
    "BF16": "MOSTLY_BF16",
    "Q8_0": "MOSTLY_Q8_0",
    "Q4_0": "MOSTLY_Q4_0",
}


def _is_product(name: str) -> bool:
    """Matrices that llama.cpp multiplies by; positions and routers are small and stay exact."""
    return "position_embd" not in name and "ffn_gate_inp" not in name


def _check(config: ModelConfig, tokenizer: Tokenizer, precision: str) -> None:
    """Raise for everything that llama.cpp would compute differently."""
    kind, scaling = config.model_type, config.rope_scaling
    if precision not in PRECISIONS:
        raise ModelError(f"no precision is called {precision!r}", fix=f"use one of: {', '.join(PRECISIONS)}")
    problems = []
    if kind == "gpt2" and config.hidden_act not in ("gelu_new", "gelu_pytorch_tanh"):
        problems.append(f"GPT-2 with {config.hidden_act}")
    if kind != "gpt2" and config.hidden_act != "silu":
        problems.append(f"{kind} with {config.hidden_act}")
    if kind in ("qwen3", "qwen3_moe") and config.attention_bias:
        problems.append(f"{kind} with biases in attention")
    if kind == "qwen3_moe" and not config.norm_topk_prob:
        problems.append("experts' weights that do not add up to 1")
    if kind == "qwen3_moe" and not all(config.has_experts(i) for i in range(config.num_hidden_layers)):
        problems.append("a mixture of experts in some layers only")
    if scaling is not None and (scaling.attention_factor or scaling.mscale or not scaling.truncate):
        problems.append("YaRN with its own attention factor, mscale or truncate")
    if scaling is not None and scaling.rope_type == "llama3" and not _has_factors(config):
        problems.append(f"{kind} with Llama 3's RoPE scaling")
    if problems:
        raise ModelError(f"llama.cpp has no {problems[0]}", fix="export with --to hf instead")
    if tokenizer.pattern not in SPLITTERS or tokenizer.normalization or tokenizer.added:
        raise ModelError(
            "llama.cpp has no name for the way this tokenizer splits text", fix="export with --to hf instead"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}")


def _has_factors(config: ModelConfig) -> bool:
    return _ARCHITECTURES[config.model_type] == "llama"


def _write_shape(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    from gguf import RopeScalingType

    writer.add_context_length(_context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.rms_norm_eps)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if config.num_experts:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    scaling = config.rope_scaling
    if scaling is not None and scaling.rope_type in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(scaling.rope_type))
        writer.add_rope_scaling_factor(scaling.factor)
        if scaling.rope_type == "yarn":
            assert scaling.original_max_position_embeddings is not None
            writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
            writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
            writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)


def _context(config: ModelConfig) -> int:
    """The longest context in which llama.cpp, without window and dynamic RoPE, computes what we do."""
    return min(config.max_position_embeddings, config.sliding_window or config.max_position_embeddings)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    from gguf import TokenType

    names = {token_id: name for name, token_id in tokenizer.special.items()}
    tokens = [names.get(i) or to_characters(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)]
    kinds = [TokenType.CONTROL if i in names else TokenType.NORMAL for i in range(tokenizer.vocab_size)]
    for i in range(tokenizer.vocab_size, vocab_size):  # rows of the embedding that no token uses
        tokens.append(f"[unused{i}]")
        kinds.append(TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    assert tokenizer.pattern is not None  # _check
    writer.add_tokenizer_pre(SPLITTERS[tokenizer.pattern])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    pairs = [f"{to_characters(a)} {to_characters(b)}" for a, b in merge_pairs(tokenizer.ranks)]
    writer.add_token_merges(pairs)
    writer.add_add_bos_token(False)  # the chat template and the caller say where a text begins
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.end_of_turn_id)
    writer.add_eot_token_id(tokenizer.end_of_turn_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: Transformer) -> list[tuple[str, Tensor]]:
    """Every tensor under llama.cpp's name and in its layout; a layer's experts are stacked."""
    config = model.config
    found: dict[str, Tensor] = {}
    experts: dict[str, list[Tensor]] = {}
    for name, tensor in file_tensors(model).items():
        theirs, expert = their_name(config, name)
        if expert is not None:
            experts.setdefault(theirs, []).append(tensor)
            continue
        turned = tensor.T if config.model_type == "gpt2" and tensor.ndim == 2 and ".h." in name else tensor
        found[theirs] = pairs_apart(config, name, turned)
    found |= {name: torch.stack(parts) for name, parts in experts.items()}
    if config.rope_scaling is not None and config.rope_scaling.rope_type == "llama3":
        plain = config.model_copy(update={"rope_scaling": None})
        found["rope_freqs.weight"] = frequencies(plain, 1)[0] / frequencies(config, 1)[0]
    return list(found.items())


def their_name(config: ModelConfig, name: str) -> tuple[str, int | None]:
    """llama.cpp's name for a tensor of the Hugging Face file, and which expert of a stack it is."""
    base, _, kind = name.rpartition(".")
    before, is_expert, after = base.partition(".experts.")
    number, _, part = after.partition(".")
    theirs = _name_map(config.model_type, config.num_hidden_layers).get_name(
        f"{before}.experts.{part}" if is_expert else base
    )
    if theirs is None:
        raise ModelError(f"llama.cpp has no tensor for '{name}'", fix="use the Hugging Face folder instead")
    return f"{theirs}.{kind}", int(number) if is_expert else None


@lru_cache
def _name_map(kind: str, layers: int) -> gguf.TensorNameMap:
    import gguf

    wanted = _ARCHITECTURES[kind]
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == wanted)
    return gguf.get_tensor_name_map(architecture, layers)


def pairs_apart(config: ModelConfig, name: str, tensor: Tensor, *, inverse: bool = False) -> Tensor:
    """Llama's queries and keys with the two channels that RoPE turns together side by side.

    We keep a head's first and second halves; `inverse` brings them back. Other tensors stay.
    """
    base = name.rpartition(".")[0]
    if not _has_factors(config) or not base.endswith(("q_proj", "k_proj")):
        return tensor
    halves = (config.head_dim // 2, 2) if inverse else (2, config.head_dim // 2)
    return tensor.reshape(-1, *halves, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _encode(tensor: Tensor, precision: str) -> tuple[np.ndarray, Any]:
    """The bytes of a tensor; a row that does not fill whole blocks of 32 stays F16."""
    from gguf import GGMLQuantizationType, quants

    if precision.startswith("Q") and tensor.shape[-1] % _BLOCK:
        precision = "F16"
    kind = GGMLQuantizationType[precision]
    return quants.quantize(np.ascontiguousarray(tensor.float().numpy()), kind), kind
