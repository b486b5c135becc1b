"""Conversations and tools of OpenAI's shape as Anthropic's messages API has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glasshouse.llm.errors import BadRequestError
from glasshouse.llm.interface import Message

Block = dict[str, Any]

_DATA_URL = re.compile(r"data:([\w/+.-]+);base64,(.*)", re.DOTALL)


def translated(
    messages: Sequence[Message], where: str, thoughts: Callable[[str], Sequence[Block]]
) -> tuple[str, list[Message]]:
    """(the system prompt, the turns). System messages are lifted out, wherever they stand.

    Results of tools become blocks of one user's turn, with what the user says next. `thoughts` gives the
    thinking blocks that came with a tool call, by its id: they must go back with it. Raises BadRequestError.
    """
    system: list[str] = []
    turns: list[Message] = []
    for message in messages:
        role = message["role"]
        if role in ("system", "developer"):
            system += [block["text"] for block in _blocks(message.get("content"), where) if block.get("text")]
            continue
        if role == "assistant":
            turns.append({"role": role, "content": _assistant(message, where, thoughts)})
            continue
        content = _result(message, where) if role == "tool" else _blocks(message.get("content"), where)
        if turns and turns[-1]["role"] == "user":
            turns[-1]["content"] += content
        else:
            turns.append({"role": "user", "content": content})
    return "\n\n".join(system), turns


def _assistant(message: Message, where: str, thoughts: Callable[[str], Sequence[Block]]) -> list[Block]:
    calls = message.get("tool_calls") or ()
    blocks = [dict(block) for block in (thoughts(calls[0]["id"]) if calls else ())]
    blocks += _blocks(message.get("content"), where)
    for call in calls:
        function = call["function"]
        blocks.append(
            {
                "type": "tool_use",
                "id": call["id"],
                "name": function["name"],
                "input": _arguments(function["arguments"], function["name"], where),
            }
        )
    return blocks


def _arguments(told: object, name: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(told) if isinstance(told, str) else told
    except ValueError:
        value = None
    if not isinstance(value, Mapping):
        raise BadRequestError(
            f"the arguments of a call of '{name}' are no JSON object",
            where=where,
            fix="leave that call out of the conversation, or tell the model what was wrong in its place",
        )
    return value


def _result(message: Message, where: str) -> list[Block]:
    content = _blocks(message.get("content"), where)
    return [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": content}]


def _blocks(content: object, where: str) -> list[Block]:
    """Texts and images; blank texts are left out, because the API refuses them."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
    blocks: list[Block] = []
    for part in parts:  # pyright: ignore[reportGeneralTypeIssues]
        if part.get("type") in ("text", "refusal"):
            text = part.get("text") or part.get("refusal") or ""
            if text.strip():
                blocks.append({"type": "text", "text": text})
        elif part.get("type") == "image_url":
            blocks.append({"type": "image", "source": _image(part["image_url"]["url"])})
        else:
            raise BadRequestError(
                f"content of type '{part.get('type')}' cannot be sent to this model",
                where=where,
                fix="send text or images",
            )
    return blocks


def _image(url: str) -> dict[str, str]:
    found = _DATA_URL.fullmatch(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found[1], "data": found[2]}


def tool(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A tool of OpenAI's shape."""
    function = definition["function"]
    made = {
        "name": function["name"],
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    for key in ("description", "strict"):
        if function.get(key):
            made[key] = function[key]
    return made


def tool_choice(choice: str) -> dict[str, str]:
    """`choice`: "auto", "none", "required", or the name of a tool."""
    word = {"required": "any"}.get(choice, choice)
    return {"type": word} if word in ("auto", "none", "any") else {"type": "tool", "name": choice}
