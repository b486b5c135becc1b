"""Adapters in PEFT's own folder: adapter_config.json and adapter_model.safetensors, both ways."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glasshouse.core.errors import DataError, ModelError
from glasshouse.core.storage import directory, read_json, write_json
from glasshouse.model.adapter import Adapter
from glasshouse.model.lora import LoRAConfig, Place, adapter_names, check_adapters
from glasshouse.model.peft_single_experts import single_experts
from glasshouse.model.peft_targets import Target, stems, targets
from glasshouse.model.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_HEAD = f"{_PREFIX}lm_head."
_OLD_ROUTER = ".block_sparse_moe.gate.", ".mlp.gate."  # Mixtral's name before transformers 5, and since
_FIX = "use the base model that the adapter was trained on"

_MUST_BE: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "lora_bias": (False, None),
}
"""Settings of PEFT that would change what is computed, and the values with which they do not."""


def save_adapter(
    model: Transformer, config: LoRAConfig, folder: str | Path, *, name: str = "default", base: str = ""
) -> None:
    """Write the adapter `name` so that PEFT opens it over `base`, the model folder it was trained on."""
    check_adapters(model, name)
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, tuple[int, float]] = {}  # rank and alpha by PEFT's name
    joined = [(target, target.joined(name)) for target in targets(model)]
    adapted = {target.name: found for target, found in joined if found is not None}
    for stem, target in stems(target for target, found in joined if found is not None).items():
        a, b, rank, scale = adapted[target.name]
        tensors[f"{_PREFIX}{stem}.lora_A.weight"] = a
        tensors[f"{_PREFIX}{stem}.lora_B.weight"] = b
        sizes[target.name] = rank, rank * scale
    with directory(folder) as temporary:
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, _config_json(model, config, sizes, base))


def _config_json(
    model: Transformer, config: LoRAConfig, sizes: dict[str, tuple[int, float]], base: str
) -> dict[str, Any]:
    rank = min(rank for rank, _ in sizes.values())
    alpha = config.scale * rank
    known = list(targets(model))
    modules = [target.name for target in known if not target.is_parameter]
    parameters = [target.name for target in known if target.is_parameter]
    target_parameters = _short([name for name in parameters if name in sizes], parameters, parts=2)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0 if target_parameters else config.dropout,  # PEFT opens no others beside them
        "target_modules": _short([name for name in modules if name in sizes], modules, parts=1),
        "target_parameters": target_parameters or None,
        "rank_pattern": {name: r for name, (r, _) in sizes.items() if r != rank},
        "alpha_pattern": {name: value for name, (_, value) in sizes.items() if value != alpha},
        "bias": "none",
        "fan_in_fan_out": model.config.model_type == "gpt2",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }


def _short(names: list[str], known: list[str], parts: int) -> list[str]:
    """The last parts of the names, where these fit no other name that is known; else the whole names."""

    def ending(name: str) -> str:
        return ".".join(name.split(".")[-parts:])

    endings = {ending(name) for name in names}
    return sorted(endings if all(name in names for name in known if ending(name) in endings) else names)


def load_adapter(model: Transformer, folder: str | Path, *, name: str = "default") -> LoRAConfig:
    """Hang the adapter of a PEFT folder on the model, switched on; the base stays as it is.

    Raises ModelError naming what is missing, of another shape, or not supported.
    """
    folder = Path(folder)
    settings = _read_config(folder / CONFIG)
    if name in adapter_names(model):
        raise ModelError(f"the model has an adapter called '{name}' already", where=folder)
    config = LoRAConfig(
        r=settings["r"], alpha=settings["lora_alpha"], dropout=settings.get("lora_dropout", 0.0)
    )
    tensors = _read_tensors(folder)
    tensors = {key.replace(*_OLD_ROUTER): tensor for key, tensor in tensors.items()}
    _check_head(model, tensors, folder / WEIGHTS)
    found: list[tuple[Place, Adapter]] = []
    for stem, target in _expected(model, settings, folder / CONFIG).items():
        if (pair := _take(tensors, stem, target.name, target.shapes, target.experts, folder)) is not None:
            alpha = _alpha(settings, target.name, folder / CONFIG)
            found += target.apart(*pair, alpha, config.dropout)

    def take(module: str, inputs: int, outputs: int) -> tuple[Tensor, Tensor, float] | None:
        def shapes(rows: int) -> list[list[int]]:
            return [[rows, inputs], [outputs, rows]]

        pair = _take(tensors, module, module, shapes, 1, folder)
        return None if pair is None else (*pair, _alpha(settings, module, folder / CONFIG))

    found += single_experts(model, take, config.dropout)
    if tensors or not found:
        odd = next(iter(tensors), "nothing")
        raise ModelError(
            f"the adapter holds '{odd}', which has no place in this {model.config.model_type}",
            where=folder / WEIGHTS,
            fix=_FIX,
        )
    for place, adapter in found:
        place.attach(name, adapter.to(model.device).train(model.training))
    return config


def _take(
    tensors: dict[str, Tensor],
    stem: str,
    name: str,
    shapes: Callable[[int], list[list[int]]],
    experts: int,
    folder: Path,
) -> tuple[Tensor, Tensor] | None:
    """A and B of `name`, taken out of the tensors, if they are there. `shapes`: of both by the rows of A."""
    a, b = (tensors.pop(f"{_PREFIX}{stem}.lora_{letter}.weight", None) for letter in "AB")
    if a is None and b is None:
        return None
    if a is None or b is None:
        raise ModelError(f"'{name}' has only one of lora_A and lora_B", where=folder / WEIGHTS)
    here, asked = [list(a.shape), list(b.shape)], shapes(len(a))
    if here != asked or not len(a) or len(a) % experts:
        raise ModelError(
            f"the adapter of '{name}' is {here[0]} and {here[1]}, this model asks for {asked[0]} and "
            f"{asked[1]}" + (f", a multiple of {experts} experts" if experts > 1 else ""),
            where=folder / WEIGHTS,
            fix=_FIX,
        )
    return a, b


def _expected(model: Transformer, settings: dict[str, Any], path: Path) -> dict[str, Target]:
    """What may be in the file: every map, and of experts what target_parameters names."""
    parameters = settings.get("target_parameters") or []
    if parameters and model.config.model_type == "gpt2":
        raise ModelError(
            "'target_parameters' names matrices, which GPT-2 keeps transposed",
            where=path,
            fix="train the adapter with target_modules",
        )
    return stems(
        target
        for target in targets(model)
        if target.places[0].kind != "experts"
        or any(f".{target.name}".endswith(f".{ending}") for ending in parameters)
    )


def _check_head(model: Transformer, tensors: dict[str, Tensor], path: Path) -> None:
    """PEFT stores the frozen head beside its adapter: it is taken out, and must be this model's."""
    stored = tensors.pop(f"{_HEAD}base_layer.weight", None)
    if model.config.tie_word_embeddings and any(key.startswith(_HEAD) for key in tensors):
        raise ModelError(
            "the adapter changes the head, which in this model is the embedding matrix (tie_word_embeddings)",
            where=path,
            fix="train it without lm_head among its targets",
        )
    if stored is None:
        return
    own = model.head_weight.detach().cpu()
    fewer = min(own.dtype, stored.dtype, key=lambda dtype: dtype.itemsize)
    if own.shape != stored.shape or not torch.equal(own.to(fewer), stored.to(fewer)):
        raise ModelError("the adapter brings a head of its own, not this model's", where=path, fix=_FIX)


def _alpha(settings: dict[str, Any], name: str, path: Path) -> float:
    """alpha of one target: keys of alpha_pattern are regular expressions over the last parts of names."""
    for pattern, alpha in (settings.get("alpha_pattern") or {}).items():
        try:
            if re.fullmatch(rf"(.*\.)?({pattern})", name):
                return alpha
        except re.error as error:
            raise ModelError(
                f"alpha_pattern holds {pattern!r}, not a regular expression: {error}",
                where=path,
                fix="save the adapter again",
            ) from None
    return settings["lora_alpha"]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        settings = read_json(path)
    except (DataError, FileNotFoundError) as error:
        what = getattr(error, "what", "no such file")
        raise ModelError(
            f"not an adapter folder: {what}", where=path, fix="name a folder saved by PEFT"
        ) from None
    if not isinstance(settings, dict):
        raise ModelError("adapter_config.json is not a mapping", where=path, fix="save the adapter again")
    for key, allowed in _MUST_BE.items():
        if key in settings and settings[key] not in allowed:
            raise ModelError(
                f"'{key}' is {json.dumps(settings[key])}, which is not supported",
                where=path,
                fix="use plain LoRA",
            )
    for key in ("r", "lora_alpha"):
        if not _is_size(settings.get(key)):
            raise ModelError(f"'{key}' is missing or not a positive number", where=path, fix="save it again")
    parameters, patterns = settings.get("target_parameters") or [], settings.get("alpha_pattern") or {}
    if not isinstance(parameters, list) or not all(isinstance(ending, str) for ending in parameters):
        raise ModelError("'target_parameters' is not a list of names", where=path, fix="save it again")
    if not isinstance(patterns, dict) or not all(map(_is_size, patterns.values())):
        raise ModelError("'alpha_pattern' does not map to positive numbers", where=path, fix="save it again")
    return settings


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    pickles = sorted(folder.glob("adapter_model.bin"))
    if not path.exists() and pickles:
        raise ModelError(
            "the adapter is a pickle, which can run code and is never opened",
            where=pickles[0],
            fix="save it with safe_serialization=True",
        )
    if not path.exists():
        raise ModelError("the adapter's weights are missing", where=path, fix="save the adapter again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"not a whole safetensors file: {error}", where=path, fix="save it again") from None
