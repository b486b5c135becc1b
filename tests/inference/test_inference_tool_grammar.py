"""Forced and strict calls: even a model of random logits writes calls that validate."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.inference.choice import Row, RowSettings, choose_rows
from glasshouse.inference.grammar import GrammarCompiler
from glasshouse.inference.reply_parser import (
    Part,
    ReasoningDelta,
    ReplyParser,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from glasshouse.inference.request import Grammar
from glasshouse.inference.sampling import Sampling, row_key
from glasshouse.inference.tool_grammar import tool_grammar
from glasshouse.tokenizer import Tokenizer
from glasshouse.tools.definition import ToolDefinition
from glasshouse.tools.formats import HERMES, LLAMA, MISTRAL, ReplyFormat

WEATHER = ToolDefinition(
    "weather",
    parameters={
        "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
        "additionalProperties": False,
    },
    strict=True,
)
NOW = ToolDefinition("now")
TOOLS = [WEATHER, NOW]
FORMS = [ReplyFormat(HERMES, True), ReplyFormat(HERMES), ReplyFormat(LLAMA), ReplyFormat(MISTRAL)]


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size, {tokenizer.eos_id, tokenizer.end_of_turn_id})


def write(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    grammar: Grammar,
    seed: int,
    likes: str = "",
    more: int = 30,
) -> str:
    """What a model of random logits writes that prefers the tokens of `likes` where it may."""
    state = compiler.start(grammar)
    assert state.needed is not None
    noise = torch.Generator().manual_seed(seed)
    drawn = RowSettings([Sampling(temperature=1.0)], [()], tokenizer.vocab_size)
    key = torch.tensor([row_key(seed, 0, [1])])
    wanted, text = tokenizer.encode_with_special(likes), []
    budget = state.needed + more + len(wanted)
    for place in range(budget):
        logits = torch.randn(1, tokenizer.vocab_size, generator=noise) * 2
        if place < len(wanted):
            logits[0, wanted[place]] += 50
        row = Row(text, state, budget - place)
        token = int(choose_rows(logits, drawn, key, torch.tensor([place]), [row])[0])
        if token in (tokenizer.eos_id, tokenizer.end_of_turn_id):
            break
        state.accept(token)
        text.append(token)
        if state.ended:
            break
    else:
        raise AssertionError("the reply did not end")
    return tokenizer.decode_bytes(text).decode("utf-8", errors="replace")


def parts_of(text: str, form: ReplyFormat, **options: Any) -> list[Part]:
    parser = ReplyParser(form, **options)
    return parser.feed(text) + parser.finish()


def check_calls(parts: list[Part]) -> list[str]:
    """The names of the calls; their arguments validate."""
    names = [part.name for part in parts if isinstance(part, ToolCallStart)]
    arguments: dict[int, str] = {}
    for part in parts:
        if isinstance(part, ToolCallDelta):
            arguments[part.index] = arguments.get(part.index, "") + part.arguments
    for index, name in enumerate(names):
        schema = {"weather": WEATHER, "now": NOW}[name].parameters
        jsonschema_rs.validator_for(dict(schema)).validate(json.loads(arguments[index]))
    return names


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("reasoning_open", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=["hermes thinking", "hermes", "llama", "mistral"])
def test_forced_calls_are_valid(
    compiler: GrammarCompiler, tokenizer: Tokenizer, form: ReplyFormat, reasoning_open: bool, special: bool
) -> None:
    """Required or named, parallel or not, whether the tags are special tokens or spelled out."""
    names = tokenizer.special if special else {}
    options = {"reasoning_open": reasoning_open}
    for choice in ("required", NOW, WEATHER):
        for parallel in (True, False):
            grammar = tool_grammar(TOOLS, form, names, choice=choice, parallel=parallel, **options)  # type: ignore[arg-type]
            assert grammar is not None
            for seed in range(2):
                text = write(compiler, tokenizer, grammar, seed)
                parts = parts_of(text, form, **options)
                assert not any(isinstance(part, TextDelta) for part in parts), text
                called = check_calls(parts)
                assert called
                assert parallel or len(called) == 1
                if isinstance(choice, ToolDefinition):
                    assert set(called) == {choice.name}


@pytest.mark.parametrize(
    ("form", "begun"),
    [
        (FORMS[0], '<tool_call>\n{"name": "we'),
        (FORMS[0], "<think>\nhm</think>\n\nSo. <tool_call>\n"),
        (FORMS[1], '\n\n<tool_call>\n{"name": "now'),
        (FORMS[2], '{"name": "weather'),
        (FORMS[3], "Ok\n[TOOL_CALLS] ["),
    ],
)
@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("parallel", [True, False])
def test_strict_calls_follow_their_schema(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    form: ReplyFormat,
    begun: str,
    special: bool,
    parallel: bool,
) -> None:
    """Free text stays free, but a call once begun can only become a valid one."""
    names = tokenizer.special if special else {}
    grammar = tool_grammar(TOOLS, form, names, choice="auto", parallel=parallel)
    assert grammar is not None
    for seed in range(2):
        likes = begun if special else ""
        text = (
            write(compiler, tokenizer, grammar, seed, likes, more=80)
            if special
            else spelled(compiler, tokenizer, grammar, seed, begun)
        )
        assert text.startswith(begun)
        called = check_calls(parts_of(text, form))
        assert called
        assert parallel or len(called) == 1


def spelled(compiler: GrammarCompiler, tokenizer: Tokenizer, grammar: Grammar, seed: int, begun: str) -> str:
    """As `write`, with the beginning spelled in plain tokens."""
    state = compiler.start(grammar)
    text = tokenizer.encode(begun)
    for token in text:
        state.accept(token)
    noise = torch.Generator().manual_seed(seed)
    drawn = RowSettings([Sampling(temperature=1.0)], [()], tokenizer.vocab_size)
    for place in range(200):
        logits = torch.randn(1, tokenizer.vocab_size, generator=noise) * 2
        row = Row(text, state, 200 - place)
        token = int(choose_rows(logits, drawn, torch.tensor([seed]), torch.tensor([place]), [row])[0])
        if token in (tokenizer.eos_id, tokenizer.end_of_turn_id):
            break
        state.accept(token)
        text.append(token)
        if state.ended:
            break
    return tokenizer.decode_bytes(text).decode("utf-8", errors="replace")


def test_free_text_needs_no_call(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """A strict tool forces nothing; reasoning may come first where the template has it."""
    for form in FORMS:
        grammar = tool_grammar(TOOLS, form, tokenizer.special)
        assert grammar is not None
        state = compiler.start(grammar)
        assert state.needed == 1
        words = "Hello {you} < 3"
        assert state.valid_prefix(tokenizer.encode(words)) == len(tokenizer.encode(words))
    thinking = tool_grammar(TOOLS, FORMS[0], tokenizer.special)
    assert thinking is not None
    text = write(compiler, tokenizer, thinking, 0, "<think>\nwell</think>\n\n")
    assert parts_of(text, FORMS[0])[0] == ReasoningDelta("well")


def test_nothing_to_force() -> None:
    """No tools, tool_choice none, or tools of which none is strict: any text."""
    assert tool_grammar([], FORMS[0], {}) is None
    assert tool_grammar(TOOLS, FORMS[0], {}, choice="none") is None
    assert tool_grammar([NOW], FORMS[0], {}) is None


def test_a_template_without_tools_cannot_be_forced(compiler: GrammarCompiler) -> None:
    """And a schema that cannot be followed is refused when the grammar is compiled."""
    with pytest.raises(UsageError, match="knows no tools"):
        tool_grammar(TOOLS, ReplyFormat(), {}, choice="required")
    odd = ToolDefinition("odd", parameters={"type": "object", "properties": {"a": {"not": {}}}}, strict=True)
    grammar = tool_grammar([odd], FORMS[0], {})
    assert grammar is not None
    with pytest.raises(UsageError, match="not"):
        compiler.start(grammar)
