"""Tool definitions and the formats of calls, as chat templates show them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.core.errors import UsageError
from glasshouse.tokenizer.chat_template import CHATML
from glasshouse.tools.definition import ToolDefinition, unique
from glasshouse.tools.formats import HERMES, LLAMA, MISTRAL, ReplyFormat, detect_format, opens_reasoning
from glasshouse.tools.json_reader import JsonObjectReader, loaded

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_both_shapes_say_the_same() -> None:
    """OpenAI's and Anthropic's definitions of one tool are equal; the template gets OpenAI's."""
    openai = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}
    anthropic = {"name": "weather", "description": "d", "input_schema": SCHEMA}
    tool = ToolDefinition.from_openai(openai)
    assert tool == ToolDefinition.from_anthropic(anthropic)
    assert tool.for_template() == openai
    assert ToolDefinition.from_openai({"type": "function", "function": {"name": "now"}}).parameters == {
        "type": "object",
        "properties": {},
    }
    strict = {"type": "function", "function": {"name": "now", "strict": True}}
    assert ToolDefinition.from_openai(strict).strict


@pytest.mark.parametrize(
    ("function", "word"),
    [
        ({}, "name"),
        ({"name": "has space"}, "has space"),
        ({"name": "x" * 129}, "name of a tool"),
        ({"name": 3}, "name of a tool"),
        ({"name": "a", "description": 3}, "description"),
        ({"name": "a", "strict": "yes"}, "strict"),
        ({"name": "a", "parameters": {"type": "string"}}, "object"),
        ({"name": "a", "parameters": [1]}, "object"),
        ({"name": "a", "parameters": {"default": float("nan")}}, "JSON"),
    ],
)
def test_what_is_no_tool_is_refused(function: dict[str, Any], word: str) -> None:
    """With the tool's name and what is wrong."""
    with pytest.raises(UsageError, match=word):
        ToolDefinition.from_openai({"type": "function", "function": function})


def test_shapes_that_are_none() -> None:
    """Another type of tool, no schema where there must be one, two tools of one name."""
    with pytest.raises(UsageError, match="function"):
        ToolDefinition.from_openai({"type": "web_search"})
    with pytest.raises(UsageError, match="input_schema"):
        ToolDefinition.from_anthropic({"name": "a"})
    with pytest.raises(UsageError, match="'a'"):
        unique([ToolDefinition("a"), ToolDefinition("b"), ToolDefinition("a")])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, ReplyFormat()),
        ("{{ messages }}", ReplyFormat()),
        (CHATML, ReplyFormat(HERMES, reasoning=True)),
        ("{% if tools %}<tool_call>{% endif %}", ReplyFormat(HERMES)),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]", ReplyFormat(MISTRAL)),
        ("{% if tools %}{{ '<|python_tag|>' }}{% endif %}", ReplyFormat(LLAMA)),
        (
            "{% if add_generation_prompt %}<think>\\n{% endif %}</think>",
            ReplyFormat(None, True),
        ),
    ],
)
def test_a_template_tells_its_format(template: str | None, expected: ReplyFormat) -> None:
    """By the tags that it writes."""
    assert detect_format(template) == expected


def test_a_prompt_may_open_the_reasoning() -> None:
    """As templates of thinking models do at the prompt's end; a closed <think> opens nothing."""
    assert opens_reasoning("<|im_start|>assistant\n<think>\n")
    assert not opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens_reasoning("<|im_start|>assistant\n")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    value=st.dictionaries(st.text(), JSON, max_size=5),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
    behind=st.sampled_from(["", " ", "}", "</tool_call>", '{"a": 1}']),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_an_object_ends_where_json_says(
    value: dict[str, Any], indent: int | None, ascii_only: bool, behind: str, cuts: list[int]
) -> None:
    """In whatever pieces it comes; its members are the values' texts, what lies behind is given back."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    whole = text + behind
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    reader, rest = JsonObjectReader(), ""
    for start, end in pairwise(places):
        rest += reader.feed(whole[start:end])
    assert reader.done
    assert not reader.bad
    assert (reader.text, rest) == (text, behind)
    assert {key: json.loads(member) for key, member in reader.members.items()} == value


@given(text=st.text('{}[]":,\\u0 aetrufalsn1.-\n', max_size=14).map(lambda text: "{" + text))
def test_what_is_no_json_is_never_taken_for_it(text: str) -> None:
    """An object is done exactly where a beginning of the text is JSON for the standard library."""
    reader = JsonObjectReader()
    rest = reader.feed(text)
    if reader.done:
        assert isinstance(json.loads(text[: len(text) - len(rest)]), dict)
    else:
        assert all(loaded(text[:end]) is None for end in range(1, len(text) + 1))
        if not reader.bad:
            assert rest == ""


def test_loading_never_raises() -> None:
    """Depth, NaN and numbers of absurd length are no JSON to us."""
    assert loaded("[" * 100_000) is None
    assert loaded("NaN") is None
    assert loaded("9" * 100_000) is None
    assert loaded('{"a": 1}') == {"a": 1}
