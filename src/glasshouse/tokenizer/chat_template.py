"""Chat templates: rendered exactly as Hugging Face renders them, and cut where special tokens stand.

The environment follows transformers' `apply_chat_template`: Jinja's immutable sandbox, `trim_blocks`,
`lstrip_blocks`, a `tojson` that does not escape HTML, and the tag `{% generation %}` around what the
assistant wrote. Our own template, in `chat_template.jinja`, is ChatML with thinking and tool calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
from jinja2.sandbox import ImmutableSandboxedEnvironment

from glasshouse.core.errors import DataError, ModelError

CHATML = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


@dataclass
class Piece:
    """A special token, or all the text between two of them."""

    text: str
    special: bool
    written: list[tuple[int, int]] = field(default_factory=list)
    """Half-open spans, in characters of `text`, that the assistant wrote."""


class ChatTemplate:
    """A compiled chat template."""

    def __init__(
        self,
        source: str,
        special: Collection[str],
        assistant_may_write: Collection[str] = (),
        names: Mapping[str, str] | None = None,
    ) -> None:
        """`special` are the names of the special tokens; `names` are variables such as `bos_token`.

        Names of special tokens inside the messages are plain text, except those of `assistant_may_write` in
        the content of assistant messages. Raises ModelError for a template that does not compile.
        """
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template does not compile: {error}") from None
        self._names = dict(names or {})
        self._special = sorted(special, key=len, reverse=True)
        self._beginnings = _beginnings(special, ())
        self._assistant_beginnings = _beginnings(special, set(special) & set(assistant_may_write))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as one text. Raises DataError where the template refuses the messages."""
        return self._render(_copy_messages(messages, _same), _copy(tools, _same), add_generation_prompt)

    def render_pieces(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Piece]:
        """The same text, cut at the special tokens that the template, and not the user, wrote.

        In a copy of the messages every place where the name of a special token could begin gets a mark, a
        character found nowhere in the input; it is taken out again after the cut. So no string of the user's,
        nor two that the template joins, can become a special token.
        """
        mark, start, end = _unused_characters(messages, tools)

        def protect(text: str) -> str:
            return self._beginnings.sub(rf"\g<0>{mark}", text)

        def protect_assistant(text: str) -> str:
            return self._assistant_beginnings.sub(rf"\g<0>{mark}", text)

        rendered = self._render(
            _copy_messages(messages, protect, protect_assistant),
            _copy(tools, protect),
            add_generation_prompt,
            generation_marks=(start, end),
        )
        return _cut(rendered, self._special, mark, start, end)

    def _render(self, messages: list[Any], tools: Any, add_generation_prompt: bool, **variables: Any) -> str:
        if not messages:
            raise DataError("a conversation needs at least one message")
        try:
            return self._template.render(
                **self._names,
                **variables,
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # the template is a program of somebody else's
            raise DataError(f"the chat template refuses these messages: {error}") from None


def _cut(rendered: str, special: Sequence[str], mark: str, start: str, end: str) -> list[Piece]:
    """Cut at names of special tokens; take the marks out and note what stood between `start` and `end`."""
    pieces: list[Piece] = []
    text = ""
    spans: list[tuple[int, int]] = []
    opened: int | None = None  # where in `text` the assistant's writing began

    def close_text() -> None:
        nonlocal text, spans, opened
        if opened is not None and opened < len(text):
            spans.append((opened, len(text)))
        if text:
            pieces.append(Piece(text, False, spans))
        text, spans = "", []
        opened = None if opened is None else 0

    cuts = re.compile("(" + "|".join([start, end, *map(re.escape, special)]) + ")")
    for i, part in enumerate(cuts.split(rendered)):
        if part == start:
            opened = len(text)
        elif part == end:
            if opened is not None and opened < len(text):
                spans.append((opened, len(text)))
            opened = None
        elif i % 2:
            close_text()
            pieces.append(Piece(part, True, [] if opened is None else [(0, len(part))]))
        else:
            text += part.replace(mark, "")
    close_text()
    return pieces


def _beginnings(special: Collection[str], allowed: Collection[str]) -> re.Pattern[str]:
    """Matches a first character of a special token's name where none of the `allowed` names stands."""
    first = "|".join(sorted({re.escape(name[0]) for name in special}))
    if not first:
        return re.compile(r"(?!)")
    but = "".join(f"(?!{re.escape(name)})" for name in sorted(allowed))
    return re.compile(f"{but}(?:{first})")


def _unused_characters(*inputs: Any) -> list[str]:
    """Three private-use characters that occur nowhere in the inputs."""
    used = set(json.dumps(inputs, ensure_ascii=False, default=repr))
    return list(islice((c for c in map(chr, range(0xF0000, 0x10FFFE)) if c not in used), 3))


def _same(text: str) -> str:
    return text


def _copy(value: Any, change: Callable[[str], str]) -> Any:
    """A copy in plain JSON types with every string changed, keys included."""
    if isinstance(value, str):
        return change(str(value))
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_copy(key, change): _copy(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item, change) for item in value]
    raise DataError(f"a message may hold text, numbers, lists and objects, not {type(value).__name__}")


def _copy_messages(
    messages: Sequence[Mapping[str, Any]],
    change: Callable[[str], str],
    change_assistant: Callable[[str], str] | None = None,
) -> list[dict[str, Any]]:
    """Copies without the keys whose value is None, which templates would print as "None"."""
    copies = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise DataError(
                f"a message must be an object with role and content, not {type(message).__name__}"
            )
        own = change_assistant if message.get("role") == "assistant" and change_assistant else change
        copies.append(
            {
                key: _copy(value, own if key == "content" else change)
                for key, value in message.items()
                if value is not None
            }
        )
    return copies


class _Generation(jinja2.ext.Extension):
    """The tag `{% generation %} … {% endgeneration %}`: its output stands between two marks, if asked for."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_mark")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    @jinja2.pass_context
    def _mark(self, context: jinja2.runtime.Context, caller: Callable[[], str]) -> str:
        start, end = context.get("generation_marks") or ("", "")
        return start + caller() + end


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
