"""OpenTelemetry metrics of calls, named as the conventions for generative AI say."""

from __future__ import annotations

from opentelemetry import metrics
from opentelemetry.metrics import MeterProvider

from glasshouse.llm import genai
from glasshouse.llm.monitoring.call import Call
from glasshouse.llm.monitoring.judge import Verdict
from glasshouse.llm.monitoring.spans import provider_and_model


class OtelMetrics:
    """A watcher. Without a provider OpenTelemetry's global one, which is none until a program sets it."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        meter = metrics.get_meter("glasshouse.llm", meter_provider=provider)
        seconds, tokens = list(genai.SECONDS_BUCKETS), list(genai.TOKEN_BUCKETS)
        self._seconds = meter.create_histogram(
            genai.CLIENT_SECONDS,
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=seconds,
        )
        self._first = meter.create_histogram(
            genai.CLIENT_FIRST_CHUNK,
            "s",
            "Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=seconds,
        )
        self._tokens = meter.create_histogram(
            genai.CLIENT_TOKENS,
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=tokens,
        )
        self._cost = meter.create_counter(genai.COST, "{USD}", "US dollars, where the cost is known.")
        self._refusals = meter.create_counter(genai.REFUSALS, "{reply}", "Replies that were refused.")
        self._invalid = meter.create_counter(
            genai.VALIDATION_FAILURES, "{reply}", "Replies that did not follow their schema."
        )
        self._hits = meter.create_counter(genai.CACHE_HITS, "{reply}", "Replies from the cache.")
        self._quality = meter.create_histogram(
            genai.QUALITY,
            "1",
            "Scores of a judge whose agreement with people is measured.",
            explicit_bucket_boundaries_advisory=[0.1 * tenth for tenth in range(11)],
        )

    def record(self, call: Call) -> None:
        about = _about(call)
        if call.error is not None:
            self._seconds.record(call.seconds, about | {genai.ERROR_TYPE: call.error})
        else:
            self._seconds.record(call.seconds, about)
        if call.first_token_seconds is not None:
            self._first.record(call.first_token_seconds, about)
        if call.usage is not None:
            self._tokens.record(call.usage.prompt_tokens, about | {genai.TOKEN_TYPE: "input"})
            self._tokens.record(call.usage.new_tokens, about | {genai.TOKEN_TYPE: "output"})
        if call.cost is not None:
            self._cost.add(call.cost, about)
        if call.refused:
            self._refusals.add(1, about)
        if call.validation_failures:
            self._invalid.add(call.validation_failures, about)
        if call.cache_hit:
            self._hits.add(1, about)

    def judged(self, call: Call, verdict: Verdict) -> None:
        if verdict.is_quality:
            self._quality.record(verdict.score, _about(call))

    def flush(self) -> None:
        """The provider's readers send in their own time; its `force_flush` is for whoever made it."""


def _about(call: Call) -> dict[str, str]:
    provider, model = provider_and_model(call.asked)
    about = {genai.OPERATION: call.operation, genai.PROVIDER: provider, genai.REQUEST_MODEL: model}
    if call.model:
        about[genai.RESPONSE_MODEL] = call.model
    labels = ((genai.PROMPT_NAME, call.prompt), (genai.PROMPT_VERSION, call.version), (genai.ARM, call.arm))
    about.update((name, label) for name, label in labels if label)
    return about
