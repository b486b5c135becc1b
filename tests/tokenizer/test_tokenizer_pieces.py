"""Pipelines other than plain byte-level BPE: Unigram, SentencePiece's BPE, bytes that are split otherwise."""

import contextlib
import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import ModelError
from glasshouse.inference.text_stream import TextStream
from glasshouse.tokenizer import Tokenizer

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ROLES = ["<unk>", "<s>", "</s>"]
WORDS = ["▁", "a", "b", "▁a", "▁ab", "ab", "<", "/", "s", ">", "</", "s>", "é"]
MERGES = [["a", "b"], ["▁", "a"], ["▁", "ab"], ["<", "/"], ["s", ">"], ["</", "s>"]]
MARKS = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
LLAMA_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def added(token_id: int, content: str, special: bool = True, **more) -> dict:
    sides = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, "special": special, **sides, **more}


def llama() -> dict:
    """Llama 2's pipeline with a vocabulary of a few words; `</s>` can be merged from its letters."""
    return {
        "version": "1.0",
        "added_tokens": [
            *(added(i, name) for i, name in enumerate(ROLES)),
            added(272, "<|user|>", rstrip=True),
            added(273, "<think>", special=False),
            added(274, "   ", special=False),
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": LLAMA_DECODER,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: i for i, piece in enumerate([*ROLES, *BYTES, *WORDS])},
            "merges": MERGES,
        },
    }


def unigram() -> dict:
    """T5's pipeline; `</s>` is a piece like any other, with the best score of all."""
    return {
        "version": "1.0",
        "added_tokens": [*(added(i, name) for i, name in enumerate(ROLES)), added(4, "b", special=False)],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": MARKS,
        "post_processor": None,
        "decoder": MARKS,
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [
                *([name, 0.0] for name in ROLES),
                ["▁", -2.0],
                *([w, -3.0] for w in [*"ba", "▁ab", *"</s>"]),
            ],
        },
    }


def write(folder: Path, content: dict, **config) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles | config))
    return folder


@pytest.fixture(scope="module", params=[llama, unigram])
def either(request, tmp_path_factory) -> Tokenizer:
    return Tokenizer.load(write(tmp_path_factory.mktemp("pieces"), request.param()))


@pytest.fixture
def bpe(tmp_path: Path) -> Tokenizer:
    return Tokenizer.load(write(tmp_path / "bpe", llama()))


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_bytes(i).decode() for i in ids]


def test_words_are_pieces_with_their_space(bpe: Tokenizer):
    """The first word gets a space, which decoding takes back; a byte stands for what no piece spells."""
    assert pieces(bpe, bpe.encode("ab ab\n")) == [" ab", " ab", "\n"]
    assert bpe.decode(bpe.encode("ab ab\n")) == "ab ab\n"
    assert bpe.decode_bytes(bpe.encode("🦊")[:-1]) == "🦊".encode()[:-1]
    assert bpe.decode(bpe.encode("🦊")[:-1]) == "\ufffd" * 3
    assert bpe.encode("") == [] == bpe.encode_batch([""])[0]
    assert (bpe.bos_id, bpe.eos_id, bpe.pad_id, bpe.end_of_turn_id, bpe.vocab_size) == (1, 2, 2, 2, 275)
    assert (bpe.pattern, bpe.normalization, bpe.ranks) == (None, None, {})


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_what_falls_back_to_bytes_comes_back_exactly(either: Tokenizer, text: str):
    """Every text with Llama's pipeline; a stream of its tokens keeps the space of the first word."""
    ids = either.encode(text)
    assert either.encode_batch([text, text]) == [ids, ids]
    assert either.decode_bytes(ids) == either.decode(ids).encode()
    if "<|user|>" in either.special:
        assert either.decode(ids) == text
        stream = TextStream(either.token_bytes)
        assert "".join([*map(stream.feed, ids), stream.finish()]) == (" " + text if ids else "")


@given(text=st.lists(st.sampled_from([*"ab </s>", *ROLES, "<|user|>", "<think>", "\uffff"])).map("".join))
def test_plain_text_names_no_special_token(either: Tokenizer, text: str):
    """Not where the vocabulary holds the name as a piece, and not where merges lead to it."""
    named = {i for name, i in either.special.items() if name != "<unk>"}
    assert not named & set(either.encode(text))


def test_special_tokens_that_we_wrote_are_found(bpe: Tokenizer):
    """Also those that take the white space after them; each text between them gets its own first space."""
    ids = bpe.encode_with_special("<s>ab<|user|> \n a</s>")
    assert ids == [1, *bpe.encode("ab"), 272, *bpe.encode("a"), 2]
    assert bpe.decode(ids, skip_special=True) == "ab a"
    assert bpe.special.keys() == {*ROLES, "<|user|>", "<think>"}
    assert bpe.added == {"   ": 274}
    assert 274 in bpe.encode("a   b")


def test_the_first_word_of_a_text_is_not_that_of_a_part(tmp_path: Path):
    """With the scheme "first" only the start of a whole text gets a space."""
    content = llama() | {
        "normalizer": None,
        "pre_tokenizer": MARKS | {"prepend_scheme": "first", "split": False},
    }
    tokenizer = Tokenizer.load(write(tmp_path, content))
    assert pieces(tokenizer, tokenizer.encode_with_special("ab</s>ab")) == [" ab", "</s>", "ab"]


def test_a_class_that_builds_its_own_pipeline_is_followed(tmp_path: Path):
    """LlamaTokenizer takes only vocabulary and merges of the file, except in Mistral's folders."""
    text = "ab</s>ab"
    theirs = Tokenizer.load(write(tmp_path, llama(), tokenizer_class="LlamaTokenizerFast"))
    assert pieces(theirs, theirs.encode_with_special(text)) == [" ab", "</s>", "ab"]
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    as_written = Tokenizer.load(tmp_path)
    assert pieces(as_written, as_written.encode_with_special(text)) == [" ab", "</s>", " ab"]


def test_what_the_assistant_wrote_is_masked(bpe: Tokenizer, tmp_path: Path):
    """The mask follows characters through markers, bytes and trimmed space."""
    (tmp_path / "bpe" / "chat_template.jinja").write_text(
        "{% for m in messages %}<|user|>\n{{ m.content }}{% generation %} é{{ m.content }}</s>"
        "{% endgeneration %}{% endfor %}"
    )
    tokenizer = Tokenizer.load(tmp_path / "bpe")
    encoded = tokenizer.encode_chat([{"role": "user", "content": "ab"}, {"role": "user", "content": "</s>"}])
    written = [i for i, mine in zip(encoded.ids, encoded.assistant_mask, strict=True) if mine]
    assert tokenizer.decode(written) == "éab</s> é</s></s>"
    assert encoded.ids.count(2) == 2


def test_saving_keeps_the_files(bpe: Tokenizer, tmp_path: Path):
    """What was loaded is saved byte for byte."""
    bpe.save(tmp_path / "saved")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "bpe" / name).read_bytes()


def change(**parts):
    return lambda content: content.update(parts)


BREAKAGES = {
    "another kind": change(model={"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a"}),
    "joined in another way": change(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "has two ids": lambda content: content["added_tokens"].append(added(7, "a")),
    "no token has the id 275": lambda content: content["added_tokens"].append(added(999, "<x>")),
    "merge 1 is broken": lambda content: content["model"]["merges"].insert(0, ["never", "there"]),
    "not a tokenizer that": change(normalizer={"type": "Nothing"}),
    "half a character": lambda content: content["model"]["vocab"].update({"\ud800": 275}),
}


@pytest.mark.parametrize("reason", BREAKAGES)
def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path: Path, reason: str):
    """One line that names the file."""
    content = copy.deepcopy(llama())
    BREAKAGES[reason](content)
    write(tmp_path, content)
    with pytest.raises(ModelError, match=reason) as error:
        Tokenizer.load(tmp_path)
    assert "tokenizer.json" in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places(content, path=()):
    """Every place of a JSON value, not deep into the vocabulary."""
    yield path
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in list(inner)[:8]:
        yield from places(value, (*path, key))


@pytest.mark.parametrize("make", [llama, unigram])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_file_of_any_shape_is_read_or_refused(make, tmp_path_factory, data):
    """Whatever JSON stands in the place of a part, the answer is a tokenizer that works or a ModelError."""
    content = copy.deepcopy(make())
    *path, last = data.draw(st.sampled_from([path for path in places(content) if path]))
    place = content
    for key in path:
        place = place[key]
    place[last] = data.draw(JSON)
    folder = write(tmp_path_factory.mktemp("any"), content)
    with contextlib.suppress(ModelError):
        tokenizer = Tokenizer.load(folder)
        tokenizer.decode(tokenizer.encode("ab é</s>"))
