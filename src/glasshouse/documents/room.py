"""How long a part of a document may be, so that its prompt and its reply fit in the model's context.

Tokens are counted exactly where the model counts them, piece by piece where it runs in this process. Over a
network that would be a call for every sentence: there the document is cut by the share of tokens to bytes
that one exact count of its beginning gives, and every finished prompt is counted exactly before it is asked.
Elsewhere tokens are estimated, and the result says so.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Set
from dataclasses import dataclass

from glasshouse.core.errors import ConfigError
from glasshouse.documents.chunking.chunks import Chunk, chunk
from glasshouse.documents.question import Question, room_for_reply
from glasshouse.files.document import Document
from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import LLM, Request
from glasshouse.llm.prices import prompt_bound

LIMIT = 8000
"""Tokens of a part where the context would hold more. Models find less in the middle of very long prompts
(arXiv:2307.03172), and parts are read at the same time; that it is 8,000 is an assumption."""

NEIGHBOURS = 64
"""Tokens of what stands before and after a part that are shown with it, each, where the prompt takes them."""

HEADINGS = 96
"""Tokens kept for the headings above a part: an assumption; the finished prompt is counted."""

LEAST = 32
"""Tokens of a part below which nothing can be found in it."""

BYTES_PER_TOKEN = 3.0
"""Where nobody counts: holds for English and large vocabularies (llm/fit.py)."""

SAMPLE = 4000
"""Characters of a document by which tokens to bytes are measured."""

AIR = 1.1
"""Parts of a text have other shares of tokens to bytes than its beginning: an assumption, checked after."""

ROUNDS = 6


@dataclass(frozen=True)
class Parts:
    """A document in parts that fit. `room`: tokens for each reply; `exact`: whether tokens were counted."""

    chunks: tuple[Chunk, ...]
    room: int
    exact: bool


async def parts(
    llm: LLM,
    question: Question,
    document: Document,
    *,
    chunk_tokens: int | None = None,
    abbreviations: Set[str] = frozenset(),
) -> Parts:
    """Raises ConfigError where the prompt alone leaves no room in the model's context."""
    room = room_for_reply(question.template, llm)
    empty = question.request(llm, room, "")
    schema = 0 if llm.can.any_schema else _bytes(json.dumps(question.reply_schema(None)))
    again = 0 if llm.can.any_schema else room + HEADINGS  # a reply that is asked anew stands in the prompt
    text_bytes = _bytes(document.text)
    longest = prompt_bound(empty) + schema + text_bytes + room + again  # with a token for each byte
    free = text_bytes <= (chunk_tokens or LIMIT) and (llm.context is None or longest <= llm.context)
    exact, count, overhead = await _counting(llm, empty, document.text, free)
    capacity = None
    if llm.context is not None:
        capacity = llm.context - overhead - math.ceil(schema / BYTES_PER_TOKEN) - room - again
    neighbours = NEIGHBOURS if question.takes("before") or question.takes("after") else 0
    limit = min(most for most in (capacity, chunk_tokens or LIMIT) if most is not None)
    if capacity is not None and capacity < LEAST:
        raise ConfigError(
            f"the prompt needs about {overhead} tokens and the reply {room}, which leaves "
            f"{max(capacity, 0)} of a context of {llm.context} for the document",
            where=f"{llm.name}, {question.template.path}",
            fix="ask a model with a longer context, or name a domain whose prompts are shorter",
        )
    for _ in range(ROUNDS):
        whole = await asyncio.to_thread(count, document.text) <= limit
        around = 0 if whole or capacity is None else _around(question, neighbours, limit)
        made = await asyncio.to_thread(
            chunk,
            document,
            limit - around,
            count,
            abbreviations=frozenset(abbreviations),
            context=0 if whole or limit < 8 * NEIGHBOURS else neighbours,
        )
        found = Parts(tuple(made), room, exact)
        over = 0 if free or not exact else await _over(llm, question, found, schema, again)
        if over <= 0:
            return found
        limit = max(min(limit - over, limit * 9 // 10), 1)
    raise ConfigError(
        f"the document cannot be cut into parts that fit in a context of {llm.context} tokens",
        where=f"{llm.name}, {document.name}",
        fix="set chunk_tokens to less",
    )


def _around(question: Question, neighbours: int, limit: int) -> int:
    """Tokens of what is shown beside a part."""
    headings = HEADINGS if question.takes("headings") else 0
    return min(2 * (neighbours if limit >= 8 * NEIGHBOURS else 0) + headings, limit // 4)


async def _counting(
    llm: LLM, empty: Request, text: str, free: bool
) -> tuple[bool, Callable[[str], int], int]:
    """(whether tokens are counted, a count of texts for code without an event loop, tokens of the prompt
    without a document)"""
    if llm.can.counts_tokens and llm.can.any_schema:
        loop = asyncio.get_running_loop()
        bare = empty.model_copy(update={"messages": ({"role": "user", "content": ""},)})
        none = await llm.count_tokens(bare)
        known: dict[str, int] = {}

        def exactly(piece: str) -> int:
            if piece not in known:
                asked = bare.model_copy(update={"messages": ({"role": "user", "content": piece},)})
                known[piece] = asyncio.run_coroutine_threadsafe(llm.count_tokens(asked), loop).result() - none
            return known[piece]

        return True, exactly, await llm.count_tokens(empty)
    share, overhead, exact = 1 / BYTES_PER_TOKEN, math.ceil(prompt_bound(empty) / BYTES_PER_TOKEN), False
    if llm.can.counts_tokens and not free:
        piece = text[:SAMPLE]
        longer = empty.model_copy(update={"messages": (*empty.messages, {"role": "user", "content": piece})})
        try:
            overhead, both = await asyncio.gather(llm.count_tokens(empty), llm.count_tokens(longer))
            share, exact = AIR * (both - overhead) / max(_bytes(piece), 1), True
        except LLMError:  # a server that turns out not to count
            pass
    return exact, lambda piece: math.ceil(_bytes(piece) * share), overhead


async def _over(llm: LLM, question: Question, parts: Parts, schema: int, again: int) -> int:
    """Tokens by which the longest finished prompt is too long for the context."""
    if llm.context is None:
        return 0
    requests = [part_request(llm, question, parts, piece) for piece in parts.chunks]
    counts = await asyncio.gather(*(llm.count_tokens(request) for request in requests))
    longest = max(counts, default=0) + math.ceil(schema / BYTES_PER_TOKEN)
    return longest + parts.room + again - llm.context


def part_request(llm: LLM, question: Question, parts: Parts, piece: Chunk, sample: int = 0) -> Request:
    """The question about one part."""
    return question.request(
        llm,
        parts.room,
        piece.text,
        headings=piece.headings,
        before=piece.before,
        after=piece.after,
        sample=sample,
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
