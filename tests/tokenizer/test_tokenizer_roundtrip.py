"""Encoding and decoding: exact for every text, the same alone and in a batch, and true to the merges."""

from itertools import pairwise

import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.tokenizer import SPECIAL_TOKENS, Tokenizer
from glasshouse.tokenizer.merges import merge_pairs

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
# Texts made of what the split pattern looks at: letters, digits, signs, white space of all kinds, names.
LETTERS_AND_SIGNS = "aAbé中9१ .,!'’\t\n\r\v\f\x85\xa0\u2028\u3000\x1c\u200b\uffff🦊"
TOGETHER = ("'s", "'LL", "e\u0301", "   ", "\r\n\r\n", *SPECIAL_TOKENS)
TANGLED = st.lists(st.sampled_from([*LETTERS_AND_SIGNS, *TOGETHER]), max_size=30).map("".join)


@settings(deadline=None)
@given(text=TEXT | TANGLED)
def test_decoding_gives_back_every_text(trained: Tokenizer, text: str):
    """decode(encode(text)) == text, whatever the text holds."""
    assert trained.decode(trained.encode(text)) == text


@settings(deadline=None)
@given(data=st.binary() | TEXT.map(str.encode))
def test_bytes_that_decode_come_back(trained: Tokenizer, data: bytes):
    """Bytes that are UTF-8 come back as they were; single tokens join to exactly these bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    ids = trained.encode(text)
    assert b"".join(trained.token_bytes(i) for i in ids) == data
    assert trained.decode_bytes(ids) == data


@settings(deadline=None)
@given(texts=st.lists(TEXT | TANGLED | st.text(), max_size=20))
def test_a_batch_equals_one_by_one(trained: Tokenizer, texts: list[str]):
    """encode_batch is encode of each text, also for separators, empty texts and half characters."""
    assert trained.encode_batch(texts) == [trained.encode(text) for text in texts]


@settings(deadline=None)
@given(text=TEXT | TANGLED)
def test_ids_are_those_of_the_merges(trained: Tokenizer, text: str):
    """The ids are what merging byte pairs one at a time, in order of rank, inside each word gives."""
    merges = {pair: rank for rank, pair in enumerate(merge_pairs(trained.ranks))}
    expected = []
    for word in regex.findall(trained.pattern, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while len(parts) > 1:
            rank, place = min((merges.get(pair, len(merges)), i) for i, pair in enumerate(pairwise(parts)))
            if rank == len(merges):
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        expected += [trained.ranks[part] for part in parts]
    assert trained.encode(text) == expected


def test_names_of_special_tokens_are_plain_text(trained: Tokenizer):
    """Nothing that a text says becomes a special token, unless it is asked for."""
    text = "".join(SPECIAL_TOKENS)
    assert min(trained.encode(text)) >= len(SPECIAL_TOKENS)
    assert trained.encode_with_special(text) == list(range(len(SPECIAL_TOKENS)))
    assert trained.encode_with_special("a<|im_end|>b") == [
        *trained.encode("a"),
        trained.end_of_turn_id,
        *trained.encode("b"),
    ]


def test_decoding_can_leave_special_tokens_out(trained: Tokenizer):
    """skip_special drops their names; otherwise they are shown."""
    ids = [trained.special["<|im_start|>"], *trained.encode("hi"), trained.end_of_turn_id]
    assert trained.decode(ids) == "<|im_start|>hi<|im_end|>"
    assert trained.decode(ids, skip_special=True) == "hi"


def test_bytes_that_are_no_text_are_shown_as_replacement(trained: Tokenizer):
    """Half a character decodes to U+FFFD, and its bytes are still there."""
    half = [trained.ranks[b"\xf0"], trained.ranks[b"\x9f"]]
    assert trained.decode(half) == "\ufffd"
    assert trained.decode_bytes(half) == b"\xf0\x9f"


def test_half_characters_are_read_as_replacement(trained: Tokenizer):
    """A lone surrogate is no text: it is read as U+FFFD, a pair of them as the character they mean."""
    assert trained.decode(trained.encode("a\ud800b")) == "a\ufffdb"
    assert trained.decode(trained.encode("\ud83e\udd8a")) == "🦊"


def test_long_texts_are_shared_between_threads_unchanged(trained: Tokenizer):
    """A text of many groups is cut, encoded in parts and joined to the same ids."""
    paragraph = "The cat  sat on\r\n\r\n  the mat.\n\n\nabab über\t\n \n"
    text = paragraph * 120_000
    assert len(text) > 5_000_000
    assert trained.encode_batch([text, "x", ""]) == [trained.encode(text), trained.encode("x"), []]
