"""What Prometheus reads about calls: counters and histograms by model, prompt and version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from glasshouse.llm.monitoring.call import CANCELLED, Call
from glasshouse.llm.monitoring.drift import DriftAlerts
from glasshouse.llm.monitoring.judge import Verdict

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
LABELS = ("model", "prompt", "version")


class PrometheusMetrics:
    """A watcher with a registry of its own, or one that is given. `text()` is what Prometheus wants to read.

    `alerts`: the monitor's DriftAlerts, where there are any: each one that is on becomes a gauge.
    """

    def __init__(self, registry: CollectorRegistry | None = None, alerts: DriftAlerts | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        def counter(name: str, what: str, *more: str) -> Counter:
            return Counter(f"glasshouse_llm_{name}", what, (*LABELS, *more), registry=self.registry)

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(f"glasshouse_llm_{name}", what, LABELS, buckets=SECONDS, registry=self.registry)

        self._calls = counter("calls", "calls that ended, well or not")
        self._errors = counter("errors", "calls that failed", "kind")
        self._cancelled = counter("cancelled", "calls whose asker went away")
        self._refusals = counter("refusals", "replies that were withheld or refused by the provider")
        self._invalid = counter("validation_failures", "replies that did not follow their schema")
        self._retries = counter("retries", "tries after the first")
        self._hits = counter("cache_hits", "replies from the cache")
        self._tokens = counter("tokens", "tokens, as backends counted them", "kind")
        self._cost = counter("cost_dollars", "US dollars, of the calls whose cost is known")
        self._unpriced = counter("unpriced_calls", "calls whose cost nobody knows")
        self._seconds = histogram("seconds", "from asking to the end, tries and all")
        self._first = histogram("first_token_seconds", "from asking to the first piece of a streamed reply")
        self._quality = counter(
            "quality_scores", "scores of a judge whose agreement with people is measured", "judge"
        )
        self._judged = counter("quality_judgements", "replies that such a judge has read", "judge")
        self._unmeasured = counter("unmeasured_judgements", "replies that any other judge has read", "judge")
        self._of: dict[tuple[str, str, str], _Series] = {}
        if alerts is not None:
            self.registry.register(_Alerts(alerts))

    def record(self, call: Call) -> None:
        series = self._series(call)
        series.calls.inc()
        series.seconds.observe(call.seconds)
        if call.first_token_seconds is not None:
            series.first.observe(call.first_token_seconds)
        if call.usage is not None:
            series.input.inc(call.usage.prompt_tokens)
            series.output.inc(call.usage.new_tokens)
            series.cached.inc(call.usage.cached_tokens)
        if call.cost is not None:
            series.cost.inc(call.cost)
        else:
            series.unpriced.inc()
        if call.refused:
            self._refusals.labels(*series.key).inc()
        if call.validation_failures:
            self._invalid.labels(*series.key).inc(call.validation_failures)
        if call.tries > 1:
            self._retries.labels(*series.key).inc(call.tries - 1)
        if call.cache_hit:
            self._hits.labels(*series.key).inc()
        if call.error == CANCELLED:
            self._cancelled.labels(*series.key).inc()
        elif call.error is not None:
            self._errors.labels(*series.key, call.error).inc()

    def judged(self, call: Call, verdict: Verdict) -> None:
        key = self._series(call).key
        if verdict.is_quality:
            self._quality.labels(*key, verdict.judge).inc(verdict.score)
            self._judged.labels(*key, verdict.judge).inc()
        else:
            self._unmeasured.labels(*key, verdict.judge).inc()

    def flush(self) -> None:
        """Nothing waits."""

    def text(self) -> bytes:
        """The exposition, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _series(self, call: Call) -> _Series:
        key = (call.model or call.asked, call.prompt, call.version)
        found = self._of.get(key)
        if found is None:
            found = self._of[key] = _Series(self, key)
        return found


class _Series:
    """The series of one model, prompt and version: looking them up by labels costs more than counting."""

    def __init__(self, metrics: PrometheusMetrics, key: tuple[str, str, str]) -> None:
        self.key = key
        self.calls, self.seconds = metrics._calls.labels(*key), metrics._seconds.labels(*key)
        self.first, self.cost = metrics._first.labels(*key), metrics._cost.labels(*key)
        self.unpriced = metrics._unpriced.labels(*key)
        self.input = metrics._tokens.labels(*key, "input")
        self.output = metrics._tokens.labels(*key, "output")
        self.cached = metrics._tokens.labels(*key, "cached_input")
        for whole in (
            metrics._refusals,
            metrics._invalid,
            metrics._retries,
            metrics._hits,
            metrics._cancelled,
        ):
            whole.labels(*key)  # present from the first call on: a rate needs its zero


class _Alerts(Collector):
    def __init__(self, alerts: DriftAlerts) -> None:
        self._alerts = alerts

    def collect(self) -> Iterable[Any]:
        family = GaugeMetricFamily(
            "glasshouse_llm_drift_alert",
            "1 where a figure has left its reference window",
            labels=("figure", "model", "prompt", "version"),
        )
        for alert in self._alerts.current():
            family.add_metric((alert.name, *alert.group), 1)
        yield family
