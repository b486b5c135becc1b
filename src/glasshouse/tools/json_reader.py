"""One JSON object, read as its characters come: where it ends, whether it is one, and its members' texts."""

from __future__ import annotations

import json
import re
from typing import Any

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_SCALAR = re.compile(r"[-+.0-9a-zA-Z]+")
_WHITE = " \t\n\r"


class JsonObjectReader:
    """Reads an object of JSON (RFC 8259) strictly; text after its end is not taken.

    `members` are the texts of the outermost object's values as written, by key; a value still being read has
    its beginning in `open_key` and `open_text`.
    """

    def __init__(self) -> None:
        self.bad = False  # what was read begins no JSON object
        self.done = False  # the object is whole
        self.members: dict[str, str] = {}
        self.open_key: str | None = None
        self._text = ""
        self._place = 0  # everything before was understood
        self._stack: list[str] = []  # "{" and "[" still open
        self._expects = (
            "object"  # value, key, first key, colon, end (a comma or a closing bracket), first value
        )
        self._started = -1  # where the open member's value began

    def feed(self, text: str) -> str:
        """Read on; returns what lies behind the object's end (everything, once it is done or bad)."""
        if self.done or self.bad:
            return text
        self._text += text
        while self._place < len(self._text) and not self.done and not self.bad:
            if not self._step():
                break
        if not self.done:
            return ""
        rest, self._text = self._text[self._place :], self._text[: self._place]
        return rest

    @property
    def text(self) -> str:
        """Everything that was read."""
        return self._text

    @property
    def open_text(self) -> str:
        """The beginning of the value of `open_key`."""
        return "" if self.open_key is None or self._started < 0 else self._text[self._started :]

    def _step(self) -> bool:
        """Understand one part at `_place`; False if more characters are needed to do so."""
        char = self._text[self._place]
        if char in _WHITE:
            self._place += 1
            return True
        expects = self._expects
        if expects == "object":
            self.bad = char != "{"
            if not self.bad:
                self._open(char)
        elif expects in ("value", "first value"):
            if expects == "first value" and char == "]":
                self._close(char)
            else:
                return self._value(char)
        elif expects in ("key", "first key"):
            if expects == "first key" and char == "}":
                self._close(char)
            elif char != '"':
                self.bad = True
            else:
                return self._key()
        elif expects == "colon":
            self.bad = char != ":"
            self._place += 1
            self._expects = "value"
        elif char == ",":
            self._place += 1
            self._expects = "key" if self._stack[-1] == "{" else "value"
        else:
            self._close(char)
        return not self.bad

    def _open(self, char: str) -> None:
        self._stack.append(char)
        self._place += 1
        self._expects = "first key" if char == "{" else "first value"

    def _close(self, char: str) -> None:
        if char != {"{": "}", "[": "]"}[self._stack[-1]]:
            self.bad = True
            return
        self._stack.pop()
        self._place += 1
        self._finish_value()
        self.done = not self._stack

    def _value(self, char: str) -> bool:
        if len(self._stack) == 1 and self.open_key is not None:
            self._started = self._place
        if char in "{[":
            self._open(char)
            return True
        if char == '"':
            end = self._string_end()
            if end is None:
                return False
            self._place = end
        else:
            match = _SCALAR.match(self._text, self._place)
            if match is None:
                self.bad = True
                return False
            if match.end() == len(self._text):
                return False  # it may go on
            if loaded(match[0]) is None and match[0] != "null":
                self.bad = True
                return False
            self._place = match.end()
        self._finish_value()
        return True

    def _finish_value(self) -> None:
        self._expects = "end"
        if len(self._stack) == 1 and self.open_key is not None:
            self.members[self.open_key] = self._text[self._started : self._place]
            self.open_key = None

    def _key(self) -> bool:
        end = self._string_end()
        if end is None:
            return False
        if len(self._stack) == 1:
            self.open_key = str(loaded(self._text[self._place : end]))
            self._started = -1
        self._place = end
        self._expects = "colon"
        return True

    def _string_end(self) -> int | None:
        """The place behind the string at `_place`; None if it is not whole, or bad."""
        place = self._place + 1
        while place < len(self._text):
            char = self._text[place]
            if char == '"':
                return place + 1
            if char == "\\":
                match = _ESCAPE.match(self._text, place)
                if match is None:
                    self.bad = not _may_become_escape(self._text[place:])
                    return None
                place = match.end()
            elif match := _PLAIN.match(self._text, place):
                place = match.end()
            else:
                self.bad = True  # a bare control character
                return None
        return None


def _may_become_escape(text: str) -> bool:
    return text == "\\" or re.fullmatch(r"\\u[0-9a-fA-F]{0,3}", text) is not None


def loaded(text: str) -> Any:
    """What a JSON text says; None also for what is no JSON (NaN is none)."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)
