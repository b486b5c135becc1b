"""POST /v1/messages in front of a server with OpenAI's API: translated there and back."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from glasshouse.inference.reply_parser import (
    Part,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from glasshouse.llm import genai
from glasshouse.server.anthropic_blocks import Blocks
from glasshouse.server.anthropic_messages import PING
from glasshouse.server.anthropic_prompt import conversation
from glasshouse.server.anthropic_types import (
    STREAMED,
    AssistantMessage,
    CountTokensRequest,
    MessagesRequest,
    ThinkingAdaptive,
    ThinkingEnabled,
    ToolChoiceNone,
    ToolChoiceTool,
)
from glasshouse.server.body import StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError
from glasshouse.server.proxy import Proxy, Tally
from glasshouse.server.proxy_openai import begin, read_answer
from glasshouse.server.signatures import Signer
from glasshouse.server.sse import EventStream, event, unless_gone
from glasshouse.server.upstream import broken_off, data_of, events

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def router(service: Proxy) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["Anthropic"])

    @routes.post("/v1/messages", response_model=AssistantMessage, responses=STREAMED)
    async def create_message(body: MessagesRequest, http: HttpRequest) -> Response:
        """A reply of the assistant; with `stream` as named server-sent events."""
        call = Call.of(http.scope)
        call.operation, call.model, call.stream = genai.CHAT, body.model, bool(body.stream)
        body.note(call)
        fields = service.limited(translated(body, service.target(body.model), service.signer))
        tally = Tally(call)
        tally.begin(fields)
        message = _Message(body, call, tally, service.signer)
        if body.stream:
            pieces = message.stream(service, fields)
            await unless_gone(http.receive, begin(pieces))
            return EventStream(pieces, PING, service.settings.ping, lambda: None)
        seconds = service.settings.request_timeout
        asked = service.upstream.whole("POST", "/chat/completions", fields, call, seconds)
        raw, headers = await unless_gone(http.receive, asked)
        return JSONResponse(message.whole(await read_answer(raw)), headers=headers)

    return routes


def translated(body: MessagesRequest, model: str, signer: Signer) -> dict[str, Any]:
    """The body of a chat completion that asks for the same. Raises ApiError 400 as `conversation` does.

    top_k and seed are no fields of OpenAI's own, nor is going on with a beginning of the reply: they are
    there only where the client asks for them, as vLLM, llama.cpp and we call them.
    """
    messages, prefill = conversation(body, signer)
    made: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in messages],
        "max_tokens": body.max_tokens,
    }
    if prefill is not None:
        made["messages"].append({"role": "assistant", "content": prefill})
        made |= {"continue_final_message": True, "add_generation_prompt": False}
    same = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "seed": body.seed,
        "stop": body.stop_sequences or None,
    }
    made |= {name: value for name, value in same.items() if value is not None}
    if body.output_config and (output := body.output_config.format):
        schema = {"name": "reply", "schema": output.schema_, "strict": True}
        made["response_format"] = {"type": "json_schema", "json_schema": schema}
    if body.tools:
        made |= _tools(body)
    if body.stream:
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    return made


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A template's message as OpenAI's wire has it: arguments are a text there."""
    calls = [
        call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return message | ({"tool_calls": calls, "content": message["content"] or None} if calls else {})


def _tools(body: CountTokensRequest) -> dict[str, Any]:
    tools = []
    for tool in body.tools or ():
        function = {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input_schema,
            "strict": tool.strict,
        }
        told = {name: value for name, value in function.items() if value is not None}
        tools.append({"type": "function", "function": told})
    match body.tool_choice:
        case None:
            return {"tools": tools}
        case ToolChoiceNone():
            return {"tools": tools, "tool_choice": "none"}
        case ToolChoiceTool() as chosen:
            choice: Any = {"type": "function", "function": {"name": chosen.name}}
        case chosen:
            choice = "required" if chosen.type == "any" else "auto"
    parallel = {"parallel_tool_calls": False} if chosen.disable_parallel_tool_use else {}
    return {"tools": tools, "tool_choice": choice, **parallel}


class _Message:
    """One reply: OpenAI's choice, whole or in pieces, as Anthropic's message."""

    def __init__(self, body: MessagesRequest, call: Call, tally: Tally, signer: Signer) -> None:
        self._body, self._call, self._tally = body, call, tally
        self._id = f"msg_{secrets.token_hex(12)}"
        thinking = body.thinking
        told = "none"
        if isinstance(thinking, ThinkingEnabled | ThinkingAdaptive):
            told = "omitted" if thinking.display == "omitted" else "told"
        self._blocks = Blocks(signer, told)
        self._calling: int | None = None  # the tool call that is open
        self._called = self._refused = False
        self._reason, self._sequence = "stop", None
        self._thoughts = 0

    def whole(self, told: dict[str, Any]) -> dict[str, Any]:
        """Raises ApiError 502 for an answer without a choice."""
        for _ in self._blocks_of(told):
            pass
        if not told.get("choices"):
            raise ApiError(502, "the server behind this one answered without a choice", code="upstream_odd")
        self._blocks.finish()
        reason, sequence = self._stop()
        self._tally.finish()
        self._call.response_id = self._id
        return self._head() | {
            "content": self._blocks.whole,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": self._usage(),
        }

    async def stream(self, service: Proxy, fields: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """message_start, the blocks one after the other, message_delta, message_stop.

        How long the prompt is stands in message_delta only: the server behind tells it at the end.
        """
        call, seconds = self._call, service.settings.request_timeout
        async with service.upstream.asked("POST", "/chat/completions", fields, call, seconds) as response:
            yield b""
            try:
                empty = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": self._usage()}
                yield (
                    event({"type": "message_start", "message": self._head() | empty}, "message_start") + PING
                )
                async for together in events(response, call, seconds):
                    made = [each for one in together for each in self._blocks_of(data_of(one))]
                    if made:
                        yield b"".join(event(each, each["type"]) for each in made)
                if not self._tally.ended:
                    raise broken_off()
                for each in self._blocks.finish():
                    yield event(each, each["type"])
                reason, sequence = self._stop()
                change = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None}
                change |= {"container": None}
                last = {"type": "message_delta", "delta": change, "usage": self._usage()}
                yield event(last, "message_delta") + event({"type": "message_stop"}, "message_stop")
            except Exception as error:
                yield event(call.failed(error).body("anthropic", call.id), "error")
            finally:
                call.response_id = self._id
                self._tally.finish()

    def _blocks_of(self, told: Any) -> Iterator[dict[str, Any]]:
        """The events that an answer, or a piece of one, is to an Anthropic client. Raises ApiError."""
        self._tally.add(told)
        if not isinstance(told, dict):
            return
        if "error" in told:
            inner = told["error"] if isinstance(told["error"], dict) else {}
            raise ApiError(502, str(inner.get("message") or "the server behind this one failed"))
        details = (told.get("usage") or {}).get("completion_tokens_details") or {}
        self._thoughts = details.get("reasoning_tokens") or self._thoughts
        for choice in told.get("choices") or ():
            for part in self._parts(choice.get("delta") or choice.get("message") or {}):
                yield from self._blocks.feed(part)
            if choice.get("finish_reason"):
                self._reason = choice["finish_reason"]
            if isinstance(
                stopped := choice.get("stop_reason"), str
            ):  # vLLM's word for the text that ended it
                self._sequence = stopped

    def _parts(self, said: dict[str, Any]) -> Iterator[Part]:
        if thought := said.get("reasoning_content") or said.get("reasoning"):
            yield ReasoningDelta(thought)
        if text := said.get("content"):
            yield TextDelta(text)
        if refusal := said.get("refusal"):
            self._refused = True
            yield TextDelta(refusal)
        for place, call in enumerate(said.get("tool_calls") or ()):
            index, function = call.get("index", place), call.get("function") or {}
            if index != self._calling:
                if self._calling is not None:
                    yield ToolCallEnd(self._calling)
                self._calling, self._called = index, True
                yield ToolCallStart(index, function.get("name") or "", call.get("id"))
            if arguments := function.get("arguments"):
                yield ToolCallDelta(index, arguments)

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._body.model}

    def _stop(self) -> tuple[str, str | None]:
        reason = STOP_REASONS.get(self._reason, "end_turn")
        if self._refused:
            reason = "refusal"
        elif self._called and reason == "end_turn":  # a named tool ends with "stop" in OpenAI's format
            reason = "tool_use"
        elif self._sequence is not None and reason == "end_turn":
            return "stop_sequence", self._sequence
        return reason, None

    def _usage(self) -> dict[str, Any]:
        call = self._call
        return {
            "input_tokens": call.prompt_tokens - call.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": call.cached_tokens,
            "output_tokens": call.new_tokens,
            "output_tokens_details": {"thinking_tokens": self._thoughts},
        }
