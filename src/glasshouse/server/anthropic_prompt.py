"""Messages of Anthropic's shape as chat templates expect them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from glasshouse.inference.reply_plan import ToolUse
from glasshouse.inference.template_messages import with_tool_names
from glasshouse.server.anthropic_types import (
    AssistantMessageParam,
    CountTokensRequest,
    TextBlockParam,
    ThinkingBlockParam,
    ToolChoiceNone,
    ToolChoiceTool,
    ToolResultBlockParam,
    ToolUseBlockParam,
    UserMessageParam,
)
from glasshouse.server.errors import bad_request
from glasshouse.server.prompts import encode_chat
from glasshouse.server.service import Service
from glasshouse.server.signatures import Signer
from glasshouse.tools.definition import ToolDefinition


async def encode(
    service: Service, body: CountTokensRequest, tools: Sequence[dict[str, Any]]
) -> tuple[int, ...]:
    """Ids of the whole prompt. A last message of the assistant's is a beginning that the reply goes on with.

    Raises ApiError 400 for a thinking block that we did not sign, and for a prompt that is too long.
    """
    messages: list[dict[str, Any]] = []
    if body.system is not None:
        messages.append({"role": "system", "content": _text(body.system)})
    for message in body.messages:
        for made in _messages(message, service.signer):
            last: dict[str, Any] = messages[-1] if messages else {"role": ""}
            if made["role"] == last["role"] == "user":  # consecutive turns of one role are one turn
                last["content"] += "\n" + made["content"]
            elif made["role"] == last["role"] == "assistant":
                last["content"] += made["content"]
                if calls := made.get("tool_calls"):
                    last.setdefault("tool_calls", []).extend(calls)
            else:
                messages.append(made)
    prefill = None
    last = messages[-1]
    if last["role"] == "assistant":
        if last.get("tool_calls"):
            raise bad_request("messages: a tool_use must be followed by its tool_result")
        prefill = messages.pop()["content"]
        if prefill != prefill.rstrip():
            raise bad_request("messages: final assistant content cannot end with trailing whitespace")
        if not messages:
            raise bad_request("messages: at least one message of the user is needed")
    return await encode_chat(service, "anthropic", with_tool_names(messages), tools, prefill)


def _messages(message: Any, signer: Signer) -> Iterator[dict[str, Any]]:
    """One message as one or more: results of tools are messages of their own."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
    elif isinstance(message, UserMessageParam):
        yield from _user_messages(message)
    elif isinstance(message, AssistantMessageParam):
        yield _assistant_message(message, signer)
    else:
        yield {"role": message.role, "content": _text(message.content)}


def _user_messages(message: UserMessageParam) -> Iterator[dict[str, Any]]:
    texts: list[str] = []
    for block in message.content:
        if isinstance(block, ToolResultBlockParam):
            text = _text(block.content or "")
            content = f"Error: {text}" if block.is_error else text
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
        elif isinstance(block, TextBlockParam):
            texts.append(block.text)
    if texts or not message.content:
        yield {"role": "user", "content": "\n".join(texts)}


def _assistant_message(message: AssistantMessageParam, signer: Signer) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": ""}
    for block in message.content:
        if isinstance(block, TextBlockParam):
            made["content"] += block.text
        elif isinstance(block, ThinkingBlockParam):
            if not signer.valid(block.thinking, block.signature):
                raise bad_request(
                    "messages: invalid `signature` in `thinking` block: send it back as it was received, "
                    "or leave it out (signatures of an earlier start of this server are not known)"
                )
            made["reasoning_content"] = made.get("reasoning_content", "") + block.thinking
        elif isinstance(block, ToolUseBlockParam):
            function = {"name": block.name, "arguments": block.input}
            made.setdefault("tool_calls", []).append(
                {"id": block.id, "type": "function", "function": function}
            )
    return made


def _text(content: str | Sequence[TextBlockParam]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def tool_use(body: CountTokensRequest) -> ToolUse:
    """The tools and `tool_choice`. Raises an error for a choice that is no tool of the request."""
    tools = [ToolDefinition.from_anthropic(tool.model_dump()) for tool in body.tools or ()]
    match body.tool_choice:
        case None | ToolChoiceNone():
            return ToolUse.of(tools, "auto" if body.tool_choice is None else "none", None, True)
        case ToolChoiceTool() as chosen:
            return ToolUse.of(tools, "required", chosen.name, not chosen.disable_parallel_tool_use)
        case chosen:
            choice = "required" if chosen.type == "any" else "auto"
            return ToolUse.of(tools, choice, None, not chosen.disable_parallel_tool_use)
