"""Grammars, compiled for one tokenizer by `llguidance`, and kept for the next request that asks for the same.

JSON Schema is what llguidance makes of it (its docs/json_schema.md): an object's properties come in the order
of the schema, and a keyword that it cannot enforce is an error, never ignored.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from glasshouse.core.errors import GlasshouseError, UsageError
from glasshouse.inference.byte_vocabulary import ByteVocabulary
from glasshouse.inference.closing import Closer, Plan
from glasshouse.inference.constraint import GrammarState, allowed_bits, reason
from glasshouse.inference.request import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer
    from llguidance._tokenizer import TokenizerWrapper

    from glasshouse.tokenizer import Tokenizer

WHITE = r"[\x20\x0A\x0D\x09]{1,40}"
"""White space between the parts of a JSON text: enough for indentation, too little to go on for ever."""

_SPECIAL = re.compile(r'<\[("(?:[^"\\]|\\.)*")\]>')

_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')

_WORD = re.compile(r"[a-zA-Z0-9]+|[^\x00-\x20]")

_FORMATS = {"email": "@", "uri": ":", "date": "-", "date-time": "T", "time": ":", "duration": "P"}

_SYNTAX = frozenset("\\^$*+?(){}|[]")

SPELLED = 32
"""Texts of a grammar that the search for a way to close tries as a whole."""

FUEL = 100
"""What llguidance may spend on each character of a text to quote from (1,000,000 a grammar otherwise)."""

KEPT = 64
"""Compiled grammars that one compiler keeps."""


@dataclass
class CompiledGrammar:
    """A grammar at the beginning of a text, over the model's tokens and over bytes."""

    tokens: LLMatcher
    units: LLMatcher
    closer: Closer
    plan: Plan | None = None  # a short text; None where none was found, or looked for
    _searched: int | None = None  # tokens that it was last asked to fit into

    def plan_within(self, limit: int) -> Plan | None:
        """A whole text that fits into `limit` tokens, or the shortest that is found.

        The first one that fits is enough: it only says when a text must begin to close, and is made anew
        with every token that departs from it. The shortest one takes up to 100 ms to find.
        """
        fits = self.plan is not None and self.plan.cost <= limit
        if not fits and (self._searched is None or limit < self._searched):
            self.plan, self._searched = self.closer.plan(self.units, None, limit), limit
        return self.plan


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

    def start(self, grammar: Grammar, limit: int = 0) -> GrammarState:
        """The grammar at the beginning of a text of at most `limit` tokens; 0: how few will do is looked for.

        Raises UsageError with llguidance's reason.
        """
        compiled = self.compile(grammar)
        with self._lock:
            plan = compiled.plan_within(limit)
        return GrammarState(compiled.tokens, compiled.units, compiled.closer, plan)

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """The compiled grammar, made now or kept from before."""
        with self._lock:
            if grammar not in self._kept:
                self._kept[grammar] = self._compile(grammar)
            self._kept.move_to_end(grammar)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[grammar]

    def forget(self) -> None:
        """Let go of the grammars that are kept."""
        with self._lock:
            self._kept.clear()

    def _compile(self, grammar: Grammar) -> CompiledGrammar:
        from llguidance import LLMatcher

        if self._tokens is None or self._bytes is None:
            self._bytes = ByteVocabulary(self._tokenizer, self._end_ids)
            self._tokens = _token_vocabulary(self._tokenizer, self._bytes, self._vocab_size, self._end_ids)
        matchers = []
        for tokenizer, ids in (
            (self._tokens, self._tokenizer.special),
            (self._bytes.tokenizer, self._bytes.special),
        ):
            matcher = LLMatcher(tokenizer, _source(grammar, ids), log_level=0, limits=_limits(grammar))
            if matcher.is_error():
                raise UsageError(
                    f"the {grammar.kind} cannot be followed: {reason(matcher.get_error())}",
                    where="grammar",
                    fix="leave out what is not supported",
                )
            matchers.append(matcher)
        tokens, units = matchers
        try:
            allowed_bits(tokens)
        except GlasshouseError as error:
            raise UsageError(error.what, where=error.where, fix=error.fix) from None
        closer = Closer(self._bytes, _spelled(grammar))
        return CompiledGrammar(tokens, units, closer)


def _source(grammar: Grammar, special: Mapping[str, int]) -> str:
    """The grammar as llguidance reads it; `special` are the ids of special tokens in the vocabulary."""
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


def _limits(grammar: Grammar) -> LLParserLimits:
    """llguidance's own limits; a long text needs more to be made into a grammar, about 10 µs a character."""
    from llguidance import LLParserLimits

    if grammar.kind != "piece_of":
        return LLParserLimits()
    return LLParserLimits(initial_lexer_fuel=1_000_000 + FUEL * len(grammar.source))


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


def _spelled(grammar: Grammar) -> list[bytes]:
    """Texts that a grammar spells out: what may end free text."""
    source = str(grammar.source)
    if grammar.kind == "regex":
        texts = _words(source)
    elif grammar.kind == "json_schema":
        texts = [word for pattern in _patterns(json.loads(source)) for word in _words(pattern)]
    elif grammar.kind == "lark":
        texts = _literals(source)
    else:
        texts = []
    return [text.encode() for text in dict.fromkeys(texts) if text][:SPELLED]


def _words(pattern: str) -> list[str]:
    """The words and signs of a regular expression; last the whole without the signs of its syntax."""
    words = _WORD.findall(pattern)
    return [*words, "".join(word for word in words if word not in _SYNTAX)]


def _patterns(schema: Any) -> Iterator[str]:
    """The regular expressions in a JSON Schema, and for formats the signs that they cannot do without."""
    if not isinstance(schema, (dict, list)):
        return
    for key, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if key == "pattern" and isinstance(value, str):
            yield value
        elif key == "format" and value in _FORMATS:
            yield _FORMATS[value]
        yield from _patterns(value)


def _literals(lark: str) -> list[str]:
    """The quoted texts of a Lark grammar, without those of the schemas in it."""
    place = 0
    while (place := lark.find("%json", place)) >= 0:
        start = place + len("%json")
        start += len(lark[start:]) - len(lark[start:].lstrip())
        with contextlib.suppress(ValueError):
            lark = lark[:place] + lark[json.JSONDecoder().raw_decode(lark, start)[1] :]
        place += 1
    texts: list[str] = []
    for quoted in _STRING.findall(_SPECIAL.sub("", lark)):
        with contextlib.suppress(ValueError):
            texts.append(json.loads(quoted))
    return [text for text in texts if len(text) > 1]


class _Wrapped:
    """What llguidance wants to see of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self, tokenizer: Tokenizer, spelling: ByteVocabulary, tokens: Sequence[bytes], eos: int
    ) -> None:
        self.tokens, self.eos_token_id = tokens, eos
        self.special_token_ids = sorted(tokenizer.special.values())
        self._tokenizer, self._spelling = tokenizer, spelling

    def __call__(self, text: str) -> list[int]:
        """The tokens that the model was trained to see for a text, if they are that text byte by byte.

        Others put a space before the first word, normalize, or have an unknown token; then the fewest
        tokens that spell it, none if the vocabulary cannot.
        """
        ids = self._tokenizer.encode(text)
        if b"".join(map(self._spelling.bytes_of, ids)) == text.encode():
            return ids
        return list(self._spelling.tokens_of(list(text.encode())) or ())


def _token_vocabulary(
    tokenizer: Tokenizer, spelling: ByteVocabulary, vocab_size: int, end_ids: frozenset[int]
) -> LLTokenizer:
    """The model's vocabulary; special tokens are no part of any text."""
    from llguidance import LLTokenizer

    ends = sorted(end_ids)
    tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    tokens += [b""] * (vocab_size - len(tokens))
    wrapped = _Wrapped(tokenizer, spelling, tokens, ends[0])
    return LLTokenizer(cast("TokenizerWrapper", wrapped), eos_token=ends)
