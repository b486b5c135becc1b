"""A checkpoint is a Hugging Face folder: config.json, model.safetensors, generation_config.json.

Written whole or not at all. Files are read without unpickling anything, and every way in which a
folder can be broken ends in a ModelError that names the file, the tensor and the fix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glasshouse.core.errors import ConfigError, DataError, ModelError
from glasshouse.core.storage import directory, read_json, write_json
from glasshouse.model.config import ModelConfig
from glasshouse.model.transformer import Transformer

ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM"}
"""model_type in config.json -> the class with which transformers opens the folder."""

WEIGHTS = "model.safetensors"


class SavesTokenizer(Protocol):
    """What `save` needs of a tokenizer."""

    @property
    def eos_id(self) -> int: ...
    @property
    def end_of_turn_id(self) -> int: ...
    @property
    def pad_id(self) -> int: ...

    def save(self, folder: Path) -> None: ...


def save(model: Transformer, tokenizer: SavesTokenizer | None, folder: str | Path) -> None:
    """Write `folder` so that transformers, and `load`, open it; an older folder is replaced whole.

    Tensors are stored in the dtype that the model holds them in. A tied head is not stored.
    """
    with directory(folder) as temporary:
        dtype = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
        write_json(temporary / "config.json", _config_json(model.config, dtype, tokenizer))
        write_json(temporary / "generation_config.json", _generation_json(tokenizer))
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / WEIGHTS).chmod(0o644)
        if tokenizer is not None:
            tokenizer.save(temporary)


def load(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """Open a folder as a model that holds its weights, and computes, in `dtype`.

    Weights are copied out of the memory-mapped file: kernels sum in another order on storage that is
    not aligned to 64 bytes, and the same folder has to give the same bits everywhere.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = Transformer.empty(config, device, dtype)
    _read_weights(folder, model)
    return model


def read_config(folder: str | Path) -> ModelConfig:
    """The shape written in a folder's config.json; raises ModelError on what we cannot compute."""
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelError("no such model folder", where=folder, fix="name a folder that holds config.json")
    if not path.exists():
        raise ModelError(
            "not a model folder: config.json is missing", where=folder, fix="name a Hugging Face model folder"
        )
    try:
        found = read_json(path)
    except DataError as error:
        raise ModelError(error.what, where=path, fix="download or save the folder again") from None
    if not isinstance(found, dict):
        raise ModelError("config.json is not a mapping", where=path, fix="download or save the folder again")
    kind = found.get("model_type")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"model_type {kind!r} is not supported", where=path, fix=f"use one of: {', '.join(ARCHITECTURES)}"
        )
    settings = _settings(found, path)
    try:
        return ModelConfig.parse(settings, source=str(path))
    except ConfigError as error:
        raise ModelError(error.what, where=path, fix="correct the key or save the folder again") from None


def _settings(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """The keys of config.json that shape the model, with transformers' defaults for absent ones."""
    required = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    missing = [key for key in required if key not in found]
    if missing:
        raise ModelError(f"'{missing[0]}' is missing", where=path, fix="save the folder again")
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    for key, value, supported in (
        ("rope_type", kind, "default"),
        ("use_sliding_window", bool(found.get("use_sliding_window")), False),
        ("quantization_config", found.get("quantization_config"), None),
    ):
        if value != supported:
            raise ModelError(
                f"'{key}' is {value!r}, which is not supported", where=path, fix="use a model without it"
            )
    settings = {
        "head_dim": 128,
        "tie_word_embeddings": False,
        "rope_theta": rope.get("rope_theta", 10_000.0),
        "max_position_embeddings": 32_768,
    }
    settings.update({key: found[key] for key in ModelConfig.model_fields if found.get(key) is not None})
    settings.setdefault("num_key_value_heads", found["num_attention_heads"])
    return settings


def _read_weights(folder: Path, model: Transformer) -> None:
    """Copy every tensor of the file into the model's own storage, checking names and shapes."""
    path = folder / WEIGHTS
    if not path.exists():
        if (folder / f"{WEIGHTS}.index.json").exists():
            raise ModelError(
                "weights in several files are not supported", where=folder, fix=f"merge into {WEIGHTS}"
            )
        pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        if pickles:
            raise ModelError(
                "weights are a pickle, which can run code and is never opened",
                where=pickles[0],
                fix="save the model as safetensors with the program that made it",
            )
        raise ModelError("weights are missing", where=path, fix="download or save the folder again")
    wanted: dict[str, Tensor] = dict(model.state_dict())
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if model.config.tie_word_embeddings:
                names.discard("lm_head.weight")  # some folders store the tied head once more
            for name in sorted(wanted.keys() - names):
                raise ModelError(
                    f"tensor '{name}' is missing",
                    where=path,
                    fix="save the folder again, or correct config.json",
                )
            for name in sorted(names - wanted.keys()):
                raise ModelError(
                    f"tensor '{name}' has no place in a {model.config.model_type} of this config",
                    where=path,
                    fix="correct config.json (layers, biases, tie_word_embeddings)",
                )
            for name, own in wanted.items():
                shape = file.get_slice(name).get_shape()
                if list(shape) != list(own.shape):
                    raise ModelError(
                        f"tensor '{name}' is {list(shape)}, config.json asks for {list(own.shape)}",
                        where=path,
                        fix="correct config.json or save the folder again",
                    )
                stored = file.get_tensor(name)
                if not stored.is_floating_point():
                    raise ModelError(
                        f"tensor '{name}' holds {stored.dtype}", where=path, fix="use an unquantized model"
                    )
                own.copy_(stored)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"not a whole safetensors file: {error}", where=path, fix="download or save the folder again"
        ) from None


def _config_json(config: ModelConfig, dtype: str, tokenizer: SavesTokenizer | None) -> dict[str, Any]:
    """config.json with the keys of transformers 5, and `rope_theta` besides for older readers."""
    written = {"architectures": [ARCHITECTURES[config.model_type]], **config.model_dump()}
    written["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
    written["dtype"] = dtype
    if tokenizer is not None:
        written["bos_token_id"] = written["eos_token_id"] = tokenizer.eos_id
        written["pad_token_id"] = tokenizer.pad_id
    return written


def _generation_json(tokenizer: SavesTokenizer | None) -> dict[str, Any]:
    """Where generation stops: at the end of a turn, and at the end of a text."""
    if tokenizer is None:
        return {"do_sample": False}
    return {
        "do_sample": False,
        "bos_token_id": tokenizer.eos_id,
        "eos_token_id": [tokenizer.end_of_turn_id, tokenizer.eos_id],
        "pad_token_id": tokenizer.pad_id,
    }
