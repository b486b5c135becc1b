"""Messages of OpenAI's shape as chat templates expect them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from glasshouse.core.errors import UsageError


def template_messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One text a message, system for developer, arguments as an object, results with their tools' names.

    Raises UsageError for content that is no text.
    """
    return with_tool_names([_template_message(message) for message in messages])


def _template_message(message: Mapping[str, Any]) -> dict[str, Any]:
    made = {**message, "content": _text(message.get("content"))}
    if message["role"] == "developer":
        made["role"] = "system"
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": arguments_object(call["function"]["arguments"]),
                },
            }
            for call in calls
        ]
    return made


def _text(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:  # pyright: ignore[reportGeneralTypeIssues]
        if part.get("type") != "text":
            raise UsageError(f"this model reads text only, not content of type '{part.get('type')}'")
    return "".join(part["text"] for part in content)  # pyright: ignore[reportGeneralTypeIssues]


def with_tool_names(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, results of tools with their tools' names, which some templates want."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool" and message["tool_call_id"] in names:
            message["name"] = names[message["tool_call_id"]]
    return messages


def arguments_object(arguments: Any) -> Any:
    """Arguments as templates want them; what is no JSON object stays the text that it was."""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments
