"""What counts as the same value."""

import pytest

from glasshouse.documents.values.equality import as_number, same

SAME = [
    ("$1,200", 1200.0),
    ("(3.5)", -3.5),
    ("-$3.5", -3.5),
    ("$(1,245)", -1245),
    ("($1,245)", -1245),
    (0.1 + 0.2, 0.3),
    (" ACME  Corp. ", "Acme corp"),
    ("“Provider”", "provider"),
    (["a", 2], ["2", "A"]),
    ({"a": 1}, {"a": 1.0}),
    (None, None),
    (True, True),
]
OTHER = [
    (12, 12.6),
    ("30 days", "60 days"),
    ("12%", 12),
    (True, 1),
    (None, ""),
    (None, 0),
    (["a", "a", "b"], ["a", "b", "b"]),
    ({"a": 1}, {"a": 1, "b": None}),
    ("1,2,3", "123"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_spelling_does_not_matter(first, second):
    assert same(first, second)
    assert same(second, first)


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_values_that_differ(first, second):
    assert not same(first, second)
    assert not same(second, first)


@pytest.mark.parametrize("text", ["", "-", ".", "$", "()", "e5", "1e999", "12 million", "1,23"])
def test_what_is_no_number(text):
    assert as_number(text) is None
