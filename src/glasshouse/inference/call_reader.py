"""The calls after an opening tag, read as their characters come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from glasshouse.tools.formats import CallFormat
from glasshouse.tools.json_reader import JsonObjectReader, loaded

WHITE = " \t\n\r"

CALL_KEYS = {"name", "arguments", "parameters", "id", "type"}
"""Members of the objects that are calls; an object with another is none, and known for text at once."""


@dataclass
class MadeCall:
    """One call, as far as it was read."""

    name: str
    id: str | None = None
    arguments: str = ""
    ended: bool = False
    told: int = 0  # characters of the arguments that were told
    end_told: bool = False


class CallReader:
    """What follows an opening tag: one call, or an array of them."""

    def __init__(self, form: CallFormat, opening: str, origin: str) -> None:
        self.opening, self.origin = opening, origin
        self.raw = ""  # everything after the opening
        self.calls: list[MadeCall] = []
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
        if self.bad and self.told:  # a grammar was promised and not kept: what was told cannot be taken back
            self.calls[-1].ended = self.ended = True
            self.bad, self.rest = False, self._todo

    def cut(self) -> None:
        """The reply ended here. Only the closing tag may be missing."""
        rest = self._todo.lstrip(WHITE)
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
        if self._phase == "after" and not (self._form.array or self._form.closing):
            self.ended, self.rest = True, self._todo  # white space, too: words may follow
            return False
        self._todo = self._todo.lstrip(WHITE)
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
        self.bad = reader.bad or not (set(members) | {reader.open_key or "name"}) <= CALL_KEYS
        if not (self.bad or reader.done) and "name" not in members:
            return
        name = loaded(members.get("name", ""))
        if self.bad or not isinstance(name, str):
            self.bad = True
            return
        if not self.calls or self.calls[-1].ended:
            self.calls.append(MadeCall(name))
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
