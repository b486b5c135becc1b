"""OpenTelemetry spans, one a request, named as the conventions for generative AI say. Off unless asked for.

`console` prints them, a file gets one line of JSON each, `otlp` sends them to where the environment's
OTEL_EXPORTER_OTLP_ENDPOINT points (which needs the exporter's own package).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from glasshouse.core.errors import ConfigError, MissingExtraError
from glasshouse.llm import genai
from glasshouse.server.call import Call


class Telemetry:
    """Where spans go. Not OpenTelemetry's global provider: a server brings its own."""

    def __init__(self, where: str | None = None) -> None:
        self._provider = None if where is None else _provider(where)
        self._tracer = None if self._provider is None else self._provider.get_tracer("glasshouse.server")

    def record(self, call: Call, status: int) -> None:
        """A span with the call's own beginning; its parent is the one that the client names, if any."""
        if self._tracer is None:
            return
        name = f"{call.operation} {call.model}" if call.operation else f"{call.method} {call.route or ''}"
        span = self._tracer.start_span(
            name.strip(),
            context=_parent(call.headers),
            kind=SpanKind.SERVER,
            attributes=_attributes(call, status),
            start_time=call.started_ns,
        )
        if status >= 500:
            span.set_attribute(genai.ERROR_TYPE, str(status))
            span.set_status(Status(StatusCode.ERROR, call.error))
        span.end(call.started_ns + int(call.seconds * 1e9))

    def close(self) -> None:
        """Send what is not sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


def _attributes(call: Call, status: int) -> dict[str, str | int | float | bool | Sequence[str]]:
    made: dict[str, str | int | float | bool | Sequence[str]] = {
        genai.HTTP_METHOD: call.method,
        genai.HTTP_ROUTE: call.route or "other",
        genai.URL_PATH: call.path[:200],
        genai.HTTP_STATUS: status,
    }
    if call.operation is None:
        return made
    made |= {
        genai.OPERATION: call.operation,
        genai.PROVIDER: "glasshouse",
        genai.STREAM: call.stream,
        genai.INPUT_TOKENS: call.prompt_tokens,
        genai.CACHED_TOKENS: call.cached_tokens,
        genai.OUTPUT_TOKENS: call.new_tokens,
        genai.FINISH_REASONS: tuple(call.finish_reasons),
        **call.settings,
    }
    if call.model is not None:
        made |= {genai.REQUEST_MODEL: call.model, genai.RESPONSE_MODEL: call.model}
    if call.response_id is not None:
        made[genai.RESPONSE_ID] = call.response_id
    if call.first_token is not None:
        made[genai.FIRST_CHUNK] = call.first_token
    return made


def _parent(headers: Mapping[str, str]) -> Context:
    """The context of the W3C header `traceparent`; an empty one without it."""
    return TraceContextTextMapPropagator().extract(headers, context=Context())


def _provider(where: str) -> TracerProvider:
    # Only our own attributes: the detectors of the SDK read the machine's and the process' names.
    provider = TracerProvider(resource=Resource({"service.name": "glasshouse"}))
    match where:
        case "console":
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        case "otlp":
            provider.add_span_processor(BatchSpanProcessor(_otlp()))
        case path:
            provider.add_span_processor(SimpleSpanProcessor(_LinesOfJson(Path(path))))
    return provider


def _otlp() -> SpanExporter:
    try:
        module = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        raise MissingExtraError(
            "spans over OTLP need another package", fix="pip install opentelemetry-exporter-otlp-proto-http"
        ) from None
    return module.OTLPSpanExporter()


class _LinesOfJson(SpanExporter):
    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the file for spans cannot be written: {error.strerror}", where=path) from None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            self._file.write(span.to_json(indent=None) + "\n")
        self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()
