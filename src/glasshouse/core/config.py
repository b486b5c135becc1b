"""Typed settings: pydantic models that refuse unknown keys and name the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from glasshouse.core.errors import ConfigError


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice spelled most like `name`, or None when nothing is close."""
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return found[0] if found else None


class Config(BaseModel):
    """Base of every settings class: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def parse(cls, mapping: Mapping[str, Any], source: str = "settings") -> Self:
        """Validate `mapping`; raises ConfigError naming the dotted key, the problem and the fix."""
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise _explain(cls, error, source) from None


def _explain(model: type[BaseModel], error: ValidationError, source: str) -> ConfigError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or "(whole)"
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        close = nearest(location[-1], known)
        fix = (
            f"did you mean '{'.'.join([*location[:-1], close])}'?"
            if close
            else f"known keys: {', '.join(known)}"
        )
        return ConfigError(f"unknown key '{key}'", where=source, fix=fix)
    message = first["msg"].removeprefix("Value error, ")
    got = first.get("input")
    shown = "" if isinstance(got, (Mapping, BaseModel)) else f", got {got!r}"  # a section is too much to show
    return ConfigError(f"'{key}': {message}{shown}", where=source)


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the nested model that `path` leads to."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if nested:
            model = nested[0]
    return list(model.model_fields)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ConfigError naming the file and line."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", where=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"not valid YAML: {getattr(error, 'problem', error)}", where=line) from None
    if not isinstance(content, dict):
        raise ConfigError("expected a mapping of keys to values", where=path)
    return content


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `mapping` with `a.b=value` settings applied; values are read as YAML.

    >>> apply_overrides({"sft": {"tokens": 5}}, ["sft.tokens=7", "seed=3"])
    {'sft': {'tokens': 7}, 'seed': 3}
    """
    result = _copy(mapping)
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(
                f"cannot read the setting '{override}'", fix="write it as key=value, for example sft.seed=7"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"the value of '{key}' is not valid YAML", where=override) from None
        if isinstance(value, str):
            value = _number(value)
        here = result
        for part in parts[:-1]:
            inner = here.get(part)
            if inner is None:
                inner = here[part] = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"'{part}' in '{key}' is a single value, not a section", where=override)
            here = inner
        here[parts[-1]] = value
    return result


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _number(text: str) -> Any:
    """YAML 1.1 reads 3e-4 as a string; people mean the number."""
    try:
        return float(text)
    except ValueError:
        return text
