"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from glasshouse.inference.reply_plan import ReplyPlan
from glasshouse.inference.reply_stream import ReplyStream
from glasshouse.inference.request import Delta, Event, Finish, Grammar, PromptRead, Request
from glasshouse.inference.sampling import Sampling
from glasshouse.server import anthropic_prompt, genai
from glasshouse.server.anthropic_blocks import Blocks
from glasshouse.server.anthropic_types import (
    ERRORS,
    STREAMED,
    AssistantMessage,
    CountTokensRequest,
    MessagesRequest,
    ThinkingAdaptive,
    ThinkingEnabled,
    TokenCount,
)
from glasshouse.server.body import StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.openai_sampling import COLDEST
from glasshouse.server.running import Running
from glasshouse.server.service import Service
from glasshouse.server.sse import EventStream, event, unless_gone

PING = event({"type": "ping"}, "ping")


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["Anthropic"])

    @routes.post("/v1/messages", response_model=AssistantMessage, responses=STREAMED)
    async def create_message(body: MessagesRequest, http: HttpRequest) -> Response:
        """A reply of the assistant; with `stream` as named server-sent events."""
        message = await _Message.begin(service, body, Call.of(http.scope))
        running = await service.start(message.request, message.call)
        if body.stream:
            return EventStream(message.stream(running), PING, service.settings.ping, running.abandon)
        return JSONResponse(await unless_gone(http.receive, message.whole(running)))

    @routes.post("/v1/messages/count_tokens", response_model=TokenCount, responses=ERRORS)
    async def count_tokens(body: CountTokensRequest, http: HttpRequest) -> Response:
        """How many tokens a prompt has."""
        call = Call.of(http.scope)
        call.model = body.model
        body.note(call)
        service.adapter(body.model)
        tools = anthropic_prompt.tool_use(body).for_template()
        prompt = await anthropic_prompt.encode(service, body, tools)
        return JSONResponse({"input_tokens": len(prompt)})

    return routes


@dataclass
class _Message:
    """One request: what the engine is asked, and how its events become Anthropic's."""

    service: Service
    body: MessagesRequest
    call: Call
    request: Request
    plan: ReplyPlan
    id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")

    @classmethod
    async def begin(cls, service: Service, body: MessagesRequest, call: Call) -> _Message:
        _note(body, call)
        adapter = service.adapter(body.model)
        use = anthropic_prompt.tool_use(body)
        prompt = await anthropic_prompt.encode(service, body, use.for_template())
        output = body.output_config.format if body.output_config else None
        asked = Grammar("json_schema", json.dumps(output.schema_)) if output else None
        plan = ReplyPlan.of(service.tokenizer, service.form, prompt, use, asked)
        temperature = 1.0 if body.temperature is None else body.temperature
        request = Request(
            prompt=prompt,
            max_new_tokens=service.new_tokens(len(prompt), body.max_tokens),
            sampling=Sampling.parse(
                {
                    "temperature": temperature if temperature >= COLDEST else 0.0,
                    "top_k": body.top_k or None,
                    "top_p": None if body.top_p in (None, 1) else max(body.top_p, 1e-9),
                    "seed": secrets.randbits(62) if body.seed is None else body.seed,
                }
            ),
            stop=tuple(text for text in body.stop_sequences or () if text),
            stop_ids=service.model.stop_ids,
            grammar=plan.grammar,
            adapter=adapter,
            timeout=service.settings.request_timeout,
        )
        message = cls(service, body, call, request, plan)
        call.response_id = message.id
        return message

    def _reply(self) -> tuple[ReplyStream, Blocks]:
        thinking = self.body.thinking
        told = "none"
        if isinstance(thinking, ThinkingEnabled | ThinkingAdaptive):
            told = "omitted" if thinking.display == "omitted" else "told"
        reply = ReplyStream(self.plan.parser(), self.plan.use.parallel, "toolu_")
        return reply, Blocks(self.service.signer, told)

    async def whole(self, running: Running) -> dict[str, Any]:
        reply, blocks = self._reply()
        with running:
            async for happened in running.events():
                if isinstance(happened, Delta):
                    for part in reply.feed(happened):
                        blocks.feed(part)
        blocks.finish()
        reason, sequence = self._stop(reply)
        return self._head() | {
            "content": blocks.whole,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": self._usage(reply),
        }

    async def stream(self, running: Running) -> AsyncGenerator[bytes, None]:
        """message_start, the blocks one after the other, message_delta, message_stop."""
        reply, blocks = self._reply()
        try:
            with running:
                async for piece in running.written(partial(self._events, reply, blocks)):
                    yield piece
        except Exception as error:
            yield event(self.call.failed(error).body("anthropic", self.call.id), "error")
            return
        for told in blocks.finish():
            yield event(told, told["type"])
        reason, sequence = self._stop(reply)
        change = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None, "container": None}
        yield event({"type": "message_delta", "delta": change, "usage": self._usage(reply)}, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    def _events(self, reply: ReplyStream, blocks: Blocks, happened: Event) -> list[bytes]:
        """What an event of the engine is to the client."""
        if isinstance(happened, PromptRead):
            empty = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": self._usage(reply)}
            message = self._head() | empty
            return [event({"type": "message_start", "message": message}, "message_start"), PING]
        told = [each for part in reply.feed(happened) for each in blocks.feed(part)]
        return [event(each, each["type"]) for each in told]

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.body.model}

    def _stop(self, reply: ReplyStream) -> tuple[str, str | None]:
        finish = reply.finish or Finish("stop")
        reason, sequence = "end_turn", None
        if finish.reason == "length":
            full = reply.new_tokens < self.body.max_tokens and self.service.settings.max_new_tokens is None
            reason = "model_context_window_exceeded" if full else "max_tokens"
        elif isinstance(finish.stop, str):
            reason, sequence = "stop_sequence", finish.stop
        elif reply.calls:
            reason = "tool_use"
        self.call.finish_reasons.append(reason)
        self.call.replies.append(reply.text)
        return reason, sequence

    def _usage(self, reply: ReplyStream) -> dict[str, Any]:
        cached = self.call.cached_tokens
        return {
            "input_tokens": len(self.request.prompt) - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": reply.new_tokens,
            "output_tokens_details": {"thinking_tokens": reply.reasoning_tokens},
        }


def _note(body: MessagesRequest, call: Call) -> None:
    call.operation, call.model, call.stream = genai.CHAT, body.model, bool(body.stream)
    body.note(call)
    asked = {
        genai.MAX_TOKENS: body.max_tokens,
        genai.TEMPERATURE: body.temperature,
        genai.TOP_P: body.top_p,
        genai.TOP_K: body.top_k,
        genai.SEED: body.seed,
        genai.STOP_SEQUENCES: body.stop_sequences,
    }
    call.settings = {name: value for name, value in asked.items() if value is not None}
