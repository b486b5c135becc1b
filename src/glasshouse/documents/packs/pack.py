"""A domain pack: what to extract from the documents of a field, how to classify them, and what must hold.

A pack is a folder with a `pack.yaml` and, where it wants its own, prompts in `prompts/<task>/<version>.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jsonschema_rs
from pydantic import ConfigDict, Field, StringConstraints

from glasshouse.core.config import Config, load_yaml, nearest
from glasshouse.core.errors import ConfigError
from glasshouse.documents.checks import KINDS, Check
from glasshouse.documents.result import Task

SHIPPED = Path(__file__).parent
FILE = "pack.yaml"

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\n]*$")]


class Pack(Config):
    """See docs/domain-packs.md for each key."""

    model_config = ConfigDict(populate_by_name=True)

    name: Line
    description: Line
    schema_: dict[str, Any] | None = Field(None, alias="schema")  # JSON Schema of what is extracted
    labels: dict[Line, Line] = Field(default_factory=dict)  # of classification, each with its meaning
    instructions: dict[Task, str] = Field(default_factory=dict)  # more words for the model
    abbreviations: tuple[Line, ...] = ()  # with a full stop that ends no sentence
    checks: tuple[Check, ...] = ()
    prompts: Path | None = None  # the folder, where the pack has one

    def words(self, task: Task) -> str:
        """What the pack tells a model about a task; of classification, what its labels mean too."""
        told = self.instructions.get(task, "").strip()
        if task != "classification" or not self.labels:
            return told
        meanings = "\n".join(f"- {label}: {meaning}" for label, meaning in self.labels.items())
        return f"What the labels mean:\n{meanings}\n\n{told}".strip()


def shipped_packs() -> tuple[str, ...]:
    """Names of the packs that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{FILE}")))


def load_pack(name_or_folder: str | Path) -> Pack:
    """A shipped pack by its name, or anybody's by its folder.

    Raises ConfigError that names the file and the key, or the nearest known name.
    """
    names = shipped_packs()
    if str(name_or_folder) in names:
        return _read(SHIPPED / str(name_or_folder))
    folder = Path(name_or_folder)
    if folder.is_dir():
        return _read(folder)
    if folder.is_file():
        raise ConfigError(
            "a domain pack is a folder", where=folder, fix=f"name the folder that holds {FILE}, not a file"
        )
    close = nearest(str(name_or_folder), names)
    meant = f"did you mean '{close}'?" if close else f"take one of {', '.join(names)}"
    raise ConfigError(
        f"no domain pack is called '{name_or_folder}', and no folder is there",
        fix=f"{meant} (one of your own is named by its folder, which holds {FILE})",
    )


def _read(folder: Path) -> Pack:
    file = folder / FILE
    if not file.is_file():
        raise ConfigError(
            f"the folder has no {FILE}", where=folder, fix="write one: see docs/domain-packs.md"
        )
    content = load_yaml(file)
    if "prompts" in content:
        raise ConfigError("unknown key 'prompts'", where=file, fix="put prompts into a folder of that name")
    _check_keys(content, [field.alias or name for name, field in Pack.model_fields.items()], str(file))
    content.setdefault("name", folder.resolve().name)
    if isinstance(content.get("checks"), list):
        content["checks"] = [_check(check, place, file) for place, check in enumerate(content["checks"])]
    prompts = folder / "prompts"
    pack = Pack.parse({**content, "prompts": prompts if prompts.is_dir() else None}, str(file))
    if pack.schema_ is not None:
        _check_schema(pack.schema_, file)
        _check_paths(pack, pack.schema_, file)
    return pack


def _check(given: Any, place: int, file: Path) -> Check:
    where = f"{file}, checks[{place}]"
    kind = given.get("kind") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or kind not in KINDS:
        close = nearest(str(kind), KINDS)
        fix = f"did you mean '{close}'?" if close else f"kinds: {', '.join(KINDS)}"
        raise ConfigError(f"no kind of rule is called '{kind}'", where=where, fix=fix)
    _check_keys(given, KINDS[kind].model_fields, where)
    return KINDS[kind].parse(given, where)


def _check_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Before anything else: a misspelled key is more telling than the one that is missing for it."""
    for key in given:
        if key not in known:
            close = nearest(str(key), known)
            fix = f"did you mean '{close}'?" if close else f"known keys: {', '.join(known)}"
            raise ConfigError(f"unknown key '{key}'", where=where, fix=fix)


def _check_schema(schema: dict[str, Any], file: Path) -> None:
    try:
        jsonschema_rs.validator_for(schema)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise ConfigError(
            f"'schema' is no JSON Schema: {str(error).splitlines()[0]}", where=file, fix="correct it"
        ) from None
    if schema.get("type") != "object" or not schema.get("properties"):
        raise ConfigError(
            "'schema' has to be an object with properties",
            where=file,
            fix="write 'type: object' and the fields below 'properties:'",
        )


def _check_paths(pack: Pack, schema: dict[str, Any], file: Path) -> None:
    """A rule about a field that the schema does not have could never say anything."""
    known = list(_paths(schema, ""))
    for place, check in enumerate(pack.checks):
        for path in check.paths():
            if path not in known:
                close = nearest(path, known)
                raise ConfigError(
                    f"the rule is about '{path}', which the schema does not have",
                    where=f"{file}, checks[{place}]",
                    fix=f"did you mean '{close}'?" if close else f"fields: {', '.join(known)}",
                )


def _paths(schema: Mapping[str, Any], above: str) -> list[str]:
    found: list[str] = []
    for name, inner in schema.get("properties", {}).items():
        path = f"{above}.{name}" if above else name
        items = inner.get("items")
        if items is not None:
            path, inner = f"{path}[]", items
        found += [path, *_paths(inner, path)]
    return found
