"""Chat completions of OpenAI's shape, whole or in pieces, as our `Completion`.

Nothing that is read was checked before; what is missing or of another type shows here, as a
GarbledReplyError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from glasshouse.llm.http_failures import broken, garbled
from glasshouse.llm.interface import Completion, Finish, Note, TokenLogprob, Usage

_FINISH: dict[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "tool_calls"),
    **dict.fromkeys(("content_filter", "refusal", "safety"), "refusal"),
}


class Told:
    """A JSON object with its keys as attributes; a key that is not there is None."""

    __slots__ = ("_object",)

    def __init__(self, object: dict[str, Any]) -> None:
        self._object = object

    def __getattr__(self, name: str) -> Any:
        return _told(self._object.get(name))


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return Told(value)
    return [_told(each) for each in value] if isinstance(value, list) else value


def told(content: bytes) -> Any:
    """What an answer's body says; None where it is no JSON."""
    try:
        return _told(json.loads(content))
    except ValueError:
        return None


@dataclass
class OpenAIReply:
    """What has come so far. Feed it a whole answer or all chunks of one, then ask for the `completion`."""

    where: str
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[TokenLogprob] | None = None
    reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    id: str | None = None

    def whole(self, answer: Any) -> None:
        """An answer that was not streamed. Raises GarbledReplyError."""
        try:
            self._head(answer)
            (choice,) = answer.choices[:1]
            self._add(choice.message)
            self._score(choice)
            self.reason = choice.finish_reason
        except (AttributeError, TypeError, ValueError):
            raise garbled("it is no chat completion", self.where) from None
        if self.reason is None:
            raise garbled("it does not say how it ended", self.where)

    def chunk(self, chunk: Any) -> tuple[str, str]:
        """A piece of a stream; (new text, new reasoning). Raises GarbledReplyError."""
        try:
            self._head(chunk)
            if not chunk.choices:
                return "", ""
            choice = chunk.choices[0]
            told = self._add(choice.delta)
            self._score(choice)
            self.reason = choice.finish_reason or self.reason
        except (AttributeError, TypeError, ValueError):
            raise garbled("it is no piece of a chat completion", self.where) from None
        return told

    def _head(self, answer: Any) -> None:
        self.id, self.model = answer.id or self.id, answer.model or self.model
        if (usage := answer.usage) is not None:
            prompt, new = usage.prompt_tokens_details, usage.completion_tokens_details
            self.usage = Usage(
                usage.prompt_tokens or 0,
                usage.completion_tokens or 0,
                (prompt and prompt.cached_tokens) or 0,
                (prompt and getattr(prompt, "cache_write_tokens", 0)) or 0,
                (new and new.reasoning_tokens) or 0,
            )

    def _add(self, message: Any) -> tuple[str, str]:
        """A message, or what a chunk adds to it."""
        text = message.content or ""
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
        if not (isinstance(text, str) and isinstance(thought, str)):
            raise TypeError("content")
        self.text.append(text)
        self.reasoning.append(thought)
        if message.refusal:
            self.refusal.append(message.refusal)
        for place, call in enumerate(message.tool_calls or ()):
            index = getattr(call, "index", None)
            self._call(place if index is None else index, call)
        return text, thought

    def _call(self, index: int, call: Any) -> None:
        """A tool call, or what a chunk adds to it: the name comes once, the arguments in pieces."""
        made = self.calls.setdefault(
            index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        made["id"] = call.id or made["id"]
        made["function"]["name"] += call.function.name or ""
        made["function"]["arguments"] += call.function.arguments or ""

    def _score(self, choice: Any) -> None:
        if (told := choice.logprobs) is None or told.content is None:
            return
        self.logprobs = self.logprobs or []
        self.logprobs += token_logprobs(told.content)

    def completion(
        self, ignored: tuple[str, ...], seconds: float, first: float | None = None, id: str | None = None
    ) -> Completion:
        """Raises BrokenStreamError where no end was told."""
        text = "".join(self.text)
        if self.reason is None:
            raise broken("the stream ended before the reply did", self.where, text)
        refusal = "".join(self.refusal) or None
        return Completion(
            text,
            self._finish(refusal),
            self.usage or Usage(),
            self.model or "",
            id or self.id,
            tuple(self.calls[index] for index in sorted(self.calls)),
            refusal,
            "".join(self.reasoning) or None,
            None if self.logprobs is None else tuple(self.logprobs),
            seconds,
            first,
            ignored=ignored,
            notes=() if self.usage else (Note("backend", "the server told no token counts"),),
        )

    def _finish(self, refusal: str | None) -> Finish:
        finish = _FINISH.get(str(self.reason).lower())
        if finish is None:
            raise garbled(f"it ended with {self.reason!r}", self.where)
        if refusal is not None:
            return "refusal"
        if self.calls and finish == "stop":  # what a forced call ends with
            return "tool_calls"
        return finish


def token_logprobs(tokens: Iterable[Any]) -> list[TokenLogprob]:
    """OpenAI's `logprobs.content`."""
    return [
        TokenLogprob(
            token.token,
            token.logprob,
            tuple((other.token, other.logprob) for other in token.top_logprobs or ()),
        )
        for token in tokens
    ]
