"""Cutting texts where words end anyway, and white space too long for the engine."""

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

import glasshouse.tokenizer.byte_pair_engine as engine_module
from glasshouse.tokenizer import Tokenizer, split_pattern
from glasshouse.tokenizer.split_pattern import GPT2, LONGEST_WHITE_RUN, QWEN2, parts_of

TANGLED = st.lists(st.sampled_from([*"aé9. '\t\n\r\x85\xa0\u2028\x1c", "\n\n", " \n", "ab"])).map("".join)


@settings(deadline=None)
@given(text=TANGLED, size=st.integers(1, 10))
def test_cutting_never_cuts_a_word(text: str, size: int):
    """The words of the parts are the words of the whole."""
    parts = list(parts_of(text, size))
    assert "".join(parts) == text
    words = [word for part in parts for word in regex.findall(QWEN2, part)]
    assert words == regex.findall(QWEN2, text)


@pytest.mark.parametrize("after", ["", "x", "\n", "\nx", " \n x", "\u2028y"])
@pytest.mark.parametrize("white", [" ", "\t", "\xa0", " \u3000", "\n", " \n"])
@pytest.mark.parametrize("pattern", [QWEN2, GPT2], ids=["qwen2", "gpt2"])
def test_cutting_long_white_space_changes_nothing(monkeypatch, pattern: str, white: str, after: str):
    """With the limit lowered, long white space has the ids that the engine gives when it takes it whole."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"  ", b"\n\n", b"    ", b" x", b"\nx"]
    tokenizer = Tokenizer(tokens, {}, pattern=pattern, chat_template=None)
    texts = ["a" + (white * 1000)[:length] + after for length in (999, 1000, 998, 150, 100, 99, 51, 50)]
    expected = [tokenizer.encode(text) for text in texts]
    monkeypatch.setattr(split_pattern, "LONGEST_WHITE_RUN", 100)
    monkeypatch.setattr(engine_module, "LONGEST_WHITE_RUN", 100)
    assert [tokenizer.encode(text) for text in texts] == expected
    assert tokenizer.encode_batch(texts) == expected


@pytest.mark.parametrize("after", ["", "x"])
@pytest.mark.parametrize("pattern", [QWEN2, GPT2], ids=["qwen2", "gpt2"])
def test_a_million_blanks_are_no_trouble(pattern: str, after: str):
    """The engine itself would overflow its stack."""
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)], {}, pattern=pattern, chat_template=None)
    text = "a" + " " * 1_100_000 + after
    assert tokenizer.encode_batch([text, "a"]) == [list(text.encode()), [ord("a")]]


def test_training_takes_long_white_space():
    """Text with a million spaces trains like any other."""
    text = "a cat " * 50 + " " * (11 * LONGEST_WHITE_RUN) + "x"
    assert Tokenizer.train([text], 300).vocab_size <= 300
