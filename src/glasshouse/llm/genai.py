"""Names of OpenTelemetry's semantic conventions for generative AI, in one place: they still change.

Source: opentelemetry.io/docs/specs/semconv/gen-ai, version 1.37 and later. The server's spans and those of
calls to any model (monitoring/) share it.
"""

from __future__ import annotations

from typing import Final

PROVIDER: Final = "gen_ai.provider.name"
OPERATION: Final = "gen_ai.operation.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
CHOICE_COUNT: Final = "gen_ai.request.choice.count"
FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
SEED: Final = "gen_ai.request.seed"
STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
STREAM: Final = "gen_ai.request.stream"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOP_K: Final = "gen_ai.request.top_k"
TOP_P: Final = "gen_ai.request.top_p"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
OUTPUT_TYPE: Final = "gen_ai.output.type"
PROMPT_NAME: Final = "gen_ai.prompt.name"
TOKEN_TYPE: Final = "gen_ai.token.type"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
"""Content: only where it was asked for."""

CLIENT_SECONDS: Final = "gen_ai.client.operation.duration"
CLIENT_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
CLIENT_TOKENS: Final = "gen_ai.client.token.usage"
"""Metrics: histograms in seconds and in tokens."""

SECONDS_BUCKETS: Final = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
TOKEN_BUCKETS: Final = (
    1,
    4,
    16,
    64,
    256,
    1024,
    4096,
    16384,
    65536,
    262144,
    1048576,
    4194304,
    16777216,
    67108864,
)
"""The buckets that the conventions ask for."""

PROMPT_VERSION: Final = "glasshouse.prompt.version"
EXPERIMENT: Final = "glasshouse.experiment.name"
ARM: Final = "glasshouse.experiment.arm"
COST: Final = "glasshouse.cost"
TRIES: Final = "glasshouse.tries"
VALIDATION_FAILURES: Final = "glasshouse.validation_failures"
CACHE_HIT: Final = "glasshouse.cache.hit"
IGNORED: Final = "glasshouse.request.ignored"
REFUSALS: Final = "glasshouse.refusals"
CACHE_HITS: Final = "glasshouse.cache.hits"
QUALITY: Final = "glasshouse.quality"
"""What the conventions have no name for yet."""

HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
URL_PATH: Final = "url.path"
ERROR_TYPE: Final = "error.type"

CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
"""Operations."""
