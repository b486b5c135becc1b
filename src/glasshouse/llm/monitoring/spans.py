"""A span around each call, named and filled as OpenTelemetry's conventions for generative AI say."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from glasshouse.llm import genai
from glasshouse.llm.interface import Message, Request
from glasshouse.llm.monitoring.call import CANCELLED, Call

_NOTHING: AbstractContextManager[None] = nullcontext()


class Spans:
    """Opens and ends them. Without a provider: OpenTelemetry's global one, silent until a program sets it.

    A failure is told by its kind. Messages of errors, headers and keys never come into a span; prompts and
    replies do where the monitor records content.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("glasshouse.llm", tracer_provider=provider)

    def begin(self, call: Call, request: Request | None) -> Span | None:
        """None where nobody listens."""
        provider, model = provider_and_model(call.asked)
        span = self._tracer.start_span(f"{call.operation} {model}", kind=SpanKind.CLIENT)
        if not span.is_recording():
            # One that sampling left out must still be above its children, or they would begin traces anew.
            return span if span.get_span_context().is_valid else None
        span.set_attributes(
            {
                genai.OPERATION: call.operation,
                genai.PROVIDER: provider,
                genai.REQUEST_MODEL: model,
                genai.STREAM: call.streamed,
                **(_settings(request) if request is not None else {}),
            }
        )
        return span

    def current(self, span: Span | None) -> AbstractContextManager[Any]:
        """Spans that are opened inside hang below this one."""
        if span is None:
            return _NOTHING
        return trace.use_span(span, record_exception=False, set_status_on_exception=False)

    def end(self, span: Span, call: Call) -> None:
        made: dict[str, Any] = {genai.TRIES: call.tries, genai.CACHE_HIT: call.cache_hit}
        if call.model:
            made[genai.RESPONSE_MODEL] = call.model
        if call.finish is not None:
            made[genai.FINISH_REASONS] = (call.finish,)
        if call.usage is not None:
            made[genai.INPUT_TOKENS] = call.usage.prompt_tokens
            made[genai.OUTPUT_TOKENS] = call.usage.new_tokens
            made[genai.CACHED_TOKENS] = call.usage.cached_tokens
            made[genai.CACHE_WRITE_TOKENS] = call.usage.cache_write_tokens
            made[genai.REASONING_TOKENS] = call.usage.reasoning_tokens
        if call.first_token_seconds is not None:
            made[genai.FIRST_CHUNK] = call.first_token_seconds
        if call.cost is not None:
            made[genai.COST] = call.cost
        if call.validation_failures:
            made[genai.VALIDATION_FAILURES] = call.validation_failures
        if call.ignored:
            made[genai.IGNORED] = call.ignored
        if call.request is not None:
            made[genai.INPUT_MESSAGES] = json.dumps(
                [_parts(m) for m in call.request.messages], ensure_ascii=False
            )
        if call.reply is not None:
            reply = _parts({"role": "assistant", "content": call.reply}) | {"finish_reason": call.finish}
            made[genai.OUTPUT_MESSAGES] = json.dumps([reply], ensure_ascii=False)
        if call.error is not None:
            made[genai.ERROR_TYPE] = call.error
            if call.error != CANCELLED:
                span.set_status(Status(StatusCode.ERROR, call.error))
            if call.status is not None:
                made[genai.HTTP_STATUS] = call.status
        span.set_attributes(made)
        span.end()


def provider_and_model(name: str) -> tuple[str, str]:
    """Of an LLM's name, as the conventions call them.

    >>> provider_and_model("anthropic:claude")
    ('anthropic', 'claude')
    >>> provider_and_model("http://127.0.0.1:8000/v1#llama")
    ('openai_compatible', 'llama')
    >>> provider_and_model("runs/pocket")
    ('glasshouse', 'runs/pocket')
    """
    if name.startswith(("http://", "https://")):
        return "openai_compatible", name.partition("#")[2] or "default"
    prefix, colon, model = name.partition(":")
    if colon and prefix.isalpha() and len(prefix) > 1 and model:
        return prefix, model
    return "glasshouse", name


def _settings(request: Request) -> dict[str, Any]:
    """What was asked for beside the messages; None was not asked for."""
    labels = request.labels
    made = {
        genai.MAX_TOKENS: request.max_new_tokens,
        genai.TEMPERATURE: request.temperature,
        genai.TOP_P: request.top_p,
        genai.SEED: request.seed,
        genai.STOP_SEQUENCES: request.stop or None,
        genai.OUTPUT_TYPE: "text" if request.output_schema is None else "json",
        genai.PROMPT_NAME: labels.get("prompt"),
        genai.PROMPT_VERSION: labels.get("version"),
        genai.EXPERIMENT: labels.get("experiment"),
        genai.ARM: labels.get("arm"),
    }
    return {name: value for name, value in made.items() if value is not None}


def _parts(message: Message) -> dict[str, Any]:
    """A message in the shape of the conventions: {"role", "parts": [{"type", "content"}]}."""
    content = message.get("content")
    parts: list[Any] = []
    if isinstance(content, str):
        parts.append({"type": "text", "content": content})
    elif content is not None:
        parts += content
    for called in message.get("tool_calls") or ():
        function = called.get("function", {})
        parts.append(
            {
                "type": "tool_call",
                "id": called.get("id"),
                "name": function.get("name"),
                "arguments": function.get("arguments"),
            }
        )
    return {"role": message.get("role"), "parts": parts}
