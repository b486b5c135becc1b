"""Grammars, compiled for one tokenizer by `llguidance`, and kept for the next request that asks for the same.

JSON Schema is what llguidance makes of it (its docs/json_schema.md): an object's properties come in the order
of the schema, and a keyword that it cannot enforce is an error, never ignored.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glasshouse.core.errors import UsageError
from glasshouse.inference.closing import ByteVocabulary, Plan, plan_from
from glasshouse.inference.constraint import GrammarState
from glasshouse.inference.request import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from glasshouse.tokenizer import Tokenizer

WHITE = r"[\x20\x0A\x0D\x09]{1,40}"
"""White space between the parts of a JSON text: enough for indentation, too little to go on for ever."""

_SPECIAL = re.compile(r'<\[("(?:[^"\\]|\\.)*")\]>')

KEPT = 64
"""Compiled grammars that one compiler keeps."""


@dataclass(frozen=True)
class CompiledGrammar:
    """A grammar at the beginning of a text, over the model's tokens and over bytes."""

    tokens: LLMatcher
    units: LLMatcher
    plan: Plan | None  # the shortest text; None where none was found


class GrammarCompiler:
    """Compiles grammars for one tokenizer. May be used from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]) -> None:
        """`vocab_size` is the model's, which may be larger than the tokenizer's: the rest is forbidden.

        `end_ids` are the tokens that end a text; they are allowed where it is whole.
        """
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._end_ids = frozenset(end_ids)
        self._kept: OrderedDict[Grammar, CompiledGrammar] = OrderedDict()
        self._lock = threading.Lock()
        self._tokens: LLTokenizer | None = None
        self._bytes: ByteVocabulary | None = None

    def start(self, grammar: Grammar) -> GrammarState:
        """The grammar at the beginning of a text. Raises UsageError, with llguidance's reason, if it refuses."""
        compiled = self.compile(grammar)
        assert self._bytes is not None
        return GrammarState(compiled.tokens, compiled.units, self._bytes, compiled.plan)

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """The compiled grammar, made now or kept from before."""
        with self._lock:
            if grammar not in self._kept:
                self._kept[grammar] = self._compile(grammar)
            self._kept.move_to_end(grammar)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[grammar]

    def _compile(self, grammar: Grammar) -> CompiledGrammar:
        from llguidance import LLMatcher

        if self._tokens is None or self._bytes is None:
            self._tokens = _token_vocabulary(self._tokenizer, self._vocab_size, self._end_ids)
            self._bytes = ByteVocabulary(self._tokenizer, self._end_ids)
        matchers = []
        for tokenizer, ids in (
            (self._tokens, self._tokenizer.special),
            (self._bytes.tokenizer, self._bytes.special),
        ):
            matcher = LLMatcher(tokenizer, _source(grammar, ids), log_level=0)
            if matcher.is_error():
                raise UsageError(
                    f"the {grammar.kind} cannot be followed: {_reason(matcher.get_error())}",
                    where="grammar",
                    fix="leave out what is not supported",
                )
            matchers.append(matcher)
        tokens, units = matchers
        return CompiledGrammar(tokens, units, plan_from(units, self._bytes))


def _source(grammar: Grammar, special: Mapping[str, int]) -> str:
    """The grammar as llguidance reads it. `special` are the ids of special tokens in the vocabulary at hand."""
    from llguidance import LLMatcher

    if grammar.kind == "choices":
        texts = (grammar.source,) if isinstance(grammar.source, str) else grammar.source
        if not texts or not all(texts):
            raise UsageError("choices must be texts, none of them empty", where="grammar")
        return LLMatcher.grammar_from_lark("start: " + " | ".join(map(literal, dict.fromkeys(texts))))
    source = grammar.source if isinstance(grammar.source, str) else "".join(grammar.source)
    if grammar.kind == "json_schema":
        try:
            schema = json.loads(source)
        except ValueError as error:
            raise UsageError(f"the JSON Schema is not JSON: {error}", where="grammar") from None
        return LLMatcher.grammar_from_lark(f"start: %json {json_rule(schema)}")
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(source)
    if grammar.kind == "piece_of":
        if not source:
            raise UsageError("there is no piece of an empty text", where="grammar", fix="give the text")
        return LLMatcher.grammar_from_lark(
            f"start: PIECE\nPIECE: %regex {json.dumps({'substring_chars': source})} & /(?s:.)+/"
        )
    return LLMatcher.grammar_from_lark(_numbered(source, special))


def json_rule(schema: Any) -> str:
    """A schema for llguidance's `%json`, with our settings in place of any of the schema's own."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise UsageError(f"a JSON Schema is an object, not {type(schema).__name__}", where="grammar")
    options = {"whitespace_pattern": WHITE, "lenient": False}
    return json.dumps({**schema, "x-guidance": options}, ensure_ascii=False)


def literal(text: str) -> str:
    """A text as Lark writes it."""
    return json.dumps(text, ensure_ascii=False)


def special_token(name: str) -> str:
    """A special token in a Lark grammar, whatever its name: `<["[TOOL_CALLS]"]>`. This notation is ours."""
    return f"<[{json.dumps(name)}]>"


def _numbered(lark: str, special: Mapping[str, int]) -> str:
    """The same grammar with the tokens' ids, as llguidance knows them."""

    def number(match: re.Match[str]) -> str:
        name = json.loads(match[1])
        if name not in special:
            raise UsageError(f"the tokenizer has no special token {name!r}", where="grammar")
        return f"<[{special[name]}]>"

    return _SPECIAL.sub(number, lark)


def _reason(message: str) -> str:
    """llguidance's message without the dump of its state."""
    lines = [line.strip() for line in message.split("<state>")[0].splitlines()]
    return " ".join(line for line in lines if line)[:500]


class _Wrapped:
    """What llguidance wants to see of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, tokens: Sequence[bytes], eos: int) -> None:
        self.tokens, self.eos_token_id = tokens, eos
        self.special_token_ids = sorted(tokenizer.special.values())
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _token_vocabulary(tokenizer: Tokenizer, vocab_size: int, end_ids: frozenset[int]) -> LLTokenizer:
    """The model's vocabulary; special tokens are no part of any text."""
    from llguidance import LLTokenizer

    ends = sorted(end_ids)
    tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    tokens += [b""] * (vocab_size - len(tokens))
    return LLTokenizer(_Wrapped(tokenizer, tokens, ends[0]), eos_token=ends)
