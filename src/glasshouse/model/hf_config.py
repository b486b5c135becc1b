"""config.json: from Hugging Face's keys, in all the ways in which families say them, to ours and back.

A key whose value would make the model compute something else than we do is refused with its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from glasshouse.core.errors import ConfigError, DataError, ModelError
from glasshouse.core.storage import read_json
from glasshouse.model.config import ModelConfig, RopeScaling
from glasshouse.model.families import FAMILIES
from glasshouse.model.quantize import GROUP, SCHEMES, Scheme

OURS = "glasshouse"
"""The quant_method of folders with our few-bit weights."""


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
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ModelError(
            f"model_type {kind!r} is not supported", where=path, fix=f"use one of: {', '.join(FAMILIES)}"
        )
    settings = _settings(found, path)
    try:
        return ModelConfig.parse(settings, source=str(path))
    except ConfigError as error:
        raise ModelError(error.what, where=path, fix="correct the key or save the folder again") from None


def read_scheme(folder: str | Path) -> Scheme | None:
    """How a folder of ours is quantized; None for a plain one. The config has been read before."""
    found = read_json(Path(folder) / "config.json").get("quantization_config")
    return found["scheme"] if found else None


def _settings(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """The keys of config.json that shape the model, under our names, with transformers' defaults.

    Raises ModelError for a key whose value would make the model compute something else than we do.
    """
    family = FAMILIES[found["model_type"]]
    said = {key: value for key, value in found.items() if value is not None}
    if (count := said.get("num_local_experts", said.get("num_experts"))) is not None:
        said[family.keys.get("num_experts", "num_experts")] = count  # transformers 5 has both names
    given = {**family.absent, **said}
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    rope = rope if isinstance(rope, dict) else {"rope_type": rope}
    for key in (family.keys.get(key, key) for key in _COUNTS):
        if key in given and (not isinstance(given[key], int) or given[key] < 1):
            raise ModelError(
                f"'{key}' is {given[key]!r}, not a whole number",
                where=path,
                fix="correct the key or save again",
            )
    for key in ("vocab_size", *(family.keys.get(key, key) for key in _SIZES)):
        if key not in given and key != "n_inner":  # GPT-2 without it: four times the hidden size
            raise ModelError(f"'{key}' is missing", where=path, fix="save the folder again")
    expected = {**family.fixed, "partial_rotary_factor": 1.0}
    _check_quantization(found.get("quantization_config"), path)
    for key, value in expected.items():
        if (got := found.get(key, rope.get(key, value))) != value:
            raise ModelError(
                f"'{key}' is {got!r}, which is not supported", where=path, fix="use a model without it"
            )
    names = {key: family.keys.get(key, key) for key in ModelConfig.model_fields}
    settings = {key: given[name] for key, name in names.items() if name in given}
    if not family.rotary:
        settings.setdefault("intermediate_size", 4 * settings["hidden_size"])
        settings.setdefault("positions", "learned")
    settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
    settings.setdefault("head_dim", settings["hidden_size"] // settings["num_attention_heads"])
    settings.setdefault("max_position_embeddings", 32_768)
    if family.rotary:
        settings["rope_theta"] = rope.get("rope_theta") or given.get("rope_theta", 10_000.0)
        settings["rope_scaling"] = _rope_scaling(rope, settings["max_position_embeddings"], path)
    if family.experts and "norm_topk_prob" not in given:
        settings["norm_topk_prob"] = found["model_type"] == "mixtral"
    if family.window != "never":
        settings.update(_window(found, given, settings["num_hidden_layers"], path))
    return settings


def _check_quantization(found: Any, path: Path) -> None:
    """Only our own few-bit weights are opened; others are named."""
    if found is None:
        return
    known = isinstance(found, dict) and found.get("quant_method") == OURS
    if not known or found.get("scheme") not in SCHEMES or found.get("group_size") != GROUP:
        raise ModelError(
            f"'quantization_config' is {found!r}, which is not supported",
            where=path,
            fix="use the model in full precision",
        )


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_COUNTS = (*_SIZES, "vocab_size", "max_position_embeddings")


def _rope_scaling(rope: dict[str, Any], context: int, path: Path) -> dict[str, Any] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    known = RopeScaling.model_fields
    if kind not in get_args(known["rope_type"].annotation):
        supported = ", ".join(get_args(known["rope_type"].annotation))
        raise ModelError(f"rope_type {kind!r} is not supported", where=path, fix=f"use one of: {supported}")
    scaling = {key: value for key, value in rope.items() if key in known and value is not None}
    scaling["rope_type"] = kind
    if kind in ("yarn", "llama3"):
        trained = scaling.setdefault("original_max_position_embeddings", context)
        if "factor" not in scaling and isinstance(trained, int) and trained > 0:
            scaling["factor"] = context / trained
    return scaling


def _window(found: dict[str, Any], given: dict[str, Any], layers: int, path: Path) -> dict[str, int | None]:
    """Our two keys of the sliding window, from the several ways in which a folder may say them."""
    family = FAMILIES[found["model_type"]]
    size = given.get("sliding_window")
    if "sliding_window" in found and found["sliding_window"] is None:
        size = None
    if family.window == "switched" and not found.get("use_sliding_window"):
        size = None
    first = given.get("max_window_layers", 0) if family.layerwise_window else 0
    if not isinstance(first, int):
        raise ModelError("'max_window_layers' is not a whole number", where=path, fix="save the folder again")
    kinds = found.get("layer_types") if family.layerwise_window else None
    if size is not None and isinstance(kinds, list):
        first = next((i for i, kind in enumerate(kinds) if kind == "sliding_attention"), layers)
        if kinds != ["full_attention"] * first + ["sliding_attention"] * (layers - first):
            raise ModelError(
                "'layer_types' mixes full and sliding layers in an order that is not supported",
                where=path,
                fix="use a model whose layers slide from one layer on",
            )
    return {"sliding_window": size, "max_window_layers": min(first, layers) if size is not None else 0}


def config_json(config: ModelConfig, dtype: str, scheme: Scheme | None) -> dict[str, Any]:
    """config.json with the keys of transformers 5, and those that older readers know besides."""
    family = config.family
    ours = config.model_dump(mode="json", exclude={"rope_theta", "rope_scaling", "positions"})
    left_out = set()
    if not family.rotary:
        left_out |= {"num_key_value_heads", "head_dim", "sliding_window", "max_window_layers"}
    if family.qkv_bias is not None:
        left_out.add("attention_bias")
    if family.mlp_bias is not None:
        left_out.add("mlp_bias")
    if family.window == "never":
        left_out.add("sliding_window")
    if not family.layerwise_window:
        left_out.add("max_window_layers")
    if not family.experts:
        left_out |= _OF_EXPERTS
    if config.model_type == "mixtral":
        left_out |= {"moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"}
    written: dict[str, Any] = {"architectures": [family.architecture]}
    written |= {family.keys.get(key, key): value for key, value in ours.items() if key not in left_out}
    if family.rotary:
        scaling = config.rope_scaling.model_dump(exclude_none=True) if config.rope_scaling else {}
        scaling = {key: value for key, value in scaling.items() if key in _ROPE_KEYS[scaling["rope_type"]]}
        written["rope_theta"] = config.rope_theta
        written["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta, **scaling}
        if scaling:
            written["rope_scaling"] = scaling
    elif config.positions != "learned":
        written["positions"] = config.positions
    if family.window == "switched":
        written["use_sliding_window"] = config.sliding_window is not None
    if scheme is not None:
        written["quantization_config"] = {"quant_method": OURS, "scheme": scheme, "group_size": GROUP}
    written["dtype"] = dtype
    return written


_OF_EXPERTS = {
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "router_aux_loss_coef",
    "router_z_loss_coef",
}

_COMMON = {"rope_type", "factor"}
_ROPE_KEYS = {
    "linear": _COMMON,
    "dynamic": _COMMON,
    "yarn": _COMMON
    | {"original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"}
    | {"mscale", "mscale_all_dim", "truncate"},
    "llama3": _COMMON | {"original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}
"""Keys that transformers knows of each kind of scaling."""
