"""Which tokens told which value, and how many samples say the same."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.documents.signals import signals, token_probabilities, vote_shares
from glasshouse.documents.values.leaves import leaves, spans
from glasshouse.inference.token_names import token_name
from glasshouse.llm import Completion
from glasshouse.llm.interface import TokenLogprob

SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e6, 1e6) | st.text(max_size=6)
)
OBJECTS = st.dictionaries(
    st.text("abcé", min_size=1, max_size=3),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner),
    ),
    min_size=1,
    max_size=4,
)


def completion(*tokens: tuple[str, float], text: str | None = None) -> Completion:
    told = tuple(TokenLogprob(token, math.log(p) if p else -9999.0) for token, p in tokens)
    return Completion("".join(t for t, _ in tokens) if text is None else text, "stop", logprobs=told)


def cut(text: str, seed: int) -> list[tuple[str, float]]:
    """The text in pieces of 1 to 4 bytes, each with a probability drawn."""
    rng, data, pieces = random.Random(seed), text.encode(), []
    while data:
        size = rng.randint(1, 4)
        pieces.append((token_name(data[:size]), rng.uniform(0.1, 1)))
        data = data[size:]
    return pieces


@given(OBJECTS)
def test_the_spans_of_leaves_hold_what_python_reads_there(value):
    text = json.dumps(value, ensure_ascii=False)
    found, end = spans(text)
    assert end == len(text)
    assert {leaf.path: leaf.value for leaf in found} == dict(leaves(json.loads(text)))
    for leaf in found:
        start, end = leaf.spans[-1]
        assert json.loads(text[start:end]) == leaf.value


@given(OBJECTS, st.integers(0, 10**6))
def test_a_probability_is_the_product_over_every_token_that_touches_the_value(value, seed):
    """Against a reference that asks each byte for its token."""
    text = json.dumps(value, ensure_ascii=False)
    pieces = cut(text, seed)
    owner = []
    for i, (name, _) in enumerate(pieces):
        raw = bytes.fromhex(name[6:].replace("\\x", "")) if name.startswith("bytes:\\x") else name.encode()
        owner += [i] * len(raw)
    got = token_probabilities(completion(*pieces, text=text))
    for leaf in spans(text)[0]:
        taken = set()
        for start, end in leaf.spans:
            end += text[end - 1].isdigit()  # what ends a number belongs to it
            begin = len(text[:start].encode())
            taken |= {owner[b] for b in range(begin, begin + len(text[start:end].encode()))}
        assert got[leaf.path] == pytest.approx(math.prod(pieces[i][1] for i in taken))


def test_a_token_over_the_edge_counts_and_so_does_the_one_that_ends_a_number():
    told = completion(('{"revenue', 0.9), ('":', 0.9), (" 1", 0.5), ("2", 0.25), ("}", 0.8))
    assert token_probabilities(told) == {"revenue": pytest.approx(0.5 * 0.25 * 0.8)}


def test_tokens_that_a_grammar_forced_count_as_told():
    told = completion(('{"a": ', 1.0), ('"', 1.0), ("yes", 0.7), ('"', 1.0), ("}", 1.0))
    assert token_probabilities(told) == {"a": pytest.approx(0.7)}


def test_a_quote_counts_with_its_value_and_its_absence_with_not_mentioned():
    told = completion(
        ('{"a": {"quote": ', 1.0), ('"It is 7."', 0.5), (', "value": ', 1.0), ("7", 0.9), ("}", 1.0),
        (', "b": {"quote": ', 1.0), ("null", 0.6), (', "value": ', 1.0), ("null", 0.95), ("}}", 1.0),
    )  # fmt: skip
    assert token_probabilities(told) == {"a": pytest.approx(0.45), "b": pytest.approx(0.57)}


def test_the_object_is_found_among_prose_and_thoughts():
    tokens = [("<think>{}", 0.1), ("</think>", 0.1), ("Here {x}: ", 0.1), ('{"a": ', 0.1), ("true", 0.5)]
    told = completion(*tokens, ("}", 0.1), ("<|end|>", 0.1), text='Here {x}: {"a": true}')
    assert token_probabilities(told, {"a": True}) == {"a": pytest.approx(0.5)}


@pytest.mark.parametrize(
    "told",
    [
        Completion('{"a": 1}', "stop"),
        completion(('{"a": ', 1.0), ("2}", 1.0), text='{"a": 1}'),
        completion(("no JSON", 1.0)),
        Completion('{"a": 1}', "stop", logprobs=(TokenLogprob('{"a": 1}', math.nan),)),
    ],
    ids=["no logprobs", "they do not add up", "no JSON", "not a number"],
)
def test_what_cannot_be_told_is_unknown_and_not_zero(told):
    assert token_probabilities(told) == {}
    value = {"a": 1}
    assert signals(told, value) == {"a": (None, None)}


def test_an_impossible_token_is_zero_and_a_rounded_one_never_above_one():
    assert token_probabilities(completion(('{"a": 1}', 0))) == {"a": 0.0}
    told = Completion('{"a": 1}', "stop", logprobs=(TokenLogprob('{"a": 1}', 1e-7),))
    assert token_probabilities(told) == {"a": 1.0}


def test_votes_for_the_same_value_in_another_spelling_count():
    one = {"name": {"quote": "ACME Corp.", "value": "ACME Corp."}, "sold": {"quote": None, "value": None}}
    two = {"name": {"quote": "Acme", "value": "Acme corp"}, "sold": {"quote": "5 sold", "value": 5}}
    assert signals(completion(("x", 1.0)), one, [one, two, None]) == {
        "name": (None, pytest.approx(2 / 3)),
        "sold": (None, pytest.approx(1 / 3)),
    }


def test_the_order_of_a_list_does_not_matter_to_votes():
    votes = [{"who": ["Ann", "Bob"]}, {"who": ["bob", "Ann", "Cy"]}, {}]
    shares = vote_shares({"who[0]": "Ann", "who[1]": "Bob"}, votes)
    assert shares == {"who[0]": pytest.approx(2 / 3), "who[1]": pytest.approx(2 / 3)}


def test_one_sample_is_no_vote():
    assert vote_shares({"a": 1}, [{"a": 1}]) == {"a": None}
