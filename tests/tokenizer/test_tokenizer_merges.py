"""From ranks to merges: the pairs rebuild every token, also where several splits are possible."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.tokenizer import Tokenizer
from glasshouse.tokenizer.merges import merge_pairs


def test_the_parents_are_those_that_are_left_by_lower_ranks():
    """abc can be a+bc or ab+c; ab is merged first, so ab and c are left."""
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"bc": 4, b"abc": 5}
    assert merge_pairs(ranks) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")]


def test_a_token_out_of_reach_is_an_error():
    """No merge of lower rank leads to it."""
    with pytest.raises(ValueError, match="cannot be reached"):
        merge_pairs({b"a": 0, b"b": 1, b"c": 2, b"abc": 3})


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("ab", min_size=1, max_size=12), min_size=3, max_size=8))
def test_pairs_of_repetitive_text_are_found(words: list[str]):
    """Runs of one letter, where pairs overlap, are the hard case: every token still has its one pair."""
    tokenizer = Tokenizer.train(words, 300)
    pairs = merge_pairs(tokenizer.ranks)
    assert [left + right for left, right in pairs] == [token for token in tokenizer.ranks if len(token) > 1]
