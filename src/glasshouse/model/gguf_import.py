"""A GGUF file as a model: the shape from its settings, the weights back in our layout.

What `gguf_file.save_gguf` writes comes back equal, and so do files of other programs for the same
families; anything that would be computed differently is refused with its name.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glasshouse.core.errors import ConfigError, ModelError
from glasshouse.model.config import ModelConfig
from glasshouse.model.gguf_file import SPLITTERS, pairs_apart, their_name
from glasshouse.model.gguf_reader import GGUFFile
from glasshouse.model.layout import layout
from glasshouse.model.rope import frequencies
from glasshouse.model.transformer import Transformer
from glasshouse.tokenizer import Tokenizer
from glasshouse.tokenizer.byte_alphabet import to_bytes

_FAMILIES = {"gpt2": "gpt2", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe"}
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # of tokenizer.ggml.token_type


def load_gguf(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Transformer, Tokenizer]:
    """The model, with its weights unpacked to `dtype`, and its tokenizer.

    Raises ModelError for a damaged file, another architecture, and a tokenizer of another kind.
    """
    path = Path(path)
    file = GGUFFile(path)
    config = _read_config(file)
    tokenizer = _read_tokenizer(file)
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}", where=path
        )
    model = Transformer.empty(config, device, dtype)
    _read_weights(file, model)
    return model, tokenizer


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1e30


def _read_config(file: GGUFFile) -> ModelConfig:
    architecture = file.settings.get("general.architecture")
    if architecture not in _FAMILIES:
        raise ModelError(
            f"architecture {architecture!r} is not supported",
            where=file.path,
            fix=f"use one of: {', '.join(_FAMILIES)}",
        )

    def number(key: str, default: int | None = None) -> int:
        return file.get(f"{architecture}.{key}", _whole, default)

    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(
            "tensor 'token_embd.weight' is missing", where=file.path, fix="export the file again"
        )
    heads, hidden = number("attention.head_count"), number("embedding_length")
    settings: dict[str, Any] = {
        "model_type": _FAMILIES[architecture],
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": number("attention.key_length", max(1, hidden // heads)),
        "max_position_embeddings": number("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    norm = "layer_norm_epsilon" if architecture == "gpt2" else "layer_norm_rms_epsilon"
    settings["rms_norm_eps"] = file.get(f"{architecture}.attention.{norm}", _positive)
    if architecture != "gpt2":
        settings["rope_theta"] = file.get(f"{architecture}.rope.freq_base", _positive, 10_000.0)
        settings["rope_scaling"] = _scaling(file, architecture, settings)
    if f"{architecture}.expert_count" in file.settings:
        settings |= {
            "num_experts": number("expert_count"),
            "num_experts_per_tok": number("expert_used_count"),
        }
        settings["moe_intermediate_size"] = number(
            "expert_feed_forward_length", settings["intermediate_size"]
        )
        if architecture == "llama":
            settings["model_type"] = "mixtral"
    if architecture == "llama" and "num_experts" not in settings:
        settings["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        settings["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    try:
        return ModelConfig.parse(settings, source=str(file.path))
    except ConfigError as error:
        raise ModelError(error.what, where=file.path, fix="use another export of the model") from None


def _scaling(file: GGUFFile, architecture: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    prefix = f"{architecture}.rope.scaling"
    kind = file.settings.get(f"{prefix}.type", "none")
    if "rope_freqs.weight" in file.tensors:
        return _llama3(file, settings)
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise ModelError(f"RoPE scaling {kind!r} is not supported", where=file.path, fix="use linear or yarn")
    scaling: dict[str, Any] = {"rope_type": kind, "factor": file.get(f"{prefix}.factor", _positive)}
    if kind == "yarn":
        for ours, theirs in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
            if f"{prefix}.{theirs}" in file.settings:
                scaling[ours] = file.get(f"{prefix}.{theirs}", _positive)
        scaling["original_max_position_embeddings"] = file.get(f"{prefix}.original_context_length", _whole)
    return scaling


def _llama3(file: GGUFFile, settings: dict[str, Any]) -> dict[str, Any]:
    """Llama 3's scaling, which the file holds as factors only: found again from its published constants."""
    factors = torch.from_numpy(file.array(file.tensors["rope_freqs.weight"]))
    for trained in (8192, *(2**power for power in range(4, 18))):
        scaling = {
            "rope_type": "llama3",
            "factor": round(float(factors.max()), 4),
            "original_max_position_embeddings": trained,
        }
        known = ("vocab_size", "head_dim", "rope_theta", "max_position_embeddings")
        shape = {key: settings[key] for key in known} | {"num_attention_heads": 1, "num_key_value_heads": 1}
        try:
            plain = ModelConfig.model_validate(shape)
            scaled = ModelConfig.model_validate(shape | {"rope_scaling": scaling})
        except ValueError:
            break
        expected = frequencies(plain, 1)[0] / frequencies(scaled, 1)[0]
        if expected.shape == factors.shape and torch.allclose(expected, factors, rtol=1e-4):
            return scaling
    raise ModelError(
        "its RoPE factors are of no scaling we know", where=file.path, fix="use the original folder"
    )


def _read_tokenizer(file: GGUFFile) -> Tokenizer:
    kind, pre = (file.settings.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    pattern = {name: pattern for pattern, name in SPLITTERS.items()}.get(pre or "")
    if kind != "gpt2" or pattern is None:
        raise ModelError(
            f"a tokenizer of kind {kind!r}, {pre!r} is not supported",
            where=file.path,
            fix="use the model's Hugging Face folder",
        )
    tokens = file.get(
        "tokenizer.ggml.tokens", lambda v: isinstance(v, list) and all(isinstance(t, str) for t in v)
    )
    kinds = file.get(
        "tokenizer.ggml.token_type",
        lambda v: isinstance(v, list) and len(v) == len(tokens) and all(isinstance(t, int) for t in v),
        [1] * len(tokens),
    )
    used = next((i for i in range(len(tokens), 0, -1) if kinds[i - 1] != _UNUSED), 0)
    special = {tokens[i]: i for i in range(used) if kinds[i] == _CONTROL}
    added = {tokens[i]: i for i in range(used) if kinds[i] == _USER_DEFINED}
    try:
        stored = [
            token.encode() if token in special or token in added else to_bytes(token)
            for token in tokens[:used]
        ]
    except KeyError as error:
        raise ModelError(f"a token holds {error}, which stands for no byte", where=file.path) from None
    if len(set(stored)) < len(stored) or not {bytes([i]) for i in range(256)} - {*_never()} <= set(stored):
        raise ModelError("its tokens repeat, or do not cover every byte", where=file.path)
    roles = {role: _named(file, role, tokens, special) for role in ("bos", "eos", "pad")}
    text_end = roles["bos"] or roles["eos"]
    return Tokenizer(
        stored,
        special,
        pattern=pattern,
        chat_template=file.settings.get("tokenizer.chat_template"),
        bos=roles["bos"] or text_end,
        eos=text_end if roles["eos"] == "<|im_end|>" else roles["eos"],
        pad=roles["pad"] or text_end,
        added=added,
    )


def _never() -> list[bytes]:
    """Bytes that UTF-8 never holds; some vocabularies leave them out."""
    return [bytes([i]) for i in (0xC0, 0xC1, *range(0xF5, 0x100))]


def _named(file: GGUFFile, role: str, tokens: list[str], special: dict[str, int]) -> str | None:
    token = file.settings.get(f"tokenizer.ggml.{'padding' if role == 'pad' else role}_token_id")
    name = tokens[token] if isinstance(token, int) and 0 <= token < len(tokens) else None
    return name if name in special else None


def _read_weights(file: GGUFFile, model: Transformer) -> None:
    config, left = model.config, dict(file.tensors)
    left.pop("rope_freqs.weight", None)
    own = dict(model.state_dict())

    @lru_cache(maxsize=3)  # a layer's stacked experts are asked for one by one: gate, up and down in turn
    def unpacked(name: str) -> Tensor:
        return torch.from_numpy(file.array(file.tensors[name]))

    for stored in layout(config):
        name, expert = their_name(config, stored.name)
        tensor = file.tensors.get(name)
        if tensor is None:
            raise ModelError(f"tensor '{name}' is missing", where=file.path, fix="export the file again")
        left.pop(name, None)
        shape = stored.shape(own)
        theirs = list(tensor.shape if expert is None else tensor.shape[1:])
        if theirs != (shape[::-1] if stored.transposed else shape):
            raise ModelError(
                f"tensor '{name}' is {theirs}, its settings ask for {shape}",
                where=file.path,
                fix="export it again",
            )
        found = unpacked(name) if expert is None else unpacked(name)[expert]
        found = pairs_apart(config, stored.name, found, inverse=True)
        for view, ours in stored.pairs(found.T if stored.transposed and found.ndim == 2 else found, own):
            ours.copy_(view)
    for name in left:
        raise ModelError(
            f"tensor '{name}' has no place in a {config.model_type}",
            where=file.path,
            fix="use the original folder",
        )
