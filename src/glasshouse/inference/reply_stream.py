"""One choice of a chat: what the engine writes, taken apart into reasoning, text and tool calls."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from glasshouse.inference.reply_parser import (
    Part,
    ReasoningDelta,
    ReplyParser,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from glasshouse.inference.request import Delta, Finish, TokenScore


@dataclass
class Call:
    """A tool call as far as it is told."""

    id: str
    name: str
    arguments: str = ""


@dataclass
class ReplyStream:
    """The parts of one choice as they come, and what they add up to so far."""

    parser: ReplyParser | None  # None: all of it is text
    parallel: bool = True  # otherwise what follows the first call is not told
    id_prefix: str = "call_"
    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    new_tokens: int = 0
    reasoning_tokens: int = 0
    scores: list[TokenScore] = field(default_factory=list)  # of tokens that are not told yet
    finish: Finish | None = None

    def feed(self, delta: Delta) -> list[Part]:
        """What became certain with the engine's next delta; every call's start has an id."""
        self.new_tokens += len(delta.ids)
        self.scores += delta.scores
        self.finish = delta.finish
        if self.parser is None:
            parts: list[Part] = [TextDelta(delta.text)] if delta.text else []
        else:
            parts = self.parser.feed(delta.text) if delta.text else []
            if delta.finish is not None:
                parts += self.parser.finish()
        told = [part for part in map(self._take, parts) if part is not None]
        if self.reasoning and not self.text and not self.calls:
            self.reasoning_tokens += len(delta.ids)
        return told

    def _take(self, part: Part) -> Part | None:
        """Add a part to what was told; None for one that is not to be told."""
        if self.calls and not self.parallel and not _belongs_to_first(part):
            return None
        match part:
            case TextDelta():
                self.text += part.text
            case ReasoningDelta():
                self.reasoning += part.text
            case ToolCallStart():
                call = Call(part.id or self.id_prefix + secrets.token_hex(12), part.name)
                self.calls.append(call)
                return replace(part, id=call.id)
            case ToolCallDelta():
                self.calls[part.index].arguments += part.arguments
        return part


def _belongs_to_first(part: Part) -> bool:
    return isinstance(part, ToolCallDelta | ToolCallEnd) and part.index == 0
