"""Training: every merge is of a pair that is most frequent at its time, sizes are kept, trouble is named."""

from collections import Counter
from itertools import pairwise

import pytest
import regex

from glasshouse.core.errors import ConfigError, DataError
from glasshouse.tokenizer import SPECIAL_TOKENS, Tokenizer
from glasshouse.tokenizer.merges import merge_pairs
from glasshouse.tokenizer.split_pattern import QWEN2


def test_every_merge_is_of_a_most_frequent_pair(corpus: list[str]):
    """Replaying the merges on the words, each takes a pair that no other pair outnumbers."""
    tokenizer = Tokenizer.train(corpus, 350)
    counts = Counter(word for text in corpus for word in regex.findall(QWEN2, text))
    words = [([bytes([byte]) for byte in word.encode()], count) for word, count in counts.items()]
    for pair in merge_pairs(tokenizer.ranks):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for parts, count in words:
            for neighbours in pairwise(parts):
                pairs[neighbours] += count
        # The trainer counts overlapping pairs (aa in aaa) as they stand, as we do.
        assert pairs[pair] == max(pairs.values())
        for parts, _ in words:
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == pair:
                    parts[i : i + 2] = [parts[i] + parts[i + 1]]
                i += 1


@pytest.mark.parametrize("size", [300, 301, 399])
def test_the_size_is_the_size_asked_for(corpus: list[str], size: int):
    """Special tokens and bytes count; special ids come first, then the bytes in order."""
    tokenizer = Tokenizer.train(corpus, size)
    assert tokenizer.vocab_size == size
    assert list(tokenizer.special) == list(SPECIAL_TOKENS)
    assert list(tokenizer.special.values()) == list(range(9))
    assert [tokenizer.token_bytes(9 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_training_is_deterministic(corpus: list[str]):
    """The same texts give the same vocabulary, however they are handed over."""
    first = Tokenizer.train(corpus, 400)
    assert first.ranks == Tokenizer.train(iter(corpus), 400).ranks
    long = ["\n".join(corpus * 200) + "\n"]
    assert Tokenizer.train(long, 400).ranks == Tokenizer.train(iter(long), 400).ranks


def test_plain_bytes_need_no_text():
    """265 tokens are the special ones and the bytes; the texts are not even read."""

    def unread():
        raise AssertionError
        yield ""

    tokenizer = Tokenizer.train(unread(), 265)
    assert tokenizer.vocab_size == 265
    assert tokenizer.encode("é") == [9 + 0xC3, 9 + 0xA9]


def test_little_text_gives_fewer_tokens_and_says_so(capsys: pytest.CaptureFixture[str]):
    """The true size is in the tokenizer and in a notice."""
    tokenizer = Tokenizer.train(["abc abc"], 500)
    assert tokenizer.vocab_size < 300
    assert f"{tokenizer.vocab_size} tokens" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("size", [0, 264, 266, 299, 200_001])
def test_a_size_out_of_range_is_refused(size: int):
    """The message names the range."""
    with pytest.raises(ConfigError, match="300 to 200,000, or 265"):
        Tokenizer.train(["text"], size)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_is_an_error(texts: list[str]):
    """A vocabulary of no text would be an invention."""
    with pytest.raises(DataError, match="no text"):
        Tokenizer.train(texts, 300)


def test_half_characters_do_not_stop_training():
    """Lone surrogates are read as U+FFFD, as in encoding."""
    assert Tokenizer.train(["a\ud800b" * 50], 300).vocab_size > 265


def test_an_error_in_the_texts_comes_through():
    """What the iterator raises is what the caller sees."""

    def broken():
        yield "abc"
        raise DataError("row 2 is broken")

    with pytest.raises(DataError, match="row 2"):
        Tokenizer.train(broken(), 300)
