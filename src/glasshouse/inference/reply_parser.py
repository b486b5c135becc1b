"""A reply as it comes, taken apart: reasoning, text and tool calls, whatever the pieces it comes in.

What stands between the tags is told as it comes; only what may still be the beginning of a tag is held back.
A tool call is told when it is whole, because a malformed one is text: it comes out as the model wrote it.
Where a grammar makes sure of every call, `certain` lets its arguments stream.

White space that chat templates put around these parts is taken out: one line end after <think> and before
</think>, two after it, one before a tool call, and what stands between two calls or after the last. A tool
tag ends the reasoning; one that no JSON object follows is no tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from glasshouse.inference.call_reader import WHITE, CallReader
from glasshouse.tools.formats import END_OF_THINK, THINK, ReplyFormat


@dataclass(frozen=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class ToolCallStart:
    index: int  # calls of one reply count from 0
    name: str
    id: str | None = None  # where the model wrote one; it may follow the arguments, so not if `certain`


@dataclass(frozen=True)
class ToolCallDelta:
    index: int
    arguments: str  # a part of a JSON text


@dataclass(frozen=True)
class ToolCallEnd:
    index: int


Part = ReasoningDelta | TextDelta | ToolCallStart | ToolCallDelta | ToolCallEnd


class ReplyParser:
    """Feed it the reply's text; it answers with parts. It never raises, and loses nothing but white space."""

    def __init__(
        self,
        form: ReplyFormat,
        *,
        tools: bool = True,
        reasoning_open: bool = False,
        certain: bool = False,
    ) -> None:
        """`tools`: the request has some; without, calls are text. `certain`: calls follow a grammar.

        `reasoning_open`: the prompt wrote <think> itself.
        """
        self._calls = form.calls if tools else None
        self._reasons = form.reasoning or reasoning_open
        self._certain = certain
        self._state: Literal["start", "reasoning", "thought", "text", "called", "call"] = "start"
        self._trim = reasoning_open  # the line end after <think> is still to be dropped
        if reasoning_open:
            self._state = "reasoning"
        self._held = ""
        self._parts: list[Part] = []
        self._count = 0  # calls told
        self._call: CallReader | None = None
        self._lead = ""  # what was dropped before the call at hand; it comes back if the call is none

    def feed(self, text: str) -> list[Part]:
        """What became certain with this text."""
        self._held += text
        return self._advance(final=False)

    def finish(self) -> list[Part]:
        """What was held back."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> list[Part]:
        steps = {
            "start": self._start,
            "reasoning": self._reasoning,
            "thought": self._thought,
            "text": self._text,
            "called": self._called,
            "call": self._in_call,
        }
        while steps[self._state](final):
            pass
        parts, self._parts = self._parts, []
        return parts

    # Each step returns whether it did something; then the next is taken.

    def _start(self, final: bool) -> bool:
        """Before anything was said: is it <think>, a bare call, or text?"""
        bare = self._held.lstrip(WHITE)
        if not bare and not final:
            return False
        if self._reasons and bare.startswith(THINK):
            self._held = bare[len(THINK) :]
            self._state, self._trim = "reasoning", True
            return True
        if self._reasons and THINK.startswith(bare) and not final:
            return False
        return self._begin_text(bare)

    def _begin_text(self, bare: str) -> bool:
        if self._calls and self._calls.bare and bare.startswith("{"):
            self._begin_call(bare, self._held[: len(self._held) - len(bare)], "", "text")
        else:
            self._state = "text"
        return True

    def _thought(self, final: bool) -> bool:
        """After </think>: at most two line ends are dropped."""
        if len(self._held) < 2 and not final and self._held in ("", "\n"):
            return False
        for _ in range(2):
            self._held = self._held.removeprefix("\n")
        if self._calls and self._calls.bare and not self._held.lstrip(WHITE) and not final:
            self._state = "start"
            self._reasons = False
            return True
        return self._begin_text(self._held.lstrip(WHITE))

    def _reasoning(self, final: bool) -> bool:
        if self._trim:
            if not self._held:
                return False
            self._held = self._held.removeprefix("\n")
            self._trim = False
        tag = self._until([END_OF_THINK, *self._openings()], final, ReasoningDelta)
        if tag == END_OF_THINK:
            self._state = "thought"
        elif tag:
            self._begin_call(self._held, self._lead, tag, "reasoning")
        return tag is not None

    def _text(self, final: bool) -> bool:
        tag = self._until(self._openings(), final, TextDelta)
        if tag:
            self._begin_call(self._held, self._lead, tag, "text")
        return tag is not None

    def _called(self, final: bool) -> bool:
        """After a call: white space is dropped before another call and at the end."""
        calls = self._calls
        assert calls is not None
        bare = self._held.lstrip(WHITE)
        white = self._held[: len(self._held) - len(bare)]
        if not bare:
            if final:
                self._held = ""
            return False
        comma = calls.between.strip(WHITE)
        if bare.startswith(calls.opening):
            self._begin_call(bare[len(calls.opening) :], white, calls.opening, "text")
            return True
        if comma and bare.startswith(comma):
            after = bare[len(comma) :].lstrip(WHITE)
            if after.startswith("{"):
                self._begin_call(after, white + bare[: len(bare) - len(after)], "", "text")
                return True
            if not after and not final:
                return False
        if not final and calls.opening.startswith(bare):
            return False
        self._state = "text"
        return True

    def _in_call(self, final: bool) -> bool:
        call, text = self._call, self._held
        assert call is not None
        self._held = ""
        call.feed(text)
        if final and not call.ended:
            call.cut()
        if self._certain or call.ended:
            self._tell(call)
        if call.ended:
            self._held, self._call, self._state = call.rest, None, "called"
            return True
        if not call.bad:
            return False
        self._call = None
        said = self._lead + call.opening
        if call.origin == "reasoning" and not call.begun:  # the tag was no tag
            self._say(ReasoningDelta, said)
            self._state = "reasoning"
        else:
            if not call.opening and call.raw:  # a bare object: its brace is not looked at again
                said, call.raw = said + call.raw[0], call.raw[1:]
            self._say(TextDelta, said)
            self._state = "text"
        self._held = call.raw
        return True

    def _begin_call(self, text: str, lead: str, opening: str, origin: str) -> None:
        assert self._calls is not None
        self._call = CallReader(self._calls, opening, origin)
        self._lead, self._held, self._state = lead, text, "call"

    def _openings(self) -> list[str]:
        return [self._calls.opening] if self._calls else []

    def _until(self, tags: Sequence[str], final: bool, kind: type[ReasoningDelta | TextDelta]) -> str | None:
        """Tell the held text up to the first tag, which is taken off; None if there is none yet.

        One line end before the tag is dropped, and kept in `_lead`.
        """
        found = [(place, tag) for tag in tags if (place := self._held.find(tag)) >= 0]
        if found:
            place, tag = min(found)
            self._lead = "\n" if self._held[:place].endswith("\n") else ""
            self._say(kind, self._held[: place - len(self._lead)])
            self._held = self._held[place + len(tag) :]
            return tag
        keep = 0 if final else max((_overlap(self._held, "\n" + tag) for tag in tags), default=0)
        keep = max(keep, 0 if final else max((_overlap(self._held, tag) for tag in tags), default=0))
        certain = len(self._held) - keep
        self._say(kind, self._held[:certain])
        self._held = self._held[certain:]
        return None

    def _say(self, kind: type[ReasoningDelta | TextDelta], text: str) -> None:
        if text:
            self._parts.append(kind(text))

    def _tell(self, call: CallReader) -> None:
        """Parts for what is known of the calls and was not told."""
        for place, made in enumerate(call.calls):
            index = self._count + place
            if place >= call.told:
                self._parts.append(ToolCallStart(index, made.name, None if self._certain else made.id))
                call.told = place + 1
            if len(made.arguments) > made.told:
                self._parts.append(ToolCallDelta(index, made.arguments[made.told :]))
                made.told = len(made.arguments)
            if made.ended and not made.end_told:
                self._parts.append(ToolCallEnd(index))
                made.end_told = True
        if call.ended or call.bad:
            self._count += len(call.calls)


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of the text that begins the tag."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
