"""Adapters in PEFT's own folder: adapter_config.json and adapter_model.safetensors, both ways.

PEFT names a map as the family's file does. Where that file keeps several of our maps in one (GPT-2's
c_attn), an adapter of the one is an adapter of each of ours with a shared A; the other way round three
adapters of rank r become one of rank 3r, with a B of three blocks. Both are exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glasshouse.core.errors import DataError, ModelError
from glasshouse.core.storage import directory, read_json, write_json
from glasshouse.model.layout import layout
from glasshouse.model.lora import Adapter, LoRAConfig, adapter_names, adapter_of, attach, linear_maps
from glasshouse.model.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."

_MUST_BE: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "layers_to_transform": (None, []),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "lora_bias": (False, None),
}
"""Settings of PEFT that would change what is computed, and the values with which they do not."""


@dataclass(frozen=True)
class _Target:
    """A linear map under PEFT's name for it, and our maps that it consists of, in their order."""

    name: str
    ours: tuple[str, ...]


def _targets(model: Transformer) -> Iterator[_Target]:
    known = {f"{path}.weight": path for path, _ in linear_maps(model)}
    for stored in layout(model.config):
        if all(part.own in known for part in stored.parts):
            yield _Target(
                stored.name.removesuffix(".weight"), tuple(known[part.own] for part in stored.parts)
            )


def save_adapter(
    model: Transformer, config: LoRAConfig, folder: str | Path, *, name: str = "default", base: str = ""
) -> None:
    """Write the adapter `name` so that PEFT opens it over `base`, the model folder it was trained on."""
    maps = dict(linear_maps(model))
    tensors: dict[str, Tensor] = {}
    for target in _targets(model):
        adapters = [(maps[ours], adapter_of(maps[ours], name)) for ours in target.ours]
        if all(adapter is None for _, adapter in adapters):
            continue
        a, b = _joined(adapters, config.r)
        tensors[f"{_PREFIX}{target.name}.lora_A.weight"] = a
        tensors[f"{_PREFIX}{target.name}.lora_B.weight"] = b
    ranks = {name.removesuffix(".lora_A.weight"): len(t) for name, t in tensors.items() if "lora_A" in name}
    rank = min(ranks.values())
    pattern = {key.removeprefix(_PREFIX): r for key, r in ranks.items() if r != rank}
    with directory(folder) as temporary:
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, _config_json(model, config, sorted(ranks), rank, pattern, base))


def _joined(adapters: list[tuple[Any, Any]], rank: int) -> tuple[Tensor, Tensor]:
    """(A, B) of one map made of several; a part without an adapter has rows of zeros."""
    present = [adapter for _, adapter in adapters if adapter is not None]
    a = torch.cat([adapter.a.detach().float().cpu() for adapter in present])
    rows, column = [], 0
    for linear, adapter in adapters:
        block = torch.zeros(linear.out_features, len(a))
        if adapter is not None:
            block[:, column : column + rank] = adapter.b.detach().float().cpu()
            column += rank
        rows.append(block)
    return a.contiguous(), torch.cat(rows)


def _config_json(
    model: Transformer, config: LoRAConfig, names: list[str], rank: int, pattern: dict[str, int], base: str
) -> dict[str, Any]:
    paths = [name.removeprefix(_PREFIX) for name in names]
    endings = sorted({path.rsplit(".", 1)[1] for path in paths})
    every = [t.name for t in _targets(model) if t.name.rsplit(".", 1)[1] in endings]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": config.scale * rank,
        "lora_dropout": config.dropout,
        "target_modules": endings if sorted(every) == sorted(paths) else paths,
        "rank_pattern": pattern,
        "alpha_pattern": {path: config.scale * r for path, r in pattern.items()},
        "bias": "none",
        "fan_in_fan_out": model.config.model_type == "gpt2",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }


def load_adapter(model: Transformer, folder: str | Path, *, name: str = "default") -> LoRAConfig:
    """Hang the adapter of a PEFT folder on the model, switched on; the base stays as it is.

    Raises ModelError naming what is missing, of another shape, or not supported.
    """
    folder = Path(folder)
    settings = _read_config(folder / CONFIG)
    if name in adapter_names(model):
        raise ModelError(f"the model has an adapter called '{name}' already", where=folder)
    tensors = _read_tensors(folder)
    config = LoRAConfig(
        r=settings["r"], alpha=settings["lora_alpha"], dropout=settings.get("lora_dropout", 0.0)
    )
    maps, found = dict(linear_maps(model)), []
    for target in _targets(model):
        a, b = (tensors.pop(f"{_PREFIX}{target.name}.lora_{letter}.weight", None) for letter in "AB")
        if a is None and b is None:
            continue
        if a is None or b is None:
            raise ModelError(f"'{target.name}' has only one of lora_A and lora_B", where=folder / WEIGHTS)
        linears = [maps[path] for path in target.ours]
        outputs = [linear.out_features for linear in linears]
        expected = [[len(a), linears[0].in_features], [sum(outputs), len(a)]]
        if a.ndim != 2 or [list(a.shape), list(b.shape)] != expected:
            raise ModelError(
                f"the adapter of '{target.name}' is {list(a.shape)} and {list(b.shape)}, this model asks for "
                f"{expected[0]} and {expected[1]}",
                where=folder / WEIGHTS,
                fix="use the base model that the adapter was trained on",
            )
        scale = _alpha(settings, target.name) / len(a)
        for linear, piece in zip(linears, b.split(outputs), strict=True):
            adapter = Adapter(linear.in_features, linear.out_features, len(a), scale, config.dropout)
            adapter.a.data.copy_(a)
            adapter.b.data.copy_(piece)
            found.append((linear, adapter.to(model.device)))
    if tensors or not found:
        odd = next(iter(tensors), "nothing")
        raise ModelError(
            f"the adapter holds '{odd}', which has no place in this {model.config.model_type}",
            where=folder / WEIGHTS,
            fix="use the base model that the adapter was trained on",
        )
    for linear, adapter in found:
        attach(linear, name, adapter)
    return config


def _alpha(settings: dict[str, Any], name: str) -> float:
    """alpha of one map: rank_pattern and alpha_pattern name maps by their last parts."""
    for pattern, alpha in (settings.get("alpha_pattern") or {}).items():
        if name == pattern or name.endswith(f".{pattern}"):
            return alpha
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
        if not isinstance(settings.get(key), (int, float)) or settings[key] <= 0:
            raise ModelError(f"'{key}' is missing or not a positive number", where=path, fix="save it again")
    return settings


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
