"""Names of OpenTelemetry's semantic conventions for generative AI, in one place: they still change.

Source: opentelemetry.io/docs/specs/semconv/gen-ai, version 1.37 and later.
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
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
URL_PATH: Final = "url.path"
ERROR_TYPE: Final = "error.type"

CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
"""Operations."""
