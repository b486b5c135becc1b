"""What a request's tools and format mean for its prompt, its grammar, and the reading of its reply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glasshouse.core.errors import UsageError
from glasshouse.inference.grammar import json_rule
from glasshouse.inference.reply_parser import ReplyParser
from glasshouse.inference.request import Grammar
from glasshouse.inference.tool_grammar import ToolChoice, tool_grammar
from glasshouse.tokenizer import Tokenizer
from glasshouse.tools.definition import ToolDefinition, unique
from glasshouse.tools.formats import ReplyFormat, opens_reasoning

TAIL = 16
"""Tokens of a prompt's end in which an opened <think> would stand."""


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request and how they may be used. Raises UsageError for a choice that is none."""

    tools: tuple[ToolDefinition, ...] = ()
    choice: ToolChoice | ToolDefinition = "auto"
    parallel: bool = True

    @classmethod
    def of(
        cls, tools: Sequence[ToolDefinition], choice: ToolChoice, name: str | None, parallel: bool
    ) -> ToolUse:
        """`name` is that of a tool that must be called. Raises UsageError where there is none such."""
        if not tools and (choice == "required" or name is not None):
            raise UsageError("a tool is to be called, and there are no tools", where="tool_choice")
        named = [tool for tool in tools if tool.name == name]
        if name is not None and not named:
            raise UsageError(f"there is no tool called '{name[:100]}'", where="tool_choice")
        return cls(unique(tools), named[0] if named else choice, parallel)

    @property
    def active(self) -> bool:
        return bool(self.tools) and self.choice != "none"

    def for_template(self) -> list[dict[str, Any]]:
        """The tools as the chat template shows them to the model."""
        return [tool.for_template() for tool in self.tools] if self.active else []


@dataclass(frozen=True)
class ReplyPlan:
    """The grammar of a reply, and how it is read."""

    grammar: Grammar | None
    parsed: bool  # otherwise all of it is text
    certain: bool  # every call follows the grammar
    reasoning_open: bool
    use: ToolUse
    form: ReplyFormat

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        form: ReplyFormat,
        prompt: Sequence[int],
        use: ToolUse,
        asked: Grammar | None,
    ) -> ReplyPlan:
        """`asked` is the grammar of the reply's text. Raises UsageError for what cannot be."""
        opened = (asked is None or use.active) and opens_reasoning(tokenizer.decode(prompt[-TAIL:]))
        if not use.active:
            return cls(asked, asked is None, False, opened, use, form)
        if form.calls is None:
            raise UsageError("the chat template of this model knows no tools", where="tools")
        choice = "required" if asked is not None and use.choice == "auto" else use.choice
        made = tool_grammar(
            use.tools,
            form,
            tokenizer.special,
            choice=choice,
            parallel=use.parallel,
            reasoning_open=opened,
        )
        if asked is not None and made is not None and use.choice == "auto":
            made = _either(made, asked)
        return cls(made, True, made is not None, opened, use, form)

    def parser(self) -> ReplyParser | None:
        """Reads one choice."""
        if not self.parsed:
            return None
        return ReplyParser(
            self.form,
            tools=self.use.active,
            reasoning_open=self.reasoning_open,
            certain=self.certain,
        )


def _either(calls: Grammar, asked: Grammar) -> Grammar:
    """Calls, or a JSON text: what the model may choose from where both tools and a format are given."""
    if asked.kind != "json_schema":
        raise UsageError("beside tools a reply's format can only be a JSON schema", where="response_format")
    assert isinstance(calls.source, str)
    assert isinstance(asked.source, str)
    start, _, rules = calls.source.partition("\n")
    try:
        schema = json.loads(asked.source)
    except ValueError as error:
        raise UsageError(f"the schema is not valid JSON: {error}", where="guided_json") from None
    return Grammar("lark", f"start: {start.removeprefix('start: ')} | %json {json_rule(schema)}\n{rules}")
