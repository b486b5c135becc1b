"""Two classes of transformers keep only vocabulary and merges of a tokenizer.json and build the rest anew.

A folder names its class in tokenizer_config.json. With LlamaTokenizer and GPT2Tokenizer, version 5 ignores
the file's own normalizer and pre-tokenizer; our ids are to be theirs, so we do the same. (SmolLM2's file
splits digits off first, for example, and its class does not.) For some families the class is not asked.
Classes of encoders, such as ALBERT's, rebuild pipelines too; no model here has one, and their files are read
as they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FILE_COUNTS = frozenset({"mistral", "mixtral", "ministral", "mistral3", "phi3", "phimoe"})
"""Values of config.json's model_type for which transformers reads tokenizer.json as it is written."""


def as_its_class_reads(
    content: dict[str, Any], config: Mapping[str, Any], model_type: object
) -> dict[str, Any]:
    """The content of a tokenizer.json, with the parts that its class in transformers would build."""
    name, model = str(config.get("tokenizer_class")).removesuffix("Fast"), content.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        return content
    if isinstance(model_type, str) and model_type in _FILE_COUNTS:
        return content
    if name == "LlamaTokenizer" and "ByteLevel" not in _types(content):
        return _llama(content, model, config)
    if name == "GPT2Tokenizer" and "ByteLevel" in _types(content):
        prefix = config.get("add_prefix_space") is True
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": prefix,
            "trim_offsets": True,
            "use_regex": True,
        }
        own = {"byte_fallback": False, "ignore_merges": False, "unk_token": None}
        return {
            **content,
            "model": {**model, **own},
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "decoder": byte_level,
        }
    return content


def _llama(content: dict[str, Any], model: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    prefix = config.get("add_prefix_space") is not False
    scheme = "never" if not prefix else "always" if config.get("legacy") else "first"
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    own = {"byte_fallback": True, "fuse_unk": True, "ignore_merges": False, "unk_token": None}
    return {
        **content,
        "model": {**model, **own},
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False},
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
    }


def _types(content: Mapping[str, Any]) -> set[Any]:
    """The kinds of the pre-tokenizer, the decoder and their parts."""
    found: set[Any] = set()
    for place, inner in (("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")):
        step = content.get(place)
        parts = step.get(inner) if isinstance(step, dict) else None
        steps = [step, *(parts if isinstance(parts, list) else [])]
        found |= {str(part.get("type")) for part in steps if isinstance(part, dict)}
    return found
