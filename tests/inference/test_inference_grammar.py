"""Grammars: what a model may write, and that it always comes to an end."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import GlasshouseError, UsageError
from glasshouse.inference.choice import Row, RowSettings, choose_rows
from glasshouse.inference.closing import Closer
from glasshouse.inference.grammar import GrammarCompiler, special_token
from glasshouse.inference.request import Grammar
from glasshouse.inference.sampling import Sampling, row_key
from glasshouse.tokenizer import Tokenizer

PADDED = 16
"""Rows of the model's vocabulary that the tokenizer does not know."""


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    ends = {tokenizer.eos_id, tokenizer.end_of_turn_id}
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDED, ends)


def write(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    grammar: Grammar,
    budget: int,
    seed: int = 0,
    temperature: float = 1.0,
    likes: list[int] | None = None,
) -> tuple[str, bool]:
    """What a model of random logits writes, and whether it ended within the budget.

    `likes` are tokens that the model prefers to all others.
    """
    state = compiler.start(grammar)
    ends = {tokenizer.eos_id, tokenizer.end_of_turn_id}
    vocab = tokenizer.vocab_size + PADDED
    noise = torch.Generator().manual_seed(seed)
    drawn = RowSettings([Sampling(temperature=temperature, seed=seed)], [()], vocab)
    key = torch.tensor([row_key(seed, 0, [1])])
    text: list[int] = []
    for place in range(budget):
        logits = torch.randn(1, vocab, generator=noise) * 3
        logits[0, likes or []] += 8
        row = Row(text, state, budget - place)
        token = int(choose_rows(logits, drawn, key, torch.tensor([place]), [row])[0])
        if token in ends:
            assert state.whole
            return decoded(tokenizer, text), True
        assert token < tokenizer.vocab_size
        assert state.valid_prefix([token]) == 1
        state.accept(token)
        text.append(token)
        if state.ended:
            return decoded(tokenizer, text), True
    return decoded(tokenizer, text), False


def decoded(tokenizer: Tokenizer, text: list[int]) -> str:
    return tokenizer.decode_bytes(text).decode("utf-8", errors="replace")


# Random schemas

FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "email"]
PATTERNS = ["^[a-c]+$", "^(ab|cd){2}$", "^\\d{3}-\\d{2}$", "[xyz]", "^a?b*c$"]
NAMES = ["id", "name", "größe", "a b", 'q"q', "x", "yes", "items"]


def random_schema(draw: random.Random, depth: int = 3) -> Any:
    """A JSON Schema of bounded size; references lead only to the definitions of `random_document`."""
    kinds = ["string", "string", "integer", "number", "boolean", "null", "enum", "const", "format", "pattern"]
    if depth:
        kinds += [
            "object",
            "object",
            "object",
            "array",
            "array",
            "any",
            "all",
            "types",
            "ref",
            "map",
            "tuple",
        ]
    kind = draw.choice(kinds)
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "string":
        low = draw.choice([0, 0, 0, 1, 3])
        return {"type": "string"} | draw.choice(
            [{}, {"minLength": low, "maxLength": low + draw.randint(0, 6)}]
        )
    if kind in ("integer", "number"):
        low = draw.randint(-50, 50)
        limits: list[dict[str, Any]] = [
            {},
            {"minimum": low},
            {"minimum": low, "maximum": low + draw.randint(0, 900)},
            {"exclusiveMaximum": low},
            {"multipleOf": draw.choice([2, 5, 7])},
        ]
        return {"type": kind} | draw.choice(limits)
    if kind == "enum":
        return {"enum": draw.sample(["red", "green", 3, 4.5, None, True, ["a", 1], {"k": "v"}, ""], 3)}
    if kind == "const":
        return {"const": draw.choice(["only", 0, None, [1, 2], {"a": {"b": []}}])}
    if kind == "format":
        return {"type": "string", "format": draw.choice(FORMATS)}
    if kind == "pattern":
        return {"type": "string", "pattern": draw.choice(PATTERNS)}
    if kind == "array":
        low = draw.choice([0, 0, 1, 2])
        more = draw.choice([{}, {"minItems": low, "maxItems": low + draw.randint(0, 3)}])
        return {"type": "array", "items": random_schema(draw, depth - 1)} | more
    if kind == "tuple":
        parts = [random_schema(draw, depth - 1) for _ in range(draw.randint(1, 3))]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
    if kind == "any":
        return {"anyOf": [random_schema(draw, depth - 1) for _ in range(draw.randint(1, 3))]}
    if kind == "all":
        name = draw.choice(NAMES)
        more = {"type": "object", "properties": {name: random_schema(draw, depth - 1)}, "required": [name]}
        return {"allOf": [more, {"type": "object", "properties": {"also": {"type": "integer"}}}]}
    if kind == "types":
        return {"type": draw.sample(["string", "integer", "null", "boolean", "array", "object"], 2)}
    if kind == "ref":
        return {"$ref": f"#/$defs/{draw.choice(['leaf', 'tree'])}"}
    if kind == "map":
        return {"type": "object", "additionalProperties": random_schema(draw, depth - 1)}
    names = draw.sample(NAMES, draw.randint(1, 4))
    required = [name for name in names if draw.random() < 0.6]
    extra = draw.choice([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "integer"}}])
    properties = {name: random_schema(draw, depth - 1) for name in names}
    return {"type": "object", "properties": properties, "required": required} | extra


def random_document(seed: int) -> Any:
    draw = random.Random(seed)
    schema = random_schema(draw)
    tree = {
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
        },
        "required": ["next"],
        "additionalProperties": False,
    }
    return {**schema, "$defs": {"leaf": random_schema(draw, 0), "tree": tree}}


def check_schema(compiler: GrammarCompiler, tokenizer: Tokenizer, seed: int) -> None:
    """Replies under one random schema: they end where the budget allows it, parse and validate."""
    schema = random_document(seed)
    grammar = Grammar("json_schema", json.dumps(schema))
    needed = compiler.start(grammar).needed
    assert needed is not None, schema
    validator = jsonschema_rs.validator_for(schema)
    for budget in (needed, needed + 7, 2 * needed + 40):
        text, ended = write(compiler, tokenizer, grammar, budget, seed)
        assert ended, (schema, budget, text)
        assert validator.is_valid(json.loads(text)), (schema, text)
    short, ended = write(compiler, tokenizer, grammar, needed - 1, seed)
    assert not ended or validator.is_valid(json.loads(short))


@pytest.mark.parametrize("seed", range(40))
def test_replies_validate_and_end(compiler: GrammarCompiler, tokenizer: Tokenizer, seed: int) -> None:
    """A model of random logits writes valid JSON and ends within every budget that the plan fits."""
    check_schema(compiler, tokenizer, seed)


@pytest.mark.accept
def test_a_thousand_schemas(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """The same for 1,000 random schemas that no other test uses."""
    for seed in range(70_000, 71_000):
        check_schema(compiler, tokenizer, seed)


@pytest.mark.parametrize(
    ("kind", "source", "shortest"),
    [
        ("json_schema", "{}", None),
        ("json_schema", '{"type": "object"}', "{}"),
        ("json_schema", '{"enum": ["aa", "b"]}', '"b"'),
        ("json_schema", '{"type": "array", "items": {"type": "string"}, "minItems": 2}', '["",""]'),
        ("json_schema", '{"type": "string", "pattern": "^[^@]+@[^@]+$"}', None),
        ("json_schema", '{"type": "string", "minLength": 300}', None),
        ("json_schema", '{"properties": {"a": {"type": "string", "minLength": 99}}, "type": "object"}', "{}"),
        ("regex", "(foo|ba)r+z", None),
        ("regex", "(?s:.)*END", "END"),
        ("choices", ("maybe so", "yes", "no"), "no"),
        ("lark", 'start: "(" start ")" | "x"', "x"),
        ("lark", 'start: TEXT "stop"\nTEXT: /[a-z ]*/', "stop"),
    ],
)
def test_the_shortest_text_is_known(
    compiler: GrammarCompiler, tokenizer: Tokenizer, kind: Any, source: Any, shortest: str | None
) -> None:
    """`needed` tokens are enough, whatever the model likes; one less is not, where the shortest is known."""
    grammar = Grammar(kind, source)
    needed = compiler.start(grammar).needed
    assert needed is not None
    text, ended = write(compiler, tokenizer, grammar, needed, likes=tokenizer.encode("{[(a"))
    assert ended
    if shortest is not None:
        assert text == shortest
        assert not write(compiler, tokenizer, grammar, needed - 1)[1]


def test_a_long_string_is_passed_by_where_null_will_do(
    compiler: GrammarCompiler, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence of a document, or null, a dozen times: known at once, where each token took a search."""
    sentence = {"anyOf": [{"enum": [f"{n} {'long ' * 99}" for n in range(9)]}, {"type": "null"}]}
    fields = {f"field_{n}": sentence for n in range(12)}
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    monkeypatch.setattr(Closer, "_search", lambda *_: pytest.fail("searched"))
    room = len(tokenizer.encode(json.dumps(dict.fromkeys(fields)))) + 1
    needed = compiler.start(Grammar("json_schema", json.dumps(schema)), room).needed
    assert needed is not None
    assert needed <= room


def test_the_plan_is_the_shortest_of_all(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """Beside a brute-force search through all tokens, for grammars small enough for one."""
    ends = {tokenizer.eos_id, tokenizer.end_of_turn_id}

    def brute(grammar: Grammar) -> int:
        texts: list[list[int]] = [[]]
        for cost in range(1, 9):
            following: list[list[int]] = []
            for text in texts:
                state = compiler.start(grammar)
                for token in text:
                    state.accept(token)
                allowed = state.mask(torch.zeros(tokenizer.vocab_size), 10**6).isfinite().nonzero()[:, 0]
                if not ends.isdisjoint(allowed.tolist()):
                    return cost
                following += [[*text, token] for token in allowed.tolist()]
            for text in following:
                state = compiler.start(grammar)
                for token in text:
                    state.accept(token)
                if state.ended:
                    return cost
            texts = following
        raise AssertionError("no text was found")

    for source in ["ab?c|abd", "(t|th|the|x){2}", "a{3}|bbbb", "h?e(r|n) ", "x*yz?"]:
        grammar = Grammar("regex", source)
        assert compiler.start(grammar).needed == brute(grammar)


PIECES = st.text(min_size=1, max_size=60) | st.text('ab\n"\\é🦉\u200d\u0301\x00', min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(text=PIECES, budget=st.integers(4, 30), seed=st.integers(0, 9))
def test_a_quote_is_a_piece_of_its_text(
    compiler: GrammarCompiler, tokenizer: Tokenizer, text: str, budget: int, seed: int
) -> None:
    """Never empty, and verbatim to the last sign, whatever the text holds."""
    quote, ended = write(compiler, tokenizer, Grammar("piece_of", text), budget, seed)
    assert not ended or (quote and quote in text)
    assert ended or compiler.start(Grammar("piece_of", text)).needed > budget  # type: ignore[operator]


@pytest.mark.accept
def test_ten_thousand_quotes(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """Random texts over all of Unicode."""
    draw = random.Random(4099)
    for seed in range(10_000):
        planes = [(32, 126), (32, 126), (0, 0x2FF), (0x300, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
        text = "".join(chr(draw.randint(*draw.choice(planes))) for _ in range(draw.randint(1, 80)))
        quote, ended = write(compiler, tokenizer, Grammar("piece_of", text), draw.randint(8, 40), seed)
        assert ended
        assert quote
        assert quote in text


@pytest.mark.parametrize(
    ("grammar", "word"),
    [
        (Grammar("json_schema", "{"), "not JSON"),
        (Grammar("json_schema", "3"), "object"),
        (Grammar("json_schema", '{"type": "array", "uniqueItems": true}'), "uniqueItems"),
        (Grammar("json_schema", '{"type": "string", "format": "colour"}'), "colour"),
        (Grammar("json_schema", '{"not": {}, "x-guidance": {"lenient": true}}'), "not"),
        (Grammar("json_schema", "false"), "cannot be followed"),
        (Grammar("regex", "a("), "unclosed group"),
        (Grammar("lark", "nonsense"), "cannot be followed"),
        (Grammar("lark", 'start: <["<|nobody|>"]>'), "nobody"),
        (Grammar("choices", ()), "choices"),
        (Grammar("choices", ("a", "")), "choices"),
        (Grammar("piece_of", ""), "empty"),
    ],
)
def test_what_cannot_be_followed_is_refused(compiler: GrammarCompiler, grammar: Grammar, word: str) -> None:
    """With the reason; nothing of a schema is silently left out."""
    with pytest.raises(UsageError, match=word):
        compiler.start(grammar)


def test_true_allows_any_json(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """The schema `true` is the empty one."""
    text, ended = write(compiler, tokenizer, Grammar("json_schema", "true"), 30)
    assert ended
    json.loads(text)


def test_special_and_unknown_tokens_stand_in_no_text(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """Inside a string every byte may come, but no special token and none of the padded vocabulary."""
    state = compiler.start(Grammar("json_schema", '{"type": "string"}'))
    for token in tokenizer.encode('"a'):
        state.accept(token)
    allowed = state.mask(torch.zeros(tokenizer.vocab_size + PADDED), 100).isfinite()
    assert not allowed[list(tokenizer.special.values())].any()
    assert not allowed[tokenizer.vocab_size :].any()
    assert allowed[tokenizer.encode("q")].all()
    assert state.valid_prefix([*tokenizer.encode('bc"'), *tokenizer.encode("x")]) == len(
        tokenizer.encode('bc"')
    )


def test_numbers_stay_finite(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """A model that loves exponents gets none of three digits in a number, and all it likes in a string."""
    likes = [*tokenizer.encode("9"), *tokenizer.encode("e")]
    for seed in range(10):
        text, ended = write(
            compiler, tokenizer, Grammar("json_schema", '{"type": "number"}'), 20, seed, 1, likes
        )
        assert ended
        assert abs(float(text)) < float("inf")
    string = compiler.start(Grammar("json_schema", '{"type": "string"}'))
    for token in tokenizer.encode('"1e99'):
        assert string.closes(token, 50)
        string.accept(token)
    assert string.closes(*tokenizer.encode("9"), 40)


def test_special_tokens_in_a_grammar(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """They are named in our own notation, whatever their names, and count as one token."""
    lark = f'start: {special_token("<think>")} "yes" {special_token("</think>")}'
    state = compiler.start(Grammar("lark", lark))
    assert state.needed == 2 + len(tokenizer.encode("yes"))
    text, ended = write(compiler, tokenizer, Grammar("lark", lark), state.needed)
    assert (text, ended) == ("<think>yes</think>", True)


def test_white_space_does_not_go_on(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """A model that writes only spaces where it may is brought on by the grammar."""
    schema = json.dumps({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]})
    text, ended = write(compiler, tokenizer, Grammar("json_schema", schema), 400, likes=tokenizer.encode(" "))
    assert ended
    assert not re.search(r"\s{41}", text)


def test_compiled_grammars_are_kept(compiler: GrammarCompiler) -> None:
    """The same grammar is compiled once; two texts under it do not know each other."""
    grammar = Grammar("choices", ("kept", "other"))
    assert compiler.compile(grammar) is compiler.compile(Grammar("choices", ("kept", "other")))
    one, two = compiler.start(grammar), compiler.start(grammar)
    before = two.mask(torch.zeros(300), 50)
    one.accept(one.shortest())
    assert torch.equal(two.mask(torch.zeros(300), 50), before)
    assert not torch.equal(one.mask(torch.zeros(300), 50), before)


def test_the_engine_does_not_load_llguidance() -> None:
    """`import glasshouse.inference` needs no grammar library."""
    code = "import sys, glasshouse.inference; sys.exit('llguidance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def pieces_tokenizer(folder: Path, *, bytes_too: bool) -> Tokenizer:
    """A pipeline as SentencePiece's: a word of its own for a space, and for the rest single bytes."""
    special = ["<unk>", "<s>", "</s>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)] if bytes_too else []
    vocab = [*special, *fallback, "▁", *"abcdefghij{}", "▁a", "<tool_call>"]
    sides = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": i, "content": name, "special": True, **sides} for i, name in enumerate(special)]
    added.append({"id": len(vocab) - 1, "content": "<tool_call>", "special": False, **sides})
    prepend = {"type": "Prepend", "prepend": "▁"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoder = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    content = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: i for i, piece in enumerate(vocab)},
            "merges": [["▁", "a"]],
        },
    }
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return Tokenizer.load(folder)


def test_a_vocabulary_of_pieces_follows_too(tmp_path: Path) -> None:
    """What has no piece is spelled in bytes; an added token may stand for its text inside a string."""
    tokenizer = pieces_tokenizer(tmp_path / "bytes", bytes_too=True)
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDED, {tokenizer.eos_id})
    schema = {"type": "object", "properties": {"é a": {"type": "string"}}, "required": ["é a"]}
    for seed in range(5):
        text, ended = write(compiler, tokenizer, Grammar("json_schema", json.dumps(schema)), 40, seed)
        assert ended
        assert "é a" in json.loads(text)
    state = compiler.start(Grammar("regex", "<tool_call>a"))
    assert state.needed == 2
    assert state.valid_prefix([tokenizer.added["<tool_call>"]]) == 1


def test_a_vocabulary_that_lacks_a_sign_is_an_error(tmp_path: Path) -> None:
    """At once where the text cannot even begin, otherwise as soon as nothing may follow."""
    tokenizer = pieces_tokenizer(tmp_path / "few", bytes_too=False)
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size, {tokenizer.eos_id})
    with pytest.raises(UsageError, match="vocabulary"):
        compiler.start(Grammar("regex", "xyz"))
    state = compiler.start(Grammar("regex", "[ab]b[xy]"))
    assert state.needed is None
    for piece in (b"a", b"b"):
        state.accept(next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == piece))
    with pytest.raises(GlasshouseError, match="vocabulary"):
        state.mask(torch.zeros(tokenizer.vocab_size), 10)


def test_rows_under_grammars_beside_free_ones(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """In one batch every row follows its own grammar, or none, and chooses what it would alone."""
    vocab = tokenizer.vocab_size + PADDED
    grammars = [None, Grammar("choices", ("yes", "no")), None, Grammar("regex", "[0-9]{4}")]
    samplings = [Sampling(), Sampling(temperature=1.0, top_k=3), Sampling(temperature=1.0), Sampling()]
    logits = torch.randn(4, vocab, generator=torch.Generator().manual_seed(5))
    keys, places = torch.arange(4), torch.arange(4)
    rows = [Row((), g and compiler.start(g), 3) for g in grammars]
    together = choose_rows(logits, RowSettings(samplings, [()] * 4, vocab), keys, places, rows)
    for row, sampling in enumerate(samplings):
        one = slice(row, row + 1)
        alone = RowSettings([sampling], [()], vocab)
        chosen = choose_rows(logits[one], alone, keys[one], places[one], rows[one])
        assert int(chosen) == int(together[row])
    assert int(together[0]) == int(logits[0].argmax())
    assert tokenizer.token_bytes(int(together[1]))[:1] in b"yn"
    assert tokenizer.token_bytes(int(together[3])).isdigit()


def test_long_texts_can_be_quoted(compiler: GrammarCompiler) -> None:
    """A text of 150,000 signs is made into a grammar."""
    source = "".join(random.Random(1).choices("abcdefgh ijklmnop\n", k=150_000))
    assert compiler.start(Grammar("piece_of", source)).needed == 2
