"""A tool that a model may call: the one thing that OpenAI's and Anthropic's shapes both describe."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glasshouse.core.errors import UsageError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
"""Anthropic's rule; OpenAI's is the same with 64."""


def _nothing() -> dict[str, Any]:
    """The parameters of a tool that takes none."""
    return {"type": "object", "properties": {}}


@dataclass(frozen=True)
class ToolDefinition:
    """A name, what it is for, and a JSON Schema of its arguments. Raises UsageError for what is none.

    `strict` asks that whatever the model writes as arguments follows the schema.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=_nothing)  # a JSON Schema of type "object"
    strict: bool = False

    def __post_init__(self) -> None:
        where = f"tool {self.name!r}"
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot be the name of a tool",
                where="tools",
                fix="use 1 to 128 letters, digits, underscores and hyphens",
            )
        if not isinstance(self.description, str):
            raise UsageError("the description is not a text", where=where)
        if not isinstance(self.strict, bool):
            raise UsageError("strict is neither true nor false", where=where)
        if not isinstance(self.parameters, Mapping) or self.parameters.get("type", "object") != "object":
            raise UsageError('the parameters are not a JSON Schema of type "object"', where=where)
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"the parameters are not JSON: {error}", where=where) from None

    @classmethod
    def from_openai(cls, tool: Mapping[str, Any]) -> ToolDefinition:
        """`{"type": "function", "function": {"name", "description"?, "parameters"?, "strict"?}}`."""
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
            raise UsageError('a tool must be {"type": "function", "function": {...}}', where="tools")
        return cls(
            function.get("name", ""),
            function.get("description") or "",
            function.get("parameters") or _nothing(),
            function.get("strict") or False,
        )

    @classmethod
    def from_anthropic(cls, tool: Mapping[str, Any]) -> ToolDefinition:
        """`{"name", "description"?, "input_schema"}`."""
        if not isinstance(tool, Mapping) or not isinstance(tool.get("input_schema"), Mapping):
            raise UsageError('a tool must be {"name": ..., "input_schema": {...}}', where="tools")
        return cls(
            tool.get("name", ""),
            tool.get("description") or "",
            tool["input_schema"],
            tool.get("strict") or False,
        )

    def for_template(self) -> dict[str, Any]:
        """As chat templates take their `tools`: OpenAI's shape, without `strict`."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }


def unique(tools: Sequence[ToolDefinition]) -> tuple[ToolDefinition, ...]:
    """The tools, if no two have one name; raises UsageError."""
    names = [tool.name for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two tools are called {twice[0]!r}", where="tools", fix="give each its own name")
    return tuple(tools)
