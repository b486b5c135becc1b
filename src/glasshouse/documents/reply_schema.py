"""The JSON Schema of a reply, for each of the five tasks.

Extraction: the user's schema with every leaf T as {"quote": text or null, "value": T or null}, the quote
first, because a model writes from left to right and the value is to follow from the evidence. The other
tasks: their types in tasks/. Where the backend holds replies to any schema, a quote is one of `quotes`, the
sentences of the text, so that it stands there whatever the model is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from glasshouse.core.errors import ConfigError
from glasshouse.documents.result import Task
from glasshouse.documents.tasks.classification import Classification
from glasshouse.documents.tasks.reasoning import Reasoning
from glasshouse.documents.tasks.reply import Reply
from glasshouse.documents.tasks.sentiment import Sentiment
from glasshouse.documents.tasks.summary import Summary

Schema = dict[str, Any]

KINDS: dict[str, type[Reply]] = {
    "summary": Summary,
    "reasoning": Reasoning,
    "classification": Classification,
    "sentiment": Sentiment,
}
"""What each task but extraction replies with."""

DEEPEST = 12
"""Levels of a schema; pydantic's models that contain themselves have no end."""


def reply_schema(
    task: Task,
    *,
    schema: Schema | None = None,
    labels: Sequence[str] = (),
    quotes: Sequence[str] | None = None,
) -> Schema:
    """The schema to ask with. `schema`: of extraction, as `plain_schema` gives it; `labels`: of
    classification; `quotes`: the only texts that may be quoted, None for any text."""
    if task == "extraction":
        assert schema is not None
        made = _with_leaves(schema, lambda leaf: _leaf(leaf, quotes))
        if quotes is not None:
            made["$defs"] = {"quote": {"enum": [*dict.fromkeys(quotes), None]}}
        return made
    made = copy.deepcopy(KINDS[task].model_json_schema())
    if quotes is not None:
        made["$defs"] |= {"quote": {"enum": list(dict.fromkeys(quotes))}}
        for inner in made["$defs"].values():
            if "quote" in inner.get("properties", {}):
                inner["properties"]["quote"] = {"$ref": "#/$defs/quote"}
    if task == "classification":
        if not labels:
            raise ConfigError(
                "nothing says which labels there are",
                where="classification",
                fix='name a domain whose pack has labels, or give schema={"enum": ["first", "second"]}',
            )
        made["properties"]["primary"] = {"enum": list(labels)}
        made["properties"]["secondary"] = {"type": "array", "items": {"enum": list(labels)}}
    return made


def plain_schema(schema: Schema, where: str = "schema") -> Schema:
    """A schema for extraction with its references put in place: objects, arrays and leaves.

    Raises ConfigError for one that is no object of named properties, or refers to itself.
    """
    from glasshouse.llm.output_schema import Shape

    if not isinstance(schema, dict):
        raise ConfigError("a JSON Schema is an object", where=where)
    Shape.of(schema)
    plain = _plain(schema, schema, where, 0)
    if plain.get("type") != "object":
        raise ConfigError(
            "what is extracted must be an object of named properties",
            where=where,
            fix='write {"type": "object", "properties": {"revenue": {"type": "number"}}}',
        )
    return plain


def _plain(schema: Any, root: Schema, path: str, depth: int) -> Schema:
    if depth > DEEPEST:
        raise ConfigError(
            "the schema refers to itself or is nested too deeply", where=path, fix="give it an end"
        )
    if not isinstance(schema, dict):
        raise ConfigError("anything may stand here", where=path, fix='give it a type, such as "string"')
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _plain({**_target(schema["$ref"], root, path), **rest}, root, path, depth + 1)
    branches = schema.get("anyOf")
    if isinstance(branches, list):  # an optional object or array: what is not there has no values anyway
        others = [branch for branch in branches if branch != {"type": "null"}]
        if len(others) == 1:
            rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
            return _plain({**others[0], **rest}, root, path, depth + 1)
    told = {key: schema[key] for key in ("title", "description") if key in schema}
    if "properties" in schema:
        inner = {
            name: _plain(value, root, f"{path}.{name}", depth + 1)
            for name, value in schema["properties"].items()
        }
        if not inner:
            raise ConfigError("an object without properties holds nothing", where=path)
        return {**told, "type": "object", "properties": inner}
    if schema.get("type") == "array" or "items" in schema:
        if "items" not in schema:
            raise ConfigError("an array of anything", where=path, fix='say what it holds: "items"')
        most = {"maxItems": schema["maxItems"]} if "maxItems" in schema else {}
        items = _plain(schema["items"], root, f"{path}[]", depth + 1)
        if items.get("type") == "array":
            raise ConfigError("an array of arrays", where=path, fix="make its items objects")
        return {**told, "type": "array", "items": items, **most}
    if schema.get("type") == "object":
        raise ConfigError("an object without properties", where=path, fix="name its properties")
    if not schema.keys() & {"type", "enum", "const", "anyOf"}:
        raise ConfigError("anything may stand here", where=path, fix='give it a type, such as "string"')
    return {key: value for key, value in schema.items() if key not in ("default", "$defs", "definitions")}


def _target(reference: str, root: Schema, path: str) -> Schema:
    here: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if not isinstance(here, dict) or part not in here:
            raise ConfigError(f"the reference {reference} leads nowhere", where=path)
        here = here[part]
    if not isinstance(here, dict):
        raise ConfigError(f"the reference {reference} leads to no schema", where=path)
    return {key: value for key, value in here.items() if key not in ("$defs", "definitions")}


def is_object(schema: Schema) -> bool:
    return "properties" in schema


def is_array(schema: Schema) -> bool:
    return schema.get("type") == "array"


def leaves(schema: Schema, path: str = "") -> list[str]:
    """Paths of the leaves of a plain schema; "[]" stands for an array's items."""
    if is_object(schema):
        dotted = f"{path}." if path else ""
        return [
            leaf for name, inner in schema["properties"].items() for leaf in leaves(inner, f"{dotted}{name}")
        ]
    return leaves(schema["items"], f"{path}[]") if is_array(schema) else [path]


def _with_leaves(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    told = {key: schema[key] for key in ("title", "description") if key in schema}
    if is_object(schema):
        inner = {name: _with_leaves(value, change) for name, value in schema["properties"].items()}
        return {**told, **closed_object(inner)}
    if is_array(schema):
        return {**schema, "items": _with_leaves(schema["items"], change)}
    return change(schema)


def _leaf(schema: Schema, quotes: Sequence[str] | None) -> Schema:
    quote = {"type": ["string", "null"]} if quotes is None else {"$ref": "#/$defs/quote"}
    told = {key: schema[key] for key in ("title", "description") if key in schema}
    bare = {key: value for key, value in schema.items() if key not in told}
    return {**told, **closed_object({"quote": quote, "value": _or_null(bare)})}


def closed_object(properties: Schema) -> Schema:
    """All of these, in this order, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        rest = {key: value for key, value in schema.items() if key not in ("enum", "const", "type")}
        return {**rest, "enum": [*dict.fromkeys([*values, None])]}
    if "anyOf" in schema:
        null = {"type": "null"}
        return schema if null in schema["anyOf"] else {**schema, "anyOf": [*schema["anyOf"], null]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {**schema, "type": [*dict.fromkeys([*kinds, "null"])]}


def choices(schema: Schema) -> frozenset[str]:
    """Paths of a reply, "[]" for any item, whose values are chosen among some."""
    found: set[str] = set()

    def walk(inner: Schema, path: str) -> None:
        if "$ref" in inner:
            inner = schema["$defs"][inner["$ref"].rpartition("/")[2]]
        if "properties" in inner:
            for name, below in inner["properties"].items():
                walk(below, f"{path}.{name}" if path else name)
        elif "items" in inner:
            walk(inner["items"], f"{path}[]")
        elif "enum" in inner or "const" in inner:
            found.add(path)

    walk(schema, "")
    return frozenset(found)
