"""GET /metrics: what Prometheus reads. Each server has a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response

from glasshouse.inference.engine import Engine
from glasshouse.server.body import StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.openai_responses import ERRORS

TOKENS = {
    "prompt_tokens": "tokens of prompts",
    "cached_tokens": "tokens of prompts that were still in the cache",
    "new_tokens": "tokens of replies",
}

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts requests; the engine's own figures are read when somebody asks.

    Without an engine, before another server, tokens are counted as that one tells them.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.registry = CollectorRegistry()
        self._tokens: dict[str, Counter] = {}
        if engine is not None:
            self.registry.register(_EngineFigures(engine))
        else:
            self._tokens = {
                name: Counter(f"glasshouse_{name}", what, registry=self.registry)
                for name, what in TOKENS.items()
            }
        labels = ("route", "status")
        self._requests = Counter(
            "glasshouse_requests",
            "answered requests; status 499: the client left",
            labels,
            registry=self.registry,
        )
        self._seconds = Histogram(
            "glasshouse_request_seconds",
            "from a request's beginning to its answer's end",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._first_token = Histogram(
            "glasshouse_first_token_seconds",
            "from a request's beginning to its first token",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._per_token = Histogram(
            "glasshouse_seconds_per_token",
            "between two tokens of an answer, on its average",
            ("route",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self._overhead = Histogram(
            "glasshouse_overhead_seconds",
            "time of a request in which the engine was not waited for",
            ("route",),
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1),
            registry=self.registry,
        )
        self._open = Gauge(
            "glasshouse_open_requests", "requests that are not answered yet", registry=self.registry
        )

    def begin(self, call: Call) -> None:
        self._open.inc()

    def end(self, call: Call, status: int) -> None:
        for name, counter in self._tokens.items():
            counter.inc(getattr(call, name))
        route = call.route or "other"  # never the path itself: strangers choose it
        self._open.dec()
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(call.seconds)
        if call.first_token is not None:
            self._first_token.labels(route).observe(call.first_token)
            self._overhead.labels(route).observe(call.overhead)
            if call.new_tokens > 1:
                rest = (call.seconds - call.first_token) / (call.new_tokens - 1)
                self._per_token.labels(route).observe(rest)


class _EngineFigures(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        stats = self._engine.stats()
        yield GaugeMetricFamily("glasshouse_running", "requests that the engine works on", stats.running)
        yield GaugeMetricFamily("glasshouse_waiting", "requests that wait for the engine", stats.waiting)
        yield GaugeMetricFamily(
            "glasshouse_pages_in_use", "pages of the KV cache that requests hold", stats.pages_in_use
        )
        yield GaugeMetricFamily("glasshouse_pages", "pages of the KV cache", stats.pages_total)
        for name, what in TOKENS.items():
            yield CounterMetricFamily(f"glasshouse_{name}", what, getattr(stats, name))


def router(metrics: Metrics) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["Operation"])
    schema = {"$ref": "#/components/schemas/ErrorResponse"}  # FastAPI would call a refusal text/plain, too
    refused: dict[int | str, dict[str, Any]] = {
        status: {
            "description": ERRORS[status]["description"],
            "content": {"application/json": {"schema": schema}},
        }
        for status in (401, 403)
    }

    @routes.get("/metrics", response_class=PlainTextResponse, responses=refused)
    async def read_metrics() -> Response:
        """Figures in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
