"""From messages to the ids that the model reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from glasshouse.inference.template_messages import arguments_object, with_tool_names
from glasshouse.server.body import LARGE
from glasshouse.server.errors import Dialect, bad_request, too_long
from glasshouse.server.openai_requests import AssistantMessage, Message, TextPart
from glasshouse.server.service import Service
from glasshouse.tokenizer import Tokenizer

T = TypeVar("T")


async def off_loop(work: Callable[..., T], *given: Any, size: int) -> T:
    """The work's result; where `size` is large, another thread does it and the event loop goes on."""
    return await asyncio.to_thread(work, *given) if size > LARGE else work(*given)


def text_size(messages: Sequence[Mapping[str, Any]]) -> int:
    """Characters of the messages' contents."""
    return sum(len(text) for message in messages for text in message.values() if isinstance(text, str))


async def encode_chat(
    service: Service,
    dialect: Dialect,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    prefill: str | None = None,
) -> tuple[int, ...]:
    """Ids of a conversation up to where the assistant's reply begins, or goes on after `prefill`.

    Raises ApiError 400 where the context does not hold it, DataError where the template refuses it.
    """
    size = text_size(messages) + len(prefill or "")
    _check_size(service, dialect, size)

    def encode() -> list[int]:
        ids = service.tokenizer.encode_chat(messages, add_generation_prompt=True, tools=tools or None).ids
        return extended(service.tokenizer, ids, prefill) if prefill else ids

    return checked(service, dialect, await off_loop(encode, size=size))


async def encode_prompts(
    service: Service, prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]], begins: bool
) -> list[tuple[int, ...]]:
    """The ids of one prompt or many, given as texts or as ids. Raises ApiError 400 as `encode_text` does."""
    one = isinstance(prompt, str) or isinstance(prompt[0], int)
    several = cast("Sequence[str | Sequence[int]]", [prompt] if one else prompt)
    return [
        await encode_text(service, item, begins)
        if isinstance(item, str)
        else checked(service, "openai", item)
        for item in several
    ]


async def encode_text(service: Service, text: str, begins: bool) -> tuple[int, ...]:
    """Ids of a text in which names of special tokens are those tokens; `begins`: it begins a document.

    Raises ApiError 400 where the context does not hold it.
    """
    _check_size(service, "openai", len(text))
    tokenizer = service.tokenizer
    ids = await off_loop(tokenizer.encode_with_special, text, size=len(text))
    if not ids or (begins and ids[0] != tokenizer.bos_id):  # nothing at all is the beginning of a document
        ids = [tokenizer.bos_id, *ids]
    return checked(service, "openai", ids)


def checked(service: Service, dialect: Dialect, ids: Sequence[int]) -> tuple[int, ...]:
    """The ids. Raises ApiError 400 where the context does not hold them or the vocabulary lacks one."""
    if len(ids) > service.context:
        raise too_long(dialect, str(len(ids)), service.context)
    vocabulary = service.tokenizer.vocab_size
    if max(ids) >= vocabulary:
        raise bad_request(f"token id {max(ids)} is outside the vocabulary of {vocabulary}", "prompt")
    return tuple(ids)


def _check_size(service: Service, dialect: Dialect, characters: int) -> None:
    """A text that cannot fit, however its tokens fall, is not encoded at all."""
    least = characters // (4 * service.longest_token)  # 4: normalization may shorten a text
    if least > service.context:
        raise too_long(dialect, f"at least {least}", service.context)


def extended(tokenizer: Tokenizer, ids: list[int], more: str) -> list[int]:
    """The ids of a prompt and of a text that goes on behind it, its last plain text encoded in one piece."""
    special = frozenset(tokenizer.special.values())
    cut = next((place for place in range(len(ids), 0, -1) if ids[place - 1] in special), 0)
    tail = tokenizer.decode(ids[cut:])
    if tokenizer.encode(tail) == ids[cut:]:  # not so where a tokenizer forgets white space
        return ids[:cut] + tokenizer.encode(tail + more)
    return ids + tokenizer.encode(more)


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: one text, system for developer, arguments as an object."""
    return with_tool_names([_template_message(message) for message in messages])


def _template_message(message: Message) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    made: dict[str, Any] = {"role": role, "content": _text(message.content)}
    if isinstance(message, AssistantMessage):
        if message.reasoning_content:
            made["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            made["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": arguments_object(call.function.arguments),
                    },
                }
                for call in message.tool_calls
            ]
    elif message.role == "tool":
        made["tool_call_id"] = message.tool_call_id
    return made


def _text(content: str | Sequence[Any] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)
