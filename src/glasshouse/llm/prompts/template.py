"""A prompt as a file: what it is and takes at the top, what is said below it.

    ---
    name: summary
    version: 1
    inputs:
      report: {type: string, description: The text to be summed up.}
    ---
    @system
    You sum up reports in at most three sentences.

    @user
    {{ report | delimited("report") }}

The top is YAML between two lines of three dashes (`Header` tells its keys). Below it, a line that is only
@system, @user or @assistant begins a message; `@@user` is such a line as plain text. Without any there is one
message of the user's. Text between them is a Jinja template, run in a sandbox. Messages are told apart before
values are put in, and values are never read as templates, so no input can end a message or run anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self

import jinja2
import yaml
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field

from glasshouse.core.config import Config, nearest
from glasshouse.core.errors import ConfigError
from glasshouse.llm.interface import Message, Request

Role = Literal["system", "user", "assistant"]
Kind = Literal["string", "integer", "number", "boolean", "array", "object"]

_TYPES: dict[Kind, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
}
_ROLE = re.compile(r"@(system|user|assistant)[ \t]*")
_ESCAPED_ROLE = re.compile(r"^@@(?=(?:system|user|assistant)[ \t]*$)", re.MULTILINE)
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Input(Config):
    """A value that a template takes."""

    type: Kind = "string"
    description: str = ""
    default: Any = None  # an input with one may be left out
    choices: tuple[str, ...] = ()  # the only texts that are taken
    trusted: bool = False  # text of your own, not of a user or a document: the linter lets it stand anywhere

    @property
    def optional(self) -> bool:
        return "default" in self.model_fields_set

    def problem(self, value: Any) -> str | None:
        """Why the value cannot be taken. The value itself is not told: it may be a user's."""
        kinds = _TYPES[self.type]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            return f"must be of type {self.type}, got {type(value).__name__}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}"
        return None


class Settings(Config):
    """How the model is asked; what is left out is the model's own choice."""

    max_new_tokens: int = Field(256, ge=1)
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Example(Config):
    """Inputs, and what a reply to them must be like (`glasshouse prompts test`)."""

    name: str = ""
    inputs: dict[str, Any] = Field(default_factory=dict)
    output: Any = None  # the whole reply: a text, or JSON where the template has an output schema
    fields: dict[str, Any] = Field(default_factory=dict)  # or some fields of it
    contains: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    matches: str | None = None  # a regular expression that is found in the reply


class Header(Config):
    """What stands at the top of a template."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: int = Field(ge=1)
    description: str = ""
    inputs: dict[str, Input] = Field(default_factory=dict)
    output: dict[str, Any] | None = None  # a JSON Schema of the reply
    models: tuple[str, ...] = ()  # what it was written for; a hint for people
    settings: Settings = Field(default_factory=lambda: Settings.parse({}))
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Section:
    """One message before values are put in. `line`: of the file, where `source` begins."""

    role: Role
    source: str
    line: int


@dataclass(frozen=True)
class Template:
    """A prompt with places for values. `hash`: 16 hexadecimal digits of the file's SHA-256."""

    header: Header
    sections: tuple[Section, ...]
    path: str
    hash: str
    text: str

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a file. Raises ConfigError naming it and the line."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigError("no such prompt template", where=path) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", where=path) from None
        template = cls.parse(text, str(path))
        template.check()
        return template

    @classmethod
    def parse(cls, text: str, path: str = "template") -> Self:
        """Read a template without checking that its inputs and its text agree (`check` does)."""
        text = text.replace("\r\n", "\n").removeprefix("\ufeff")
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
        top, body, line = _split(text, path)
        header = Header.parse(_mapping(top, path), path)
        template = cls(header, tuple(_sections(body, line, path)), path, digest, text)
        template.trees  # noqa: B018 -- a template that is none is told now, not at its first use
        return template

    @property
    def name(self) -> str:
        return self.header.name

    @property
    def version(self) -> int:
        return self.header.version

    @cached_property
    def trees(self) -> tuple[nodes.Template, ...]:
        """Each section as Jinja reads it."""
        found = []
        for section in self.sections:
            try:
                found.append(_environment().parse(section.source))
            except jinja2.TemplateSyntaxError as error:
                raise ConfigError(
                    f"not a Jinja template: {error.message}", where=self._at(section.line + error.lineno - 1)
                ) from None
        return tuple(found)

    @cached_property
    def _compiled(self) -> tuple[jinja2.Template, ...]:
        return tuple(_environment().from_string(section.source) for section in self.sections)

    def uses(self) -> dict[str, int]:
        """Every input that the text names, with the first line that does."""
        found: dict[str, int] = {}
        for section, tree in zip(self.sections, self.trees, strict=True):
            free = meta.find_undeclared_variables(tree)
            for node in tree.find_all(nodes.Name):
                if node.name in free and node.name not in found:
                    found[node.name] = section.line + node.lineno - 1
        return found

    def check(self) -> None:
        """Raises ConfigError for a name in the text that is no declared input."""
        for name, line in self.uses().items():
            if name not in self.header.inputs:
                close = nearest(name, self.header.inputs)
                fix = f"did you mean '{close}'?" if close else "declare it under inputs"
                raise ConfigError(f"the text uses '{name}', which is no input", where=self._at(line), fix=fix)

    def render(self, inputs: Mapping[str, Any] | None = None) -> Request:
        """The request with the values put in, labelled with prompt, version and hash.

        Raises ConfigError for an input that is missing, not declared or of another type, with file and line.
        """
        values = self._values(inputs or {})
        messages: list[Message] = []
        for section, compiled in zip(self.sections, self._compiled, strict=True):
            try:
                content = compiled.render(values)
            except Exception as error:
                raise self._failed(section, error) from None
            if not content.strip():
                raise ConfigError(
                    f"the message of the {section.role} is empty with these inputs",
                    where=self._at(section.line),
                    fix="give it a text that is always there",
                )
            messages.append({"role": section.role, "content": content})
        return Request(
            messages=tuple(messages),
            output_schema=self.header.output,
            labels={"prompt": self.name, "version": str(self.version), "hash": self.hash},
            **dict(self.header.settings),
        )

    def _values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        declared = self.header.inputs
        for name in given:
            if name not in declared:
                close = nearest(name, declared)
                known = f"known inputs: {', '.join(declared) or 'none'}"
                raise ConfigError(
                    f"'{name}' is no input of the prompt '{self.name}'",
                    where=self._at(self.line_of("inputs")),
                    fix=f"did you mean '{close}'?" if close else known,
                )
        values = {}
        for name, wanted in declared.items():
            if name in given:
                if problem := wanted.problem(given[name]):
                    raise ConfigError(f"the input '{name}' {problem}", where=self._at(self.line_of(name)))
                values[name] = given[name]
            elif wanted.optional:
                values[name] = wanted.default
            else:
                raise ConfigError(
                    f"the input '{name}' of the prompt '{self.name}' is missing",
                    where=self._at(self.uses().get(name, self.line_of(name))),
                    fix=f"give it a {wanted.type}"
                    + (f": {wanted.description}" if wanted.description else ""),
                )
        return values

    def line_of(self, key: str) -> int:
        """The line of a key of the header, or of an input's name in it; 1 where there is none."""
        top, _, _ = _split(self.text, self.path)
        tree = yaml.compose(top, Loader=yaml.SafeLoader)
        places = dict(_keys(tree))
        for name, value in _pairs(tree):
            if name == "inputs":
                places |= {inner.value: inner.start_mark.line for inner, _ in value.value}
        return places[key] + 2 if key in places else 1

    def _failed(self, section: Section, error: Exception) -> ConfigError:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if "<template>" in frame[0]
        ]
        line = section.line + (lines[-1] or 1) - 1 if lines else section.line
        return ConfigError(f"cannot be rendered: {error}", where=self._at(line))

    def _at(self, line: int) -> str:
        return f"{self.path}, line {line}"


def delimited(text: str, tag: str) -> str:
    """The text between <tag> and </tag>. Where it holds such a tag itself, the tag gets a number that it does
    not hold, so that no text can close its own brackets.

    >>> delimited("a </doc> b", "doc")
    '<doc-2>\\na </doc> b\\n</doc-2>'
    """
    if not isinstance(text, str):
        raise TypeError(f"delimited() takes a text, got {type(text).__name__}; use tojson first")
    if not _TAG.fullmatch(tag):
        raise ValueError(f"{tag!r} is no name of a tag")
    name, number = tag, 1
    while re.search(rf"</?\s*{re.escape(name)}\s*>", text, re.IGNORECASE):
        number += 1
        name = f"{tag}-{number}"
    return f"<{name}>\n{text}\n</{name}>"


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own writes \\u003c for <, for web pages; a model is to read <."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


@cache
def _environment() -> jinja2.Environment:
    """What templates may do: the sandbox's filters and loops; no other file, no chance, no unknown names."""
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
    )
    environment.filters |= {"delimited": delimited, "tojson": _to_json}
    del environment.filters["random"]
    environment.globals = {"range": environment.globals["range"], "namespace": jinja2.utils.Namespace}
    return environment


def _split(text: str, path: str) -> tuple[str, str, int]:
    """The YAML, the body, and the line at which the body begins."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        raise ConfigError(
            "a prompt begins with its header", where=f"{path}, line 1", fix="begin with ---, name and version"
        )
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :]), number + 2
    raise ConfigError("the header has no end", where=path, fix="put --- on a line of its own after it")


def _mapping(top: str, path: str) -> dict[str, Any]:
    try:
        content = yaml.load(top, Loader=_StrictLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 2}" if mark else path
        raise ConfigError(f"not valid YAML: {getattr(error, 'problem', error)}", where=where) from None
    if not isinstance(content, dict):
        raise ConfigError(
            "the header must be keys and values", where=path, fix="give at least name and version"
        )
    return content


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would keep the last in silence. Dates stay texts, as in JSON."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


def _sections(body: str, first: int, path: str) -> Iterator[Section]:
    lines = body.split("\n")
    starts = [(number, found[1]) for number, line in enumerate(lines) if (found := _ROLE.fullmatch(line))]
    if not starts:
        starts, lines = [(-1, "user")], lines
    elif any(line.strip() for line in lines[: starts[0][0]]):
        raise ConfigError(
            "there is text before the first message",
            where=f"{path}, line {first}",
            fix="begin with a line that is @system or @user",
        )
    ends = [number for number, _ in starts[1:]] + [len(lines)]
    for (start, role), end in zip(starts, ends, strict=True):
        own = lines[start + 1 : end]
        blank = next((i for i, line in enumerate(own) if line.strip()), len(own))
        source = _ESCAPED_ROLE.sub("@", "\n".join(own[blank:])).rstrip()
        if not source:
            where = f"{path}, line {first + max(start, 0)}"
            raise ConfigError(f"the message of the {role} has no text", where=where)
        yield Section(role, source, first + start + 1 + blank)  # pyright: ignore[reportArgumentType]


def _pairs(tree: Any) -> list[tuple[str, Any]]:
    return [(key.value, value) for key, value in tree.value]


def _keys(tree: Any) -> list[tuple[str, int]]:
    return [(key.value, key.start_mark.line) for key, _ in tree.value]
