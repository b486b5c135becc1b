"""From messages to the ids that the model reads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from glasshouse.server.body import LARGE
from glasshouse.server.errors import Dialect, bad_request, too_long
from glasshouse.server.service import Service
from glasshouse.tokenizer import Tokenizer


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
    size = sum(len(text) for message in messages for text in message.values() if isinstance(text, str))
    _check_size(service, dialect, size + len(prefill or ""))

    def encode() -> list[int]:
        ids = service.tokenizer.encode_chat(messages, add_generation_prompt=True, tools=tools or None).ids
        return extended(service.tokenizer, ids, prefill) if prefill else ids

    ids = await asyncio.to_thread(encode) if size > LARGE else encode()
    return checked(service, dialect, ids)


async def encode_text(service: Service, dialect: Dialect, text: str, begins: bool) -> tuple[int, ...]:
    """Ids of a text in which names of special tokens are those tokens; `begins`: it begins a document."""
    _check_size(service, dialect, len(text))
    tokenizer = service.tokenizer
    long = len(text) > LARGE
    ids = await asyncio.to_thread(tokenizer.encode_with_special, text) if long else None
    ids = tokenizer.encode_with_special(text) if ids is None else ids
    if begins and ids[:1] != [tokenizer.bos_id]:
        ids = [tokenizer.bos_id, *ids]
    if not ids:
        raise bad_request("the prompt is empty: give at least one token", "prompt")
    return checked(service, dialect, ids)


def checked(service: Service, dialect: Dialect, ids: Sequence[int]) -> tuple[int, ...]:
    """The ids. Raises ApiError 400 where the context does not hold them or the vocabulary lacks one."""
    if len(ids) > service.context:
        raise too_long(dialect, str(len(ids)), service.context)
    vocabulary = service.model.model.config.vocab_size
    if max(ids) >= vocabulary:
        raise bad_request(f"token id {max(ids)} is outside the vocabulary of {vocabulary}", "prompt")
    return tuple(ids)


def _check_size(service: Service, dialect: Dialect, characters: int) -> None:
    """A text that cannot fit, however its tokens fall, is not encoded at all."""
    least = characters // service.longest_token
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
