"""Grammars: what a model may write, and that it always comes to an end."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import UsageError
from glasshouse.inference.choice import Row, RowSettings, choose_rows
from glasshouse.inference.grammar import GrammarCompiler, special_token
from glasshouse.inference.request import Grammar
from glasshouse.inference.sampling import Sampling, row_key
from glasshouse.tokenizer import Tokenizer

PADDED = 16
"""Rows of the model's vocabulary that the tokenizer does not know."""


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    ends = {tokenizer.eos_id, tokenizer.end_of_turn_id}
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDED, ends)


def write(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    grammar: Grammar,
    budget: int,
    seed: int = 0,
    temperature: float = 1.0,
    likes: list[int] | None = None,
) -> tuple[str, bool]:
    """What a model of random logits writes, and whether it ended within the budget.

    `likes` are tokens that the model prefers to all others.
    """
    state = compiler.start(grammar)
    ends = {tokenizer.eos_id, tokenizer.end_of_turn_id}
    vocab = tokenizer.vocab_size + PADDED
    noise = torch.Generator().manual_seed(seed)
    drawn = RowSettings([Sampling(temperature=temperature, seed=seed)], [()], vocab)
    key = torch.tensor([row_key(seed, 0, [1])])
    text: list[int] = []
    for place in range(budget):
        logits = torch.randn(1, vocab, generator=noise) * 3
        logits[0, likes or []] += 8
        row = Row(text, state, budget - place)
        token = int(choose_rows(logits, drawn, key, torch.tensor([place]), [row])[0])
        if token in ends:
            assert state.whole
            return decoded(tokenizer, text), True
        assert token < tokenizer.vocab_size
        assert state.valid_prefix([token]) == 1
        state.accept(token)
        text.append(token)
        if state.ended:
            return decoded(tokenizer, text), True
    return decoded(tokenizer, text), False


def decoded(tokenizer: Tokenizer, text: list[int]) -> str:
    return tokenizer.decode_bytes(text).decode("utf-8", errors="replace")


# Random schemas

FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "email"]
PATTERNS = ["^[a-c]+$", "^(ab|cd){2}$", "^\\d{3}-\\d{2}$", "[xyz]", "^a?b*c$"]
NAMES = ["id", "name", "größe", "a b", 'q"q', "x", "yes", "items"]


def random_schema(draw: random.Random, depth: int = 3) -> Any:
    """A JSON Schema of bounded size; references lead only to the definitions of `random_document`."""
    kinds = ["string", "string", "integer", "number", "boolean", "null", "enum", "const", "format", "pattern"]
    if depth:
        kinds += [
            "object",
            "object",
            "object",
            "array",
            "array",
            "any",
            "all",
            "types",
            "ref",
            "map",
            "tuple",
        ]
    kind = draw.choice(kinds)
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "string":
        low = draw.choice([0, 0, 0, 1, 3])
        return {"type": "string"} | draw.choice(
            [{}, {"minLength": low, "maxLength": low + draw.randint(0, 6)}]
        )
    if kind in ("integer", "number"):
        low = draw.randint(-50, 50)
        limits: list[dict[str, Any]] = [
            {},
            {"minimum": low},
            {"minimum": low, "maximum": low + draw.randint(0, 900)},
            {"exclusiveMaximum": low},
            {"multipleOf": draw.choice([2, 5, 7])},
        ]
        return {"type": kind} | draw.choice(limits)
    if kind == "enum":
        return {"enum": draw.sample(["red", "green", 3, 4.5, None, True, ["a", 1], {"k": "v"}, ""], 3)}
    if kind == "const":
        return {"const": draw.choice(["only", 0, None, [1, 2], {"a": {"b": []}}])}
    if kind == "format":
        return {"type": "string", "format": draw.choice(FORMATS)}
    if kind == "pattern":
        return {"type": "string", "pattern": draw.choice(PATTERNS)}
    if kind == "array":
        low = draw.choice([0, 0, 1, 2])
        more = draw.choice([{}, {"minItems": low, "maxItems": low + draw.randint(0, 3)}])
        return {"type": "array", "items": random_schema(draw, depth - 1)} | more
    if kind == "tuple":
        parts = [random_schema(draw, depth - 1) for _ in range(draw.randint(1, 3))]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
    if kind == "any":
        return {"anyOf": [random_schema(draw, depth - 1) for _ in range(draw.randint(1, 3))]}
    if kind == "all":
        name = draw.choice(NAMES)
        more = {"type": "object", "properties": {name: random_schema(draw, depth - 1)}, "required": [name]}
        return {"allOf": [more, {"type": "object", "properties": {"also": {"type": "integer"}}}]}
    if kind == "types":
        return {"type": draw.sample(["string", "integer", "null", "boolean", "array", "object"], 2)}
    if kind == "ref":
        return {"$ref": f"#/$defs/{draw.choice(['leaf', 'tree'])}"}
    if kind == "map":
        return {"type": "object", "additionalProperties": random_schema(draw, depth - 1)}
    names = draw.sample(NAMES, draw.randint(1, 4))
    required = [name for name in names if draw.random() < 0.6]
    extra = draw.choice([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "integer"}}])
    properties = {name: random_schema(draw, depth - 1) for name in names}
    return {"type": "object", "properties": properties, "required": required} | extra


def random_document(seed: int) -> Any:
    draw = random.Random(seed)
    schema = random_schema(draw)
    tree = {
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
        },
        "required": ["next"],
        "additionalProperties": False,
    }
    return {**schema, "$defs": {"leaf": random_schema(draw, 0), "tree": tree}}
