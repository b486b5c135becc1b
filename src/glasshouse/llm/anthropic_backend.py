"""Anthropic's models, over its own SDK.

Its API has no seed and no log-probabilities, and since its version 2026-10-21, which the SDK sends, neither
temperature nor top_p: they are not sent, and told in `Completion.ignored`.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anthropic import APIStatusError, AsyncAnthropic, transform_schema

from glasshouse.llm.anthropic_messages import Block, tool, tool_choice, translated
from glasshouse.llm.errors import LLMError, NotAbleError
from glasshouse.llm.http_failures import broken, garbled
from glasshouse.llm.interface import Capabilities, Chunk, Completion, Finish, Request, Usage
from glasshouse.llm.remote import TIMEOUT, Remote, patience
from glasshouse.llm.unsupported import ignored, turned_down

NEVER = ("temperature", "top_p", "seed", "logprobs")
"""Settings of a request that this API has not."""

REMEMBERED = 1000
"""Tool calls whose thinking blocks are kept, to be sent back with them; older ones are forgotten."""

_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}


class AnthropicLLM(Remote[AsyncAnthropic]):
    """One model of Anthropic's, or of a server at `base_url` that speaks its messages API.

    `extra_body` goes along with every call: {"thinking": {"type": "adaptive"}}, for example. `timeout` is in
    seconds without a byte; `context` in tokens.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str | None = None,
        name: str | None = None,
        timeout: float = TIMEOUT,
        context: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        def make() -> AsyncAnthropic:
            return AsyncAnthropic(
                api_key=api_key,
                base_url=base_url,
                max_retries=0,
                timeout=patience(timeout),
                open_telemetry=False,  # the layer Monitor tells each call, whoever serves it
            )

        super().__init__(name or f"anthropic:{model}", make, AsyncAnthropic.close, [api_key], context)
        self.model, self._extra_body = model, dict(extra_body or {})
        self._thoughts: OrderedDict[str, list[Block]] = OrderedDict()
        self._gone: set[str] = set()
        self.can = Capabilities(
            **dict.fromkeys(NEVER, False),
            counts_tokens=True,  # pyright: ignore[reportArgumentType]
        )

    async def complete(self, request: Request) -> Completion:
        began, reply = time.perf_counter(), _Reply(self.name)
        message = await self.asked(self._create(request, stream=False))
        reply.whole(message)
        return self._done(request, reply, time.perf_counter() - began, None, message._request_id)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        began, first, reply = time.perf_counter(), None, _Reply(self.name)
        events = await self.asked(self._create(request, stream=True))
        failure: LLMError | None = None
        try:
            async for event in events:
                text, thought = reply.event(event)
                if text or thought:
                    first = first or time.perf_counter() - began
                    yield Chunk(text, thought)
            reply.check_end()
        except Exception as error:
            failure = self.explain(error, reply.text, begun=True)
        finally:
            await events.close()
        if failure is not None:
            failure.usage = reply.usage
            raise failure
        id = events.response.headers.get("request-id")
        done = self._done(request, reply, time.perf_counter() - began, first, id)
        yield Chunk(completion=done)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise NotAbleError("Anthropic makes no vectors", where=self.name, fix="name an embedding model")

    async def count_tokens(self, request: Request) -> int:
        """Exact: the API counts, free of charge."""
        body = self._body(request)
        kept = ("model", "messages", "system", "tools", "tool_choice", "output_config", "extra_body")
        asked = {key: value for key, value in body.items() if key in kept}
        told = await self.asked(self.client.messages.count_tokens(**asked))
        if not isinstance(told.input_tokens, int):
            raise garbled("it is no count of tokens", self.name)
        return told.input_tokens

    async def _create(self, request: Request, stream: bool) -> Any:
        """The SDK's message, or its stream of events."""
        body = self._body(request)
        while True:
            try:
                return await self.client.messages.create(**body, stream=stream)
            except APIStatusError as error:
                droppable = [name for name in ("output_config", "stop_sequences") if name in body]
                gone = turned_down(error.body, droppable) if error.status_code == 400 else None
                if gone is None:
                    raise
                del body[gone]
                self._gone.add({"output_config": "output_schema", "stop_sequences": "stop"}[gone])
                self.can = replace(self.can, **dict.fromkeys(self._gone, False))

    def _body(self, request: Request) -> dict[str, Any]:
        system, turns = translated(request.messages, self.name, lambda id: self._thoughts.get(id, ()))
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_new_tokens,
            "messages": turns,
        }
        if system:
            body["system"] = system
        if request.stop and "stop" not in self._gone:
            body["stop_sequences"] = list(request.stop)
        if request.tools:
            body["tools"] = [tool(definition) for definition in request.tools]
            if request.tool_choice is not None:
                body["tool_choice"] = tool_choice(request.tool_choice)
        if request.output_schema is not None and "output_schema" not in self._gone:
            schema = transform_schema(request.output_schema)
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if self._extra_body:
            body["extra_body"] = self._extra_body
        return body

    def _done(
        self, request: Request, reply: _Reply, seconds: float, first: float | None, id: str | None
    ) -> Completion:
        calls = reply.calls
        if calls and reply.thinking:
            self._thoughts[calls[0]["id"]] = reply.thinking
            while len(self._thoughts) > REMEMBERED:
                self._thoughts.popitem(last=False)
        asked = {name: getattr(request, name) for name in (*NEVER, "stop", "output_schema")}
        gone = {*NEVER, *self._gone} - set(self._extra_body)  # a server that has them all the same
        return replace(
            reply.completion(id), seconds=seconds, first_token_seconds=first, ignored=ignored(asked, gone)
        )


@dataclass
class _Reply:
    """What has come so far: blocks by their index."""

    where: str
    blocks: dict[int, Block] = field(default_factory=dict)
    reason: str | None = None
    refusal: str | None = None
    usage: Usage | None = None
    model: str = ""
    id: str | None = None

    def whole(self, message: Any) -> None:
        """A message that was not streamed. Raises GarbledReplyError."""
        try:
            self._head(message)
            self.blocks = {index: _block(block) for index, block in enumerate(message.content)}
            self._end(message)
        except (AttributeError, TypeError):
            raise garbled("it is no message", self.where) from None
        if self.reason is None:
            raise garbled("it does not say how it ended", self.where)

    def event(self, event: Any) -> tuple[str, str]:
        """An event of a stream; (new text, new thoughts). Raises GarbledReplyError."""
        try:
            match event.type:
                case "message_start":
                    self._head(event.message)
                case "content_block_start":
                    self.blocks[event.index] = _block(event.content_block)
                    if self.blocks[event.index]["type"] == "tool_use":
                        self.blocks[event.index]["json"] = ""
                case "content_block_delta":
                    return self._add(self.blocks[event.index], event.delta)
                case "message_delta":
                    self._end(event.delta)
                    self._count(event.usage)
        except (AttributeError, TypeError, KeyError):
            raise garbled("it is no event of a message", self.where) from None
        return "", ""

    def check_end(self) -> None:
        """Raises BrokenStreamError where no end was told."""
        if self.reason is None:
            raise broken("the stream ended before the reply did", self.where, self.text)

    def _add(self, block: Block, delta: Any) -> tuple[str, str]:
        match delta.type:
            case "text_delta":
                block["text"] += delta.text
                return delta.text, ""
            case "thinking_delta":
                block["thinking"] += delta.thinking
                return "", delta.thinking
            case "signature_delta":
                block["signature"] = delta.signature
            case "input_json_delta":
                block["json"] += delta.partial_json
        return "", ""

    def _head(self, message: Any) -> None:
        self.id, self.model = message.id, message.model
        self._count(message.usage)

    def _end(self, told: Any) -> None:
        self.reason = told.stop_reason or self.reason
        if (details := told.stop_details) is not None:
            self.refusal = details.explanation

    def _count(self, usage: Any) -> None:
        """All counts are totals so far; a later one may leave out what has not changed."""
        before = self.usage or Usage()
        fresh = before.prompt_tokens - before.cached_tokens - before.cache_write_tokens
        read = _known(usage.cache_read_input_tokens, before.cached_tokens)
        written = _known(usage.cache_creation_input_tokens, before.cache_write_tokens)
        details = usage.output_tokens_details
        self.usage = Usage(
            _known(usage.input_tokens, fresh) + read + written,
            usage.output_tokens,
            read,
            written,
            before.reasoning_tokens if details is None else details.thinking_tokens,
        )

    @property
    def text(self) -> str:
        return "".join(block["text"] for block in self._of("text"))

    @property
    def thinking(self) -> list[Block]:
        return self._of("thinking", "redacted_thinking")

    @property
    def calls(self) -> tuple[dict[str, Any], ...]:
        """The calls of tools in OpenAI's shape."""
        return tuple(
            {
                "id": block["id"],
                "type": "function",
                "function": {
                    "name": block["name"],
                    "arguments": block.get("json") or json.dumps(block["input"], ensure_ascii=False),
                },
            }
            for block in self._of("tool_use")
        )

    def _of(self, *kinds: str) -> list[Block]:
        return [block for _, block in sorted(self.blocks.items()) if block["type"] in kinds]

    def completion(self, id: str | None) -> Completion:
        finish = _FINISH.get(str(self.reason))
        if finish is None:
            raise garbled(f"it ended with {self.reason!r}", self.where)
        return Completion(
            self.text,
            finish,
            self.usage or Usage(),
            self.model or "",
            id or self.id,
            self.calls,
            self.refusal,
            "".join(block.get("thinking", "") for block in self.thinking) or None,
        )


def _known(value: int | None, before: int) -> int:
    return before if value is None else value


def _block(block: Any) -> Block:
    """What we read of a block, and send back of a thought."""
    match block.type:
        case "text":
            return {"type": "text", "text": block.text}
        case "thinking":
            return {"type": "thinking", "thinking": block.thinking, "signature": block.signature}
        case "redacted_thinking":
            return {"type": "redacted_thinking", "data": block.data}
        case "tool_use":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
    return {"type": str(block.type)}
