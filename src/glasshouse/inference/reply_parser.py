"""A reply as it comes, taken apart: reasoning, text and tool calls, whatever the pieces it comes in.

What stands between the tags is told as it comes; only what may still be the beginning of a tag is held back. A
tool call is told when it is whole, because a malformed one is text: it comes out as the model wrote it. Where a
grammar makes sure of every call, `certain` lets its arguments stream.

White space that chat templates put around these parts is taken out: one line end after <think> and before
</think>, two after it, one before a tool call, and what stands between two calls or after the last. A tool tag
ends the reasoning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from glasshouse.tools.formats import END_OF_THINK, THINK, CallFormat, ReplyFormat
from glasshouse.tools.json_reader import JsonObjectReader, loaded


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

_WHITE = " \t\n\r"

_CALL_KEYS = {"name", "arguments", "parameters", "id", "type"}
"""Members of the objects that are calls; a reply that begins with another JSON object is text at once."""


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
        """`tools`: the request has some, otherwise calls are text. `reasoning_open`: the prompt wrote <think>.

        `certain`: every call follows a grammar.
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
        self._call: _Call | None = None
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
        bare = self._held.lstrip(_WHITE)
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
        if self._calls and self._calls.bare and not self._held.lstrip(_WHITE) and not final:
            self._state = "start"
            self._reasons = False
            return True
        return self._begin_text(self._held.lstrip(_WHITE))

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
        bare = self._held.lstrip(_WHITE)
        white = self._held[: len(self._held) - len(bare)]
        if not bare:
            if final:
                self._held = ""
            return False
        comma = calls.between.strip(_WHITE)
        if bare.startswith(calls.opening):
            self._begin_call(bare[len(calls.opening) :], white, calls.opening, "text")
            return True
        if comma and bare.startswith(comma):
            after = bare[len(comma) :].lstrip(_WHITE)
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
        if call.told:  # only where the grammar did not keep its promise
            self._held, self._state = "", "called"
            return True
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
        self._call = _Call(self._calls, opening, origin)
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

    def _tell(self, call: _Call) -> None:
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


@dataclass
class _Made:
    """One call, as far as it was read."""

    name: str
    id: str | None = None
    arguments: str = ""
    ended: bool = False
    told: int = 0  # characters of the arguments that were told
    end_told: bool = False


class _Call:
    """What follows an opening tag: one call, or an array of them."""

    def __init__(self, form: CallFormat, opening: str, origin: str) -> None:
        self.opening, self.origin = opening, origin
        self.raw = ""  # everything after the opening
        self.calls: list[_Made] = []
        self.told = 0  # calls whose start was told
        self.begun = False  # the JSON began
        self.ended = self.bad = False
        self.rest = ""  # what follows the end
        self._form = form
        self._todo = ""
        self._phase: Literal["array", "object", "json", "after"] = "array" if form.array else "object"
        self._reader = JsonObjectReader()

    def feed(self, text: str) -> None:
        self.raw += text
        self._todo += text
        while not (self.ended or self.bad) and self._step():
            pass

    def cut(self) -> None:
        """The reply ended here. Only the closing tag may be missing."""
        rest = self._todo.lstrip(_WHITE)
        if self._phase == "after" and not self._form.array and self._form.closing.startswith(rest):
            self.ended = True
        elif self.told:
            self.calls[-1].ended = self.ended = True
        else:
            self.bad = True

    def _step(self) -> bool:
        if self._phase == "json":
            self._todo = self._reader.feed(self._todo)
            self._read()
            if not self._reader.done:
                return False
            self._phase = "after"
            return True
        self._todo = self._todo.lstrip(_WHITE)
        form, todo = self._form, self._todo
        if self._phase == "after" and not form.array:
            self.ended = todo.startswith(form.closing)
            self.rest = todo[len(form.closing) :]
            self.bad = not self.ended and not form.closing.startswith(todo)
            return False
        if todo:
            self._todo = todo[1:]
            if self._phase == "object":
                self.bad = todo[0] != "{"
                self.begun, self._phase = not self.bad, "json"
                self._reader, self._todo = JsonObjectReader(), todo
            elif self._phase == "array":
                self.bad, self._phase = todo[0] != "[", "object"
            else:
                self.ended, self._phase = todo[0] == "]", "object"
                self.rest = self._todo
                self.bad = todo[0] not in "],"
        return bool(todo) and not self.bad

    def _read(self) -> None:
        """Take over what the reader knows of the call at hand."""
        reader = self._reader
        members = reader.members
        if not (reader.bad or reader.done) and set(members) <= _CALL_KEYS and reader.open_key in (None, *_CALL_KEYS):
            if "name" not in members:
                return
        self.bad = reader.bad or not (set(members) | {reader.open_key or "name"}) <= _CALL_KEYS
        name = loaded(members.get("name", ""))
        if self.bad or not isinstance(name, str):
            self.bad = True
            return
        if not self.calls or self.calls[-1].ended:
            self.calls.append(_Made(name))
        made = self.calls[-1]
        for key in ("arguments", "parameters"):
            if key in members:
                made.arguments = members[key]
            elif reader.open_key == key:
                made.arguments = reader.open_text
        if reader.done:
            made.ended = True
            call_id = loaded(members.get("id", ""))
            made.id = call_id if isinstance(call_id, str) else None
            arguments = loaded(made.arguments)
            if isinstance(arguments, str):  # some models write the arguments as a text that holds them
                made.arguments, arguments = arguments, loaded(arguments)
            self.bad = not isinstance(arguments, dict)


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of the text that begins the tag."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
