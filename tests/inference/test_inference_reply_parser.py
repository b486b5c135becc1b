"""Replies taken apart on a stream: reasoning, text and calls, in whatever pieces they come."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.inference.reply_parser import (
    Part,
    ReasoningDelta,
    ReplyParser,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from glasshouse.tokenizer import Tokenizer
from glasshouse.tools.formats import HERMES, LLAMA, MISTRAL, ReplyFormat

OURS = ReplyFormat(HERMES, reasoning=True)


def parse(text: str, form: ReplyFormat = OURS, cuts: list[int] | None = None, **options: Any) -> list[Part]:
    """The parts of a text fed in pieces that end at `cuts`, deltas of one kind joined."""
    parser = ReplyParser(form, **options)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts or []), len(text)]
    parts: list[Part] = []
    for start, end in pairwise(places):
        parts += parser.feed(text[start:end])
    joined: list[Part] = []
    for part in parts + parser.finish():
        last = joined[-1] if joined else None
        if isinstance(part, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(last.text + part.text)
        elif isinstance(part, ReasoningDelta) and isinstance(last, ReasoningDelta):
            joined[-1] = ReasoningDelta(last.text + part.text)
        elif isinstance(part, ToolCallDelta) and isinstance(last, ToolCallDelta):
            joined[-1] = ToolCallDelta(part.index, last.arguments + part.arguments)
        else:
            joined.append(part)
    return joined


def call(index: int, name: str, arguments: str = "{}", call_id: str | None = None) -> list[Part]:
    return [ToolCallStart(index, name, call_id), ToolCallDelta(index, arguments), ToolCallEnd(index)]


def hermes(name: str, arguments: str = "{}") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("Hello", [TextDelta("Hello")]),
        ("<think>\nhm\n</think>\n\nHello", [ReasoningDelta("hm"), TextDelta("Hello")]),
        ("<think>hm</think>Hello", [ReasoningDelta("hm"), TextDelta("Hello")]),
        ("<think>\n\n</think>\n\n\nHi", [TextDelta("\nHi")]),
        ("\n<think>a</think>b", [ReasoningDelta("a"), TextDelta("b")]),
        ("<think>never closed", [ReasoningDelta("never closed")]),
        ("a <think> b", [TextDelta("a <think> b")]),
        ("a < b </think> <tool", [TextDelta("a < b </think> <tool")]),
        (hermes("f"), call(0, "f")),
        ("Let me see.\n" + hermes("f"), [TextDelta("Let me see."), *call(0, "f")]),
        (hermes("f") + "\n" + hermes("g", '{"x": 1}'), [*call(0, "f"), *call(1, "g", '{"x": 1}')]),
        (hermes("f") + "\n", call(0, "f")),
        (hermes("f") + " and", [*call(0, "f"), TextDelta(" and")]),
        ("<think>hm" + hermes("f"), [ReasoningDelta("hm"), *call(0, "f")]),
        (hermes("f", '{"x": "</tool_call>"}'), call(0, "f", '{"x": "</tool_call>"}')),
        ('<tool_call>{"arguments":{"a":[]},"name":"f"}</tool_call>', call(0, "f", '{"a":[]}')),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', call(0, "f", '{"a": 1}')),
        # The closing tag alone may be missing: a stop string, or the budget's end.
        ('<tool_call>{"name": "f", "arguments": {}}', call(0, "f")),
        ('<tool_call>{"name": "f", "arguments": {}}\n</tool', call(0, "f")),
    ],
)
def test_replies_by_hand(text: str, parts: list[Part]) -> None:
    """What stands where, and which white space belongs to nobody."""
    assert parse(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nnot JSON\n</tool_call>",
        '<tool_call>{"name": "f", "arguments": {}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": tru}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}} more</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": "cut',
        '<tool_call>{"colour": "red"}</tool_call>',
        "<tool_call>",
        '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 3000 + "]" * 3000 + "}}</tool_call>",
    ],
)
def test_a_malformed_call_is_text(text: str) -> None:
    """As the model wrote it, with what stood before it; a good call after it is one."""
    assert parse("So:\n" + text) == [TextDelta("So:\n" + text)]
    after = parse(text.removesuffix("</tool_call>") + "\x00 then " + hermes("f"))
    assert after[1:] == call(0, "f")


def test_a_tag_within_reasoning_that_is_no_call() -> None:
    """Reasoning about tags goes on; a broken call in it ends it and is text."""
    assert parse("<think>a <tool_call> tag\n</think>\n\nb") == [
        ReasoningDelta("a <tool_call> tag"),
        TextDelta("b"),
    ]
    assert parse('<think>a\n<tool_call>{"b"}') == [ReasoningDelta("a"), TextDelta('\n<tool_call>{"b"}')]


def test_without_tools_calls_are_text() -> None:
    """A request without tools, or a model without a format, gets what was written."""
    assert parse(hermes("f"), tools=False) == [TextDelta(hermes("f"))]
    assert parse("<think>a</think>b", ReplyFormat()) == [TextDelta("<think>a</think>b")]


def test_the_prompt_may_have_opened_the_reasoning() -> None:
    """Then the reply begins inside it, also where the template's text does not show the tags."""
    assert parse("hm\n</think>\n\nHi", reasoning_open=True) == [ReasoningDelta("hm"), TextDelta("Hi")]
    assert parse("\nhm</think>Hi", ReplyFormat(), reasoning_open=True) == [
        ReasoningDelta("hm"),
        TextDelta("Hi"),
    ]


LLAMA_CALL = '{"name": "f", "parameters": {"a": 1}}'
MISTRAL_CALLS = '[{"name": "f", "arguments": {"a": 1}, "id": "abc123def"}, {"name": "g", "arguments": {}}]'


@pytest.mark.parametrize(
    ("form", "text", "parts"),
    [
        (LLAMA, LLAMA_CALL, call(0, "f", '{"a": 1}')),
        (LLAMA, "<|python_tag|>" + LLAMA_CALL, call(0, "f", '{"a": 1}')),
        (LLAMA, f"{LLAMA_CALL}; {LLAMA_CALL}", [*call(0, "f", '{"a": 1}'), *call(1, "f", '{"a": 1}')]),
        (LLAMA, LLAMA_CALL + " Done.", [*call(0, "f", '{"a": 1}'), TextDelta(" Done.")]),
        (LLAMA, '{"answer": 3}', [TextDelta('{"answer": 3}')]),
        (LLAMA, ' {"name": "f"', [TextDelta(' {"name": "f"')]),
        (LLAMA, "It is " + LLAMA_CALL, [TextDelta("It is " + LLAMA_CALL)]),
        (MISTRAL, "[TOOL_CALLS] " + MISTRAL_CALLS, [*call(0, "f", '{"a": 1}', "abc123def"), *call(1, "g")]),
        (MISTRAL, "[TOOL_CALLS]" + MISTRAL_CALLS[:-1], [TextDelta("[TOOL_CALLS]" + MISTRAL_CALLS[:-1])]),
        (MISTRAL, "[TOOL_CALLS] []", [TextDelta("[TOOL_CALLS] []")]),
    ],
)  # fmt: skip
def test_other_formats(form: Any, text: str, parts: list[Part]) -> None:
    """Llama's bare objects and Mistral's array."""
    assert parse(text, ReplyFormat(form)) == parts


SNIPPETS = [
    "<think>", "</think>", "\n", "\n\n", "<tool_call>", "</tool_call>", "<tool", "hello", " ", "é🦉", "{",
    '"', hermes("f"), hermes("g", '{"x": "<think>"}'), LLAMA_CALL, "; ", "<|python_tag|>", "[TOOL_CALLS]",
    "[", "]", MISTRAL_CALLS, '{"name": "f", "arguments": {"a": ', '{"name": "f"', "\\", ",", "}",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    text=st.lists(st.sampled_from(SNIPPETS), max_size=9).map("".join),
    form=st.sampled_from([HERMES, LLAMA, MISTRAL, None]),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    reasoning=st.booleans(),
    opened=st.booleans(),
)
def test_pieces_do_not_matter(text: str, form: Any, cuts: list[int], reasoning: bool, opened: bool) -> None:
    """Every way of cutting a text gives the same parts; nothing raises, and no sign but white is lost."""
    reply = ReplyFormat(form, reasoning)
    whole = parse(text, reply, reasoning_open=opened)
    assert parse(text, reply, cuts, reasoning_open=opened) == whole
    assert parse(text, reply, list(range(len(text))), reasoning_open=opened) == whole
    said = "".join(part.text for part in whole if isinstance(part, (TextDelta, ReasoningDelta)))
    if form is None and not reasoning and not opened:
        assert said == text
    if not any(isinstance(part, ToolCallStart) for part in whole):
        assert "".join(text.split()).replace("<think>", "").replace("</think>", "") == "".join(
            said.split()
        ).replace("<think>", "").replace("</think>", "")
    starts = [part.index for part in whole if isinstance(part, ToolCallStart)]
    ends = [part.index for part in whole if isinstance(part, ToolCallEnd)]
    assert starts == ends == list(range(len(starts)))


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(["hello", "\n", hermes("f"), hermes("g", '{"x": "<think>"}')]), max_size=5
    ),
    end=st.integers(0, 250),
    cuts=st.lists(st.integers(0, 250), max_size=12),
)
def test_pieces_of_certain_calls_do_not_matter(parts: list[str], end: int, cuts: list[int]) -> None:
    """Also where the budget cut the text, in the middle of a call."""
    text = "".join(parts)[:end]
    whole = parse(text, certain=True)
    assert parse(text, cuts=cuts, certain=True) == whole
    assert parse(text, cuts=list(range(len(text))), certain=True) == whole


def test_certain_calls_stream() -> None:
    """Under a grammar the name and the arguments are told as they come, a cut call as far as it went."""
    parser = ReplyParser(OURS, certain=True)
    assert parser.feed('<tool_call>\n{"name": "f", "argu') == [ToolCallStart(0, "f")]
    assert parser.feed('ments": {"a": "lo') == [ToolCallDelta(0, '{"a": "lo')]
    assert parser.feed('ng"') == [ToolCallDelta(0, 'ng"')]
    assert parser.feed("}}\n</tool") == [ToolCallDelta(0, "}"), ToolCallEnd(0)]
    assert parser.feed('_call>\n<tool_call>\n{"name": "g", "arguments": {"b') == [
        ToolCallStart(1, "g"),
        ToolCallDelta(1, '{"b'),
    ]
    assert parser.finish() == [ToolCallEnd(1)]


CONTENT = st.text("ab <>\n{}é", max_size=12).filter(lambda text: "<think>" not in text)
ARGUMENTS = st.sampled_from(
    ["{}", '{"a": 1}', '{"q": "</tool_call>", "r": [true, null]}', '{"é": {"x": "\\n"}}']
)


@settings(max_examples=200, deadline=None)
@given(
    reasoning=st.none() | CONTENT.filter(bool),
    content=CONTENT,
    calls=st.lists(st.tuples(st.sampled_from(["f", "g_h", "now"]), ARGUMENTS), max_size=3),
)
def test_what_our_template_writes_comes_back(
    tokenizer: Tokenizer, reasoning: str | None, content: str, calls: list[tuple[str, str]]
) -> None:
    """render, parse and render again: the same text, hence the same message."""

    def reply(message: dict[str, Any]) -> str:
        rendered = tokenizer.render([{"role": "user", "content": "q"}, message])
        return rendered.split("<|im_start|>assistant\n", 1)[1].rsplit("<|im_end|>", 1)[0]

    def message(reasoning: str | None, content: str, calls: list[tuple[str, str]]) -> dict[str, Any]:
        made = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
        return {"role": "assistant", "content": content, "reasoning_content": reasoning, "tool_calls": made}

    text = reply(message(reasoning, content, calls))
    parts = parse(text)
    thought = "".join(part.text for part in parts if isinstance(part, ReasoningDelta))
    said = "".join(part.text for part in parts if isinstance(part, TextDelta))
    names = [part.name for part in parts if isinstance(part, ToolCallStart)]
    arguments = [part.arguments for part in parts if isinstance(part, ToolCallDelta)]
    again = message(thought or None, said, list(zip(names, arguments, strict=True)))
    assert reply(again) == text
    assert (thought or None, said, names) == (reasoning, content, [name for name, _ in calls])
