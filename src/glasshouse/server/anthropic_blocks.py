"""Parts of a reply as Anthropic's content blocks: whole ones, and the events that build them up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from glasshouse.inference.reply_parser import (
    Part,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from glasshouse.server.signatures import Signer


class Blocks:
    """One block is open at a time; a part of another kind closes it and opens the next."""

    def __init__(self, signer: Signer, thinking: Literal["told", "omitted", "none"] = "told") -> None:
        """`thinking`: "omitted" gives blocks with a signature only, "none" no such blocks at all."""
        self.whole: list[dict[str, Any]] = []
        self._signer, self._thinking = signer, thinking
        self._open = False
        self._arguments = ""

    def feed(self, part: Part) -> list[dict[str, Any]]:
        """The events that a part causes."""
        return list(self._events(part))

    def finish(self) -> list[dict[str, Any]]:
        """Close what is open."""
        return list(self._close())

    def _events(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case TextDelta():
                yield from self._ensure({"type": "text", "text": ""})
                self.whole[-1]["text"] += part.text
                yield self._delta({"type": "text_delta", "text": part.text})
            case ReasoningDelta() if self._thinking != "none":
                yield from self._ensure({"type": "thinking", "thinking": "", "signature": ""})
                if self._thinking == "omitted":
                    return
                self.whole[-1]["thinking"] += part.text
                yield self._delta({"type": "thinking_delta", "thinking": part.text})
            case ToolCallStart():
                yield from self._close()
                self._arguments = ""
                yield from self._ensure({"type": "tool_use", "id": part.id, "name": part.name, "input": {}})
            case ToolCallDelta():
                self._arguments += part.arguments
                yield self._delta({"type": "input_json_delta", "partial_json": part.arguments})
            case ToolCallEnd():
                yield from self._close()

    def _ensure(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Open a block unless one of its kind is open."""
        if self._open and self.whole[-1]["type"] == block["type"]:
            return
        yield from self._close()
        self.whole.append(block)
        self._open = True
        yield {
            "type": "content_block_start",
            "index": len(self.whole) - 1,
            "content_block": dict(block),
        }

    def _close(self) -> Iterator[dict[str, Any]]:
        if not self._open:
            return
        block = self.whole[-1]
        if block["type"] == "thinking":
            block["signature"] = self._signer.sign(block["thinking"])
            yield self._delta({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "tool_use":
            block["input"] = _object(self._arguments)
        self._open = False
        yield {"type": "content_block_stop", "index": len(self.whole) - 1}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self.whole) - 1, "delta": delta}


def _object(arguments: str) -> dict[str, Any]:
    """The input of a call; arguments that a reply's end cut off are an empty object."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
