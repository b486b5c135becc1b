"""In front of another server: whose names are served, and what its answers tell our logs, metrics and spans.

A request in OpenAI's format is passed on field by field, and the answer's bytes come back as they are, so
whatever the server behind can do, its clients have: fields that we never heard of, images, other models. Only
Anthropic's format is translated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glasshouse.llm import genai
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError
from glasshouse.server.settings import ServerSettings
from glasshouse.server.signatures import Signer
from glasshouse.server.upstream import Upstream

SETTINGS = {
    "temperature": genai.TEMPERATURE,
    "top_p": genai.TOP_P,
    "top_k": genai.TOP_K,
    "seed": genai.SEED,
    "n": genai.CHOICE_COUNT,
    "frequency_penalty": genai.FREQUENCY_PENALTY,
    "presence_penalty": genai.PRESENCE_PENALTY,
}
"""Fields that spans tell, by their GenAI names."""


@dataclass
class Proxy:
    """Another server behind HTTP, instead of an engine."""

    upstream: Upstream
    model: str | None  # as the server behind calls it; None: every model that it has
    name: str | None  # as our clients call it
    settings: ServerSettings
    signer: Signer = field(default_factory=Signer)
    created: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    in_flight: int = 0

    @property
    def models(self) -> Sequence[str]:
        return [self.name] if self.name else []

    @property
    def bounds(self) -> Mapping[str, int]:
        return {}

    async def close(self) -> None:
        await self.upstream.close()

    def target(self, model: str) -> str:
        """What the server behind calls a model. Raises ApiError 404 for a name that is not served."""
        if self.model is None:
            return model
        if model != self.name:
            raise ApiError(
                404,
                f"the model '{model[:200]}' does not exist here; there is {self.name}",
                param="model",
                code="model_not_found",
            )
        return self.model

    def limited(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body with no more new tokens asked for than our own limit."""
        most = self.settings.max_new_tokens
        if most is None:
            return body
        name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        asked = body.get(name)
        return body | {name: min(asked, most) if isinstance(asked, int) else most}


@dataclass
class Tally:
    """What passes by, in OpenAI's format, as logs, metrics and spans will tell it."""

    call: Call
    texts: dict[int, list[str]] = field(default_factory=dict)  # of each choice
    finished: set[int] = field(default_factory=set)  # choices that have told why they end
    done: bool = False  # the stream says that it has ended, or failed

    def begin(self, body: Mapping[str, Any]) -> None:
        told: dict[str, Any] = {
            called: body[name]
            for name, called in SETTINGS.items()
            if isinstance(body.get(name), (int, float))
        }
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        if isinstance(asked, int):
            told[genai.MAX_TOKENS] = asked
        if stop := body.get("stop"):
            told[genai.STOP_SEQUENCES] = (
                [str(text) for text in stop] if isinstance(stop, list) else [str(stop)]
            )
        self.call.settings = told

    def add(self, told: Any) -> None:
        """A whole answer, or an event of a stream."""
        if not isinstance(told, dict):
            self.done |= told == "[DONE]"
            return
        call = self.call
        if isinstance(told.get("id"), str):
            call.response_id = told["id"]
        if isinstance(told.get("error"), dict):
            call.error, self.done = str(told["error"].get("message"))[:200], True
        if isinstance(usage := told.get("usage"), dict):
            call.prompt_tokens = usage.get("prompt_tokens") or 0
            call.new_tokens = usage.get("completion_tokens") or 0
            details = usage.get("prompt_tokens_details")
            call.cached_tokens = (details or {}).get("cached_tokens") or 0
        for choice in told.get("choices") or ():
            said = choice.get("delta") or choice.get("message") or choice
            text = said.get("content") or said.get("text") or ""
            begun = text or said.get("tool_calls") or said.get("reasoning_content") or said.get("reasoning")
            if call.first_token is None and call.stream and begun:
                call.first_token = call.seconds
            index = choice.get("index", 0)
            self.texts.setdefault(index, []).append(str(text))
            if isinstance(reason := choice.get("finish_reason"), str):
                call.finish_reasons.append(reason)
                self.finished.add(index)

    @property
    def ended(self) -> bool:
        """Whether nothing that matters is still to come; not every server says [DONE]."""
        return self.done or (bool(self.texts) and self.finished == set(self.texts))

    def finish(self) -> None:
        self.call.replies = ["".join(self.texts[index]) for index in sorted(self.texts)]
