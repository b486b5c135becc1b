"""From a pydantic type or a JSON Schema to what a provider takes, and from its reply back to an object.

Providers keep replies to a part of JSON Schema only. `for_provider` rewrites a schema into that part
(OpenAI's strict mode, https://platform.openai.com/docs/guides/structured-outputs): every object is closed,
every property required, those that were optional may be null instead. What has no place there is told to the
model in the description, and checked here on the reply: `Shape` checks everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import jsonschema_rs
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from glasshouse.core.errors import ConfigError
from glasshouse.llm.formats import format_named

T = TypeVar("T")
Schema = dict[str, Any]

_KEPT = {"type", "enum", "const", "title", "description", "$ref", "minItems", "maxItems"} | {
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_NO_PLACE = {"patternProperties", "propertyNames", "prefixItems", "$dynamicRef", "unevaluatedProperties"}
_SAID_ELSEWHERE = {"default", "examples", "$schema", "$id", "$comment", "$defs", "definitions", "deprecated"}
_TOLD = 8
"""Problems of one reply that are told; a model that made more has missed the point as a whole."""


class NotStrictError(Exception):
    """This schema says something that strict mode cannot, such as an object with any keys."""


class Shape(Generic[T]):
    """What a reply is to look like: `schema` says it, `read` checks a value and makes the object of it."""

    def __init__(self, schema: Schema, build: Callable[[Any], T]) -> None:
        self.schema, self._build = schema, build
        self._formats = {name: check for name in _formats_in(schema) if (check := format_named(name))}
        try:
            jsonschema_rs.meta.validate(schema)
            self._validator = _validator(schema)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise ConfigError(f"not a JSON Schema: {_first_line(error)}", where="output schema") from None

    @classmethod
    def of(cls, kind: Any) -> Shape[Any]:
        """From a pydantic model, any other type that pydantic reads, or a JSON Schema. Raises ConfigError."""
        if isinstance(kind, Mapping):
            shape = cls(dict(kind), lambda value: value)
            shape._build = shape._normalised
            return shape
        try:
            return _of_type(kind)
        except TypeError:  # a type that cannot be hashed
            return _of_type.__wrapped__(kind)

    def problem(self, value: Any) -> str | None:
        """What is wrong with a JSON value, as a sentence for whoever writes it anew; None: nothing is."""
        found = [self._told(error) for error in self._validator.iter_errors(value)]
        more = f"; and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
        return "; ".join(found[:_TOLD]) + more if found else None

    def read(self, value: Any) -> T:
        """The object that a JSON value stands for, with its formats normalised. Raises ValueError."""
        if problem := self.problem(value):
            raise ValueError(problem)
        try:
            return self._build(value)
        except ValidationError as error:
            raise ValueError(
                "; ".join(
                    f"at {_path(part['loc'])}: {part['msg'].removeprefix('Value error, ')}"
                    for part in error.errors()[:_TOLD]
                )
            ) from None

    def from_provider(self, value: Any, wrapped: bool) -> Any:
        """The value as the schema itself has it: null that stood for an absent property goes."""
        if wrapped and isinstance(value, dict) and set(value) == {"value"}:
            value = value["value"]
        return _walked(value, self.schema, self.schema, _without_nulls)

    def _told(self, error: jsonschema_rs.ValidationError) -> str:
        where = f"at {_path(error.instance_path)}: "
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Format):
            try:
                if check := self._formats.get(error.kind.format):
                    check(cast("str", error.instance))
            except ValueError as problem:
                return f"{where}{problem}"
        return where + _short(error.message)

    def _normalised(self, value: Any) -> Any:
        """Plain JSON with its formats in one way; pydantic's types have done so themselves."""

        def change(value: Any, schema: Schema, root: Schema) -> Any:
            check = self._formats.get(schema.get("format", ""))
            return check(value) if check and isinstance(value, str) else value

        return _walked(value, self.schema, self.schema, change) if self._formats else value


@lru_cache(maxsize=256)
def _of_type(kind: Any) -> Shape[Any]:
    try:
        adapter: TypeAdapter[Any] = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
        schema = adapter.json_schema()
    except PydanticUserError as error:
        raise ConfigError(f"{kind!r} has no JSON Schema: {_first_line(error)}", where="output type") from None
    # JSON mode: what is a date, a tuple or an enum in Python is read from what JSON has for it.
    return Shape(schema, lambda value: adapter.validate_json(json.dumps(value)))


def _validator(schema: Schema) -> Any:
    def passes(check: Callable[[str], str]) -> Callable[[str], bool]:
        def passed(text: str) -> bool:
            try:
                check(text)
            except ValueError:
                return False
            return True

        return passed

    ours = {name: passes(check) for name in _formats_in(schema) if (check := format_named(name))}
    # `offline`: a schema from elsewhere must not make this process ask the network for its references.
    return jsonschema_rs.validator_for(schema, validate_formats=True, formats=ours, offline=True)


def _formats_in(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_formats_in, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["format"]} if isinstance(schema.get("format"), str) else set()
    return own.union(*map(_formats_in, schema.values()))


def _path(parts: Any) -> str:
    """items[2].price"""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".") or "the top"


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:200] + " ... " + text[-80:]


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]


# --- out: what a provider takes -------------------------------------------------------------------------


def for_provider(schema: Schema) -> tuple[Schema, tuple[str, ...], bool]:
    """The schema in strict mode, the keywords that were taken out, and whether it is wrapped.

    Strict mode wants an object at the top, so any other schema comes back as the property "value" of one.
    Raises NotStrictError where that part of JSON Schema cannot say it.
    """
    removed: set[str] = set()
    definitions = {
        f"#/{place}/{name}": inner
        for place in ("$defs", "definitions")
        for name, inner in schema.get(place, {}).items()
    }
    if "#" in _references(schema):
        raise NotStrictError("a schema that refers to itself as a whole")
    strict = {
        place: {name: _strict(inner, schema, removed) for name, inner in schema[place].items()}
        for place in ("$defs", "definitions")
        if place in schema
    }
    top = {key: value for key, value in schema.items() if key not in strict}
    while "$ref" in top:  # a model that contains itself: its top is a reference
        if top["$ref"] not in definitions:
            raise NotStrictError(f"a reference to {top['$ref']}")
        top = {**definitions[top["$ref"]], **{key: top[key] for key in top if key != "$ref"}}
    inner = _strict(top, schema, removed)
    wrapped = inner.get("type") != "object"
    if wrapped:
        inner = {
            "type": "object",
            "properties": {"value": inner},
            "required": ["value"],
            "additionalProperties": False,
        }
    return inner | strict, tuple(sorted(removed)), wrapped


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*map(_references, schema.values()))


def _strict(schema: Any, root: Schema, removed: set[str]) -> Schema:
    if not isinstance(schema, dict) or not schema:
        raise NotStrictError("a place where anything may stand")
    if unable := _NO_PLACE & set(schema):
        raise NotStrictError(f"the keyword {min(unable)}")
    if isinstance(alone := schema.get("allOf"), list):
        if len(alone) != 1:
            raise NotStrictError("the keyword allOf")
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        return _strict({**alone[0], **rest}, root, removed)
    if isinstance(kinds := schema.get("type"), list):  # Anthropic's SDK takes one type at a place
        rest = {key: value for key, value in schema.items() if key != "type"}
        if "enum" in rest or "const" in rest:
            return _strict(rest, root, removed)
        branches = [{"type": kind} if kind == "null" else {"type": kind, **rest} for kind in kinds]
        return _strict({"anyOf": branches}, root, removed)
    result: Schema = {}
    told: list[str] = []
    for key, value in schema.items():
        match key:
            case "properties" | "required" | "additionalProperties":
                pass  # below
            case "items":
                result[key] = _strict(value, root, removed)
            case "anyOf" | "oneOf":
                result["anyOf"] = [_strict(inner, root, removed) for inner in value]
                if key == "oneOf":
                    removed.add(key)
            case "format" if value in _FORMATS:
                result[key] = value
            case "pattern" if "(?" not in value and "\\" not in value:
                result[key] = value
            case _ if key in _KEPT:
                result[key] = value
            case _ if key not in _SAID_ELSEWHERE:
                removed.add(key)
                told.append(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    if "$ref" in result and len(result) > 1:  # a reference must stand alone
        result = {"$ref": result["$ref"]}
    if schema.get("type") == "object" or "properties" in schema:
        result |= _closed(schema, root, removed)
    if schema.get("type") == "array" and "items" not in schema:
        raise NotStrictError("an array of anything")
    if told and "$ref" not in result:
        result["description"] = " ".join([*filter(None, [result.get("description")]), f"({'; '.join(told)})"])
    if not result.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
        raise NotStrictError("a place where anything may stand")
    return result


def _closed(schema: Schema, root: Schema, removed: set[str]) -> Schema:
    """The object with all properties required and no others; those that were optional may be null."""
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") not in (None, False) or not properties:
        raise NotStrictError("an object with any keys")
    required = schema.get("required", [])
    inner = {name: _strict(value, root, removed) for name, value in properties.items()}
    for name, value in inner.items():
        if name not in required and not _allows_null(properties[name], root):
            inner[name] = _or_null(value)
    return {
        "type": "object",
        "properties": inner,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


# --- back: a walk along a value and its schema ----------------------------------------------------------

_Change = Callable[[Any, Schema, Schema], Any]


def _walked(value: Any, schema: Any, root: Schema, change: _Change) -> Any:
    """The value with `change(value, its schema, root)` made at every place that the schema describes."""
    if not isinstance(schema, dict):
        return value
    if (target := _resolved(schema, root)) is not None:
        return _walked(value, target, root, change)
    for key in ("anyOf", "oneOf"):
        for branch in schema.get(key, ()):
            tried = _walked(value, branch, root, change) if _may_be(value, branch, root) else value
            if _follows(tried, branch, root):
                value = tried
                break
    for branch in schema.get("allOf", ()):
        value = _walked(value, branch, root, change)
    value = change(value, schema, root)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        return {key: _walked(inner, properties.get(key, rest), root, change) for key, inner in value.items()}
    if isinstance(value, list):
        kinds = [*schema.get("prefixItems", []), *[schema.get("items")] * len(value)]
        return [_walked(inner, kind, root, change) for inner, kind in zip(value, kinds, strict=False)]
    return value


def _without_nulls(value: Any, schema: Schema, root: Schema) -> Any:
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    required = schema.get("required", [])
    return {
        key: inner
        for key, inner in value.items()
        if inner is not None
        or key in required
        or key not in schema["properties"]
        or _allows_null(schema["properties"][key], root)
    }


def _resolved(schema: Schema, root: Schema) -> Any:
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return None
    if reference == "#":
        return root
    here: Any = root
    for part in reference.removeprefix("#/").split("/"):
        if not isinstance(here, dict) or part not in here:
            return None  # to another document, or with escapes: left alone, the validator knows
        here = here[part]
    return here


def _may_be(value: Any, schema: Any, root: Schema) -> bool:
    """False where the kinds differ, so that a format is not tried on what another branch describes."""
    if not isinstance(schema, dict):
        return False
    schema = _resolved(schema, root) or schema
    kinds = {dict: "object", list: "array", str: "string"}
    kind = schema.get("type")
    if kind == "string" and isinstance(value, str):
        return _follows(value, schema, root)
    return kind is None or kinds.get(type(value)) in (kind if isinstance(kind, list) else [kind])


def _allows_null(schema: Any, root: Schema) -> bool:
    return _follows(None, schema, root)


def _follows(value: Any, schema: Any, root: Schema) -> bool:
    if isinstance(schema, bool):
        return schema
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return _validator({**definitions, **schema}).is_valid(value)
