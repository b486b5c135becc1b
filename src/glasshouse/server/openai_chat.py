"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from glasshouse.inference.reply_parser import Part, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from glasshouse.inference.reply_plan import ReplyPlan
from glasshouse.inference.reply_stream import ReplyStream
from glasshouse.inference.request import Delta, Event, Finish, PromptRead, Request, TokenScore
from glasshouse.server import genai
from glasshouse.server import openai_sampling as options
from glasshouse.server.body import StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.errors import bad_request
from glasshouse.server.openai_requests import ChatRequest
from glasshouse.server.openai_responses import STREAMED, ChatCompletion
from glasshouse.server.prompts import encode_chat, template_messages
from glasshouse.server.running import Running
from glasshouse.server.service import Service
from glasshouse.server.sse import COMMENT, EventStream, event, unless_gone
from glasshouse.server.token_scores import chat_logprobs


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["OpenAI"])

    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAMED)
    async def create_chat_completion(body: ChatRequest, http: HttpRequest) -> Response:
        """A reply of the assistant; with `stream` as server-sent events."""
        chat = await _Chat.begin(service, body, Call.of(http.scope))
        running = await service.start(chat.request, chat.call)
        if body.stream:
            return EventStream(chat.stream(running), COMMENT, service.settings.ping, running.abandon)
        return JSONResponse(await unless_gone(http.receive, chat.whole(running)))

    return routes


@dataclass
class _Chat:
    """One request: what the engine is asked, and how its events become OpenAI's."""

    service: Service
    body: ChatRequest
    call: Call
    request: Request
    plan: ReplyPlan
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    async def begin(cls, service: Service, body: ChatRequest, call: Call) -> _Chat:
        asked = body.max_completion_tokens or body.max_tokens
        call.operation = genai.CHAT
        options.note(body, call, asked)
        adapter = service.adapter(body.model)
        use = options.tool_use(body)
        messages = template_messages(body.messages)
        prefill = None
        if body.continue_final_message:
            if messages[-1]["role"] != "assistant":
                raise bad_request("the last message must be the assistant's", "continue_final_message")
            prefill = messages.pop()["content"]
        prompt = await encode_chat(service, "openai", messages, use.for_template(), prefill)
        plan = ReplyPlan.of(service.tokenizer, service.form, prompt, use, options.grammar(body))
        request = Request(
            prompt=prompt,
            max_new_tokens=service.new_tokens(len(prompt), asked),
            sampling=options.sampling(body, service),
            n=body.n or 1,
            stop=options.stop_texts(body),
            stop_ids=options.stop_ids(body, service),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            grammar=plan.grammar,
            adapter=adapter,
            timeout=service.settings.request_timeout,
        )
        chat = cls(service, body, call, request, plan)
        call.response_id = chat.id
        return chat

    async def whole(self, running: Running) -> dict[str, Any]:
        replies = self._replies()
        with running:
            async for happened in running.events():
                if isinstance(happened, Delta):
                    replies[happened.choice].feed(happened)
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.body.model,
            "choices": [self._choice(index, reply) for index, reply in enumerate(replies)],
            "usage": self._usage(replies),
        }

    def _replies(self) -> list[ReplyStream]:
        parallel = self.plan.use.parallel
        return [ReplyStream(self.plan.parser(), parallel) for _ in range(self.request.n)]

    def _choice(self, index: int, reply: ReplyStream) -> dict[str, Any]:
        content = reply.text if reply.text or not reply.calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        if reply.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in reply.calls
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(reply.scores),
            "finish_reason": self._reason(reply),
        }

    async def stream(self, running: Running) -> AsyncGenerator[bytes, None]:
        """The role first, then what is added, the reason of each end, the usage if asked for, [DONE]."""
        replies = self._replies()
        try:
            with running:
                async for piece in running.written(partial(self._chunks, replies)):
                    yield piece
        except Exception as error:
            yield event(self.call.failed(error).body("openai", self.call.id))
            return
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event(self._head() | {"choices": [], "usage": self._usage(replies)})
        yield event("[DONE]")

    def _chunks(self, replies: Sequence[ReplyStream], happened: Event) -> Iterator[bytes]:
        """What an event of the engine is to the client."""
        if isinstance(happened, PromptRead):
            for index in range(self.request.n):
                yield self._chunk(index, {"role": "assistant", "content": ""})
            return
        reply = replies[happened.choice]
        for part in reply.feed(happened):
            if change := _change(part):
                yield self._chunk(happened.choice, change, scores=reply.scores)
                reply.scores = []
        if happened.finish is not None:
            yield self._chunk(happened.choice, {}, self._reason(reply), reply.scores)

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.body.model,
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        scores: Sequence[TokenScore] = (),
    ) -> bytes:
        logprobs = self._logprobs(scores) if scores else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = self._head() | {"choices": [choice]}
        if self.body.stream_options and self.body.stream_options.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _logprobs(self, scores: Iterable[TokenScore]) -> dict[str, Any] | None:
        return chat_logprobs(self.service.tokenizer, scores) if self.body.logprobs else None

    def _reason(self, reply: ReplyStream) -> str:
        finish = reply.finish or Finish("stop")
        reason = "length" if finish.reason == "length" else "tool_calls" if reply.calls else "stop"
        self.call.finish_reasons.append(reason)
        self.call.replies.append(reply.text)
        return reason

    def _usage(self, replies: Sequence[ReplyStream]) -> dict[str, Any]:
        prompt, new = len(self.request.prompt), sum(reply.new_tokens for reply in replies)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": new,
            "total_tokens": prompt + new,
            "prompt_tokens_details": {"cached_tokens": self.call.cached_tokens},
            "completion_tokens_details": {
                "reasoning_tokens": sum(reply.reasoning_tokens for reply in replies)
            },
        }


def _change(part: Part) -> dict[str, Any] | None:
    match part:
        case TextDelta():
            return {"content": part.text}
        case ReasoningDelta():
            return {"reasoning_content": part.text}
        case ToolCallStart():
            function = {"name": part.name, "arguments": ""}
            return _tool_call(part.index, {"id": part.id, "type": "function", "function": function})
        case ToolCallDelta():
            return _tool_call(part.index, {"function": {"arguments": part.arguments}})
    return None


def _tool_call(index: int, told: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **told}]}
