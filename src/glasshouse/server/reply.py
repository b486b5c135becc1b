"""A choice of a chat as parts: reasoning, text and tool calls, out of the engine's deltas."""

from __future__ import annotations

from dataclasses import dataclass, field

from glasshouse.inference.request import Delta, Finish, TokenScore


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True)
class ToolCallStart:
    index: int
    name: str


@dataclass(frozen=True)
class ToolCallDelta:
    index: int
    arguments: str


@dataclass(frozen=True)
class ToolCallEnd:
    index: int


Part = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallEnd


@dataclass
class ReplyStream:
    """The parts of one choice as they come, and what it is as a whole so far."""

    text: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)
    reasoning_tokens: int = 0
    new_tokens: int = 0
    scores: list[TokenScore] = field(default_factory=list)
    finish: Finish | None = None

    def feed(self, delta: Delta) -> list[Part]:
        self.new_tokens += len(delta.ids)
        self.text += delta.text
        self.finish = delta.finish
        return [TextDelta(delta.text)] if delta.text else []
