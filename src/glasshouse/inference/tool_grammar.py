"""The grammar of a reply that must, or may, call tools: what `tool_choice` and `strict` ask for.

A forced reply holds calls and, where the model reasons, its reasoning before them; nothing else. A free
reply holds any text, but once a call's opening is written, the name is one of the tools' and the arguments
follow its schema (those of tools that are not strict: any JSON object).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from glasshouse.core.errors import UsageError
from glasshouse.inference.grammar import json_rule, literal, special_token
from glasshouse.inference.request import Grammar
from glasshouse.tools.definition import ToolDefinition
from glasshouse.tools.formats import END_OF_THINK, THINK, CallFormat, ReplyFormat

BLANK = literal("\n\n")

ToolChoice = Literal["auto", "required", "none"]


def tool_grammar(
    tools: Sequence[ToolDefinition],
    form: ReplyFormat,
    special: Mapping[str, int],
    *,
    choice: ToolChoice | ToolDefinition = "auto",
    parallel: bool = True,
    reasoning_open: bool = False,
) -> Grammar | None:
    """The grammar of a reply; None where any text is allowed.

    `choice` is a tool that must be called, or one of the words of OpenAI's API. `special` are the tokenizer's
    special tokens: tags among them are written as those. `reasoning_open` says that the prompt wrote <think>.
    Raises UsageError where calls are asked for and the model's template knows none.
    """
    if choice == "none" or not tools:
        return None
    if choice == "auto" and not any(tool.strict for tool in tools):
        return None
    if form.calls is None:
        raise UsageError(
            "the model's chat template knows no tools", where="tool_choice", fix="use another model"
        )
    lark = _Lark(special)
    if isinstance(choice, ToolDefinition):
        tools = [choice]
    one = lark.rule(" | ".join(lark.rule(_call(tool, form.calls, choice != "auto")) for tool in tools))
    body = _calls(lark, form.calls, one, parallel)
    if choice == "auto":
        return Grammar("lark", lark.whole(_free(lark, form, body, one, parallel, reasoning_open)))
    return Grammar("lark", lark.whole(f"{_reasoning(lark, form, reasoning_open)} {body}"))


class _Lark:
    """Rules written so far, and what a tag is in this vocabulary."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._rules = ["TEXT: /(?s:.)*/"]

    def rule(self, body: str, options: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def tag(self, tag: str) -> str:
        return special_token(tag) if tag in self._special else literal(tag)

    def up_to(self, tag: str) -> str:
        """Any text, and then the tag for the first time."""
        if tag in self._special:
            return self.rule(f"TEXT {special_token(tag)}")
        return self.rule(f"TEXT {literal(tag)}", "[lazy]")

    def whole(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules])


def _call(tool: ToolDefinition, form: CallFormat, forced: bool) -> str:
    """One call's JSON object, as chat templates write it."""
    schema: dict[str, Any] = {"type": "object"}
    if forced or tool.strict:
        schema = {**tool.parameters, "type": "object"}
    head = f'{{"name": {json.dumps(tool.name)}, "{form.arguments}": '
    return f"{literal(head)} %json {json_rule(schema)} {literal('}')}"


def _calls(lark: _Lark, form: CallFormat, one: str, parallel: bool) -> str:
    """All calls of a reply, from the first one's opening on, which is left out: (opening, the rest)."""
    if form.array:
        more = f"({literal(', ')} {one})*" if parallel else ""
        return f"{lark.tag(form.opening)} {literal(form.before + '[')} {one} {more} {literal(']')}"
    if form.bare:
        more = f"({literal(form.between)} {one})*" if parallel else ""
        return f"{one} {more}"
    call = lark.rule(f"{lark.tag(form.opening)} {_inside(form, one)} {lark.tag(form.closing)}")
    return f"{call} ({literal(form.between)} {call})*" if parallel else call


def _inside(form: CallFormat, one: str) -> str:
    """A call's object with the white space around it."""
    return " ".join(part for part in (literal(form.before), one, literal(form.after)) if part != '""')


def _reasoning(lark: _Lark, form: ReplyFormat, opened: bool) -> str:
    """What may, or where the prompt opened it must, come before a forced call."""
    if opened:
        return f"{lark.up_to(END_OF_THINK)} {BLANK}"
    if not form.reasoning:
        return ""
    thought = lark.rule(f"{lark.tag(THINK)} {lark.up_to(END_OF_THINK)} {BLANK}")
    return f"{thought}?"


def _free(lark: _Lark, form: ReplyFormat, body: str, one: str, parallel: bool, opened: bool) -> str:
    """Any text, in which calls follow their schemas."""
    assert form.calls is not None
    calls = form.calls
    thought = ""
    if opened:
        thought = lark.up_to(END_OF_THINK)
    elif form.reasoning and lark.tag(THINK) != literal(THINK):  # elsewhere the tags are text like any other
        thought = lark.rule(f"{lark.tag(THINK)} {lark.up_to(END_OF_THINK)}") + "?"
    if calls.bare:
        other = lark.rule(r"/\s*([^\s{](?s:.)*)?/")
        return f"{thought} ({other} | ({lark.tag(calls.opening)})? {body})"
    trigger = lark.up_to(calls.opening)
    if calls.array:
        more = f"({literal(', ')} {one})*" if parallel else ""
        return f"{thought} (TEXT | {trigger} {literal(calls.before + '[')} {one} {more} {literal(']')})"
    call = lark.rule(f"{trigger} {_inside(calls, one)} {lark.tag(calls.closing)}")
    return f"{thought} {call}* TEXT" if parallel else f"{thought} ({call} | TEXT)"
