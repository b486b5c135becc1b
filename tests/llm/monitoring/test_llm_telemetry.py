"""Spans and metrics as OpenTelemetry and Prometheus get them."""

import asyncio
import json
import urllib.request
from collections import Counter

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families

from glasshouse.llm import Completion, Note, Usage
from glasshouse.llm.errors import NotAllowedError, RateLimitedError
from glasshouse.llm.monitoring.call import Call, next_id
from glasshouse.llm.monitoring.drift import DriftAlerts
from glasshouse.llm.monitoring.judge import Agreement, Verdict
from glasshouse.llm.monitoring.kappa import Kappa
from glasshouse.llm.monitoring.monitor import Monitor
from glasshouse.llm.monitoring.otel_metrics import OtelMetrics
from glasshouse.llm.monitoring.prometheus import PrometheusMetrics
from glasshouse.llm.monitoring.spans import Spans, provider_and_model

KEY = "sk-live-0123456789abcdef"


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.provider = provider
    return exporter


def complete(monitor, request):
    return asyncio.run(monitor.complete(request))


REPLY = Completion(
    "It is.", "stop", Usage(12, 3, 5, 2, 1), "m-2026", cost=0.25, ignored=("seed",), first_token_seconds=0.5
)


def test_a_span_has_the_names_of_the_conventions(scripted, ask, spans):
    request = ask(
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop=["."],
        output_schema={"type": "object"},
        labels={"prompt": "summary", "version": "2", "arm": "b", "experiment": "tone"},
    )
    complete(Monitor(scripted([REPLY], name="openai:m"), spans=Spans(spans.provider)), request)
    (span,) = spans.get_finished_spans()
    assert span.name == "chat m"
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": False,
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": (".",),
        "gen_ai.output.type": "json",
        "gen_ai.prompt.name": "summary",
        "glasshouse.prompt.version": "2",
        "glasshouse.experiment.name": "tone",
        "glasshouse.experiment.arm": "b",
        "gen_ai.response.model": "m-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "glasshouse.cost": 0.25,
        "glasshouse.tries": 1,
        "glasshouse.cache.hit": False,
        "glasshouse.request.ignored": ("seed",),
    }
    assert span.status.status_code is StatusCode.UNSET


def test_the_names_are_those_of_the_installed_conventions():
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

    from glasshouse.llm import genai

    ours = {
        value for name, value in vars(genai).items() if isinstance(value, str) and value.startswith("gen_ai.")
    }
    theirs = {
        value
        for module in (gen_ai_attributes, gen_ai_metrics)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    assert ours <= theirs


def test_content_comes_into_spans_only_when_told_so(scripted, ask, spans):
    request = ask("My name is Ada.")
    complete(Monitor(scripted(), spans=Spans(spans.provider)), request)
    complete(Monitor(scripted(), spans=Spans(spans.provider), content=True), request)
    without, with_content = spans.get_finished_spans()
    assert "Ada" not in without.to_json()
    assert json.loads(with_content.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "My name is Ada."}]}
    ]
    assert json.loads(with_content.attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Yes."}], "finish_reason": "stop"}
    ]


def test_a_failure_is_told_by_kind_and_without_its_message(scripted, ask, spans):
    error = NotAllowedError(f"the key {KEY} is not known", status=401)
    monitor = Monitor(scripted([error, ValueError(KEY)]), spans=Spans(spans.provider))
    for _ in range(2):
        with pytest.raises((NotAllowedError, ValueError)):
            complete(monitor, ask())
    first, second = spans.get_finished_spans()
    assert first.attributes["error.type"] == "NotAllowed"
    assert first.attributes["http.response.status_code"] == 401
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes["error.type"] == "Value"
    assert KEY not in first.to_json() + second.to_json()
    assert first.events == ()


def test_spans_of_clients_hang_below_and_the_monitors_below_the_programs(scripted, ask, spans):
    tracer = spans.provider.get_tracer("test")

    class Client(scripted):
        async def complete(self, request):
            with tracer.start_as_current_span("http"):
                return await super().complete(request)

        async def stream(self, request):
            with tracer.start_as_current_span("http"):
                pass
            async for chunk in super().stream(request):
                yield chunk

    async def talk():
        monitor = Monitor(Client(), spans=Spans(spans.provider))
        with tracer.start_as_current_span("program") as program:
            await monitor.complete(ask())
            async for _ in monitor.stream(ask()):
                assert trace.get_current_span() is program  # the reader's context stays its own

    asyncio.run(talk())
    found = {span.context.span_id: span for span in spans.get_finished_spans()}
    chains = Counter(
        (span.name, found[span.parent.span_id].name) for span in found.values() if span.parent is not None
    )
    assert chains == {("http", "chat scripted"): 2, ("chat scripted", "program"): 2}


def test_what_sampling_leaves_out_is_left_out_whole(scripted, ask, spans):
    sampler = sampling.ParentBased(sampling.ALWAYS_OFF)
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    class Client(scripted):
        async def complete(self, request):
            assert not trace.get_current_span().is_recording()
            assert trace.get_current_span().get_span_context().is_valid
            return await super().complete(request)

    complete(Monitor(Client(), spans=Spans(provider)), ask())
    assert exporter.get_finished_spans() == ()


def test_without_a_provider_nothing_is_recorded(scripted, ask):
    assert complete(Monitor(scripted()), ask()).text == "Yes."


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("openai:gpt-5", ("openai", "gpt-5")),
        ("anthropic:claude", ("anthropic", "claude")),
        ("http://127.0.0.1:8000/v1#llama", ("openai_compatible", "llama")),
        ("https://host/v1", ("openai_compatible", "default")),
        ("runs/pocket", ("glasshouse", "runs/pocket")),
        ("C:/models/m.gguf", ("glasshouse", "C:/models/m.gguf")),
    ],
)
def test_provider_and_model_of_a_name(name, found):
    assert provider_and_model(name) == found


def measured(reader):
    """{metric: {attributes: sum or value}}"""
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = metric.data.data_points
                found[metric.name] = [
                    (dict(p.attributes), getattr(p, "sum", None) or getattr(p, "value", None)) for p in points
                ]
                found[metric.name, "unit"] = metric.unit
    return found


def test_metrics_have_the_names_of_the_conventions(scripted, ask):
    reader = InMemoryMetricReader()
    metrics = OtelMetrics(MeterProvider([reader]))
    outcomes = [REPLY, Completion("", "refusal", model="m-2026"), RateLimitedError("no")]
    monitor = Monitor(scripted(outcomes, name="openai:m"), metrics)
    for _ in range(2):
        complete(monitor, ask(labels={"prompt": "summary"}))
    with pytest.raises(RateLimitedError):
        complete(monitor, ask())
    found = measured(reader)
    seconds = found["gen_ai.client.operation.duration"]
    assert found["gen_ai.client.operation.duration", "unit"] == "s"
    base = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m"}
    assert base | {"gen_ai.response.model": "m-2026", "gen_ai.prompt.name": "summary"} in [
        a for a, _ in seconds
    ]
    assert "RateLimited" in [attributes.get("error.type") for attributes, _ in seconds]
    tokens = {
        attributes["gen_ai.token.type"]: total for attributes, total in found["gen_ai.client.token.usage"]
    }
    assert tokens == {"input": 12, "output": 3}
    assert [total for _, total in found["gen_ai.client.operation.time_to_first_chunk"]] == [0.5]
    assert [total for _, total in found["glasshouse.cost"]] == [0.25]
    assert [total for _, total in found["glasshouse.refusals"]] == [1]


def exposed(metrics):
    """{(sample, labels but le): value} as a Prometheus would parse it."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if not sample.name.endswith(("_created", "_bucket")):
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def labels(**more):
    return tuple(sorted({"model": "m-2026", "prompt": "summary", "version": "2", **more}.items()))


def test_prometheus_reads_every_figure(scripted, ask):
    metrics = PrometheusMetrics()
    retried = Note("retry", "", {"tries": 3, "validation_failures": 1})
    outcomes = [
        REPLY,
        Completion("", "refusal", model="m-2026", notes=(retried,)),
        Completion("", "stop", Usage(), "m-2026", cost=0.0, notes=(Note("cache", "", {"hit": True}),)),
        RateLimitedError(f"no {KEY}"),
    ]
    monitor = Monitor(scripted(outcomes), metrics)
    request = ask(labels={"prompt": "summary", "version": "2"})
    for _ in range(3):
        complete(monitor, request)
    with pytest.raises(RateLimitedError):
        complete(monitor, request)
    found = exposed(metrics)
    prefix = "glasshouse_llm_"
    expected = {
        "calls_total": 3,
        "seconds_count": 3,
        "first_token_seconds_count": 1,
        "first_token_seconds_sum": 0.5,
        "cost_dollars_total": 0.25,
        "unpriced_calls_total": 1,
        "refusals_total": 1,
        "validation_failures_total": 1,
        "retries_total": 2,
        "cache_hits_total": 1,
        "cancelled_total": 0,
    }
    assert {name: found[prefix + name, labels()] for name in expected} == expected
    assert found[prefix + "tokens_total", labels(kind="input")] == 12
    assert found[prefix + "tokens_total", labels(kind="output")] == 3
    assert found[prefix + "tokens_total", labels(kind="cached_input")] == 5
    assert found[prefix + "errors_total", labels(model="scripted", kind="RateLimited")] == 1
    assert KEY.encode() not in metrics.text()


def test_prometheus_shows_quality_only_of_judges_that_agree_with_people():
    metrics = PrometheusMetrics()
    call = Call(next_id(), 0.0, "m", "chat", model="m-2026", prompt="summary", version="2")
    metrics.judged(call, Verdict(0.5, "new", None))
    assert not any("quality" in name for name, _ in exposed(metrics))
    metrics.judged(call, Verdict(0.5, "known", Agreement("known", Kappa(0.8, 0.7, 0.9, 99), 0.9, 0.0)))
    found = exposed(metrics)
    assert found["glasshouse_llm_unmeasured_judgements_total", labels(judge="new")] == 1
    assert found["glasshouse_llm_quality_scores_total", labels(judge="known")] == 0.5
    assert found["glasshouse_llm_quality_judgements_total", labels(judge="known")] == 1


def test_prometheus_shows_alerts_that_are_on():
    drift = DriftAlerts(100)
    metrics = PrometheusMetrics(alerts=drift)
    group = ("openai:m", "summary", "2")
    for number in range(300):
        drift.see(group, number, {"errors": float(number > 200)})
    key = labels(model="openai:m", figure="errors")
    assert exposed(metrics)["glasshouse_llm_drift_alert", key] == 1


def test_a_prometheus_scrapes_it_over_http(scripted, ask):
    """As docs/monitor.md says; on a socket of this machine."""
    metrics = PrometheusMetrics()
    complete(Monitor(scripted(), metrics), ask())
    server, thread = start_http_server(0, addr="127.0.0.1", registry=metrics.registry)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'glasshouse_llm_calls_total{model="scripted",prompt="",version=""} 1.0' in text
