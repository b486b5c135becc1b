"""Quotes looked up where a model read them, and whether one bears out its value."""

import pytest

from glasshouse.documents.quotes.evidence import Evidence, holds, quote_match
from glasshouse.documents.result import QuoteCheck

TEXT = "Total: 5 boats."


@pytest.mark.parametrize(
    ("text", "value", "right"),
    [
        ("Revenue rose 4.2% to $3.1 million.", 3100000, True),
        ("Revenue rose 4.2% to $3.1 million.", 3.1, True),
        ("Revenue rose 4.2% to $3.1 million.", 4.2, True),
        ("Revenue rose 4.2% to $3.1 million.", 0.042, True),
        ("Revenue rose 4.2% to $3.1 million.", "3.1", True),
        ("Revenue rose 4.2% to $3.1 million.", 3.2, False),
        ("Revenue rose.", 3.1, False),
        ("It sold 1,340 boats", 1340, True),
        ("It sold 1 340 boats", 1340, True),
        ("It sold 13401 boats", 1340, False),
        ("A loss of (12) was made.", -12, True),
        ("The term is two years.", "Two  years", True),
        ("The term is two years.", "three years", False),
        ("It belongs to ACME Corp.", "Acme Corp", True),
        ("The company is unable to pay.", "able to pay", False),
        ("Revenue rose.", True, True),
        ("Revenue rose.", None, True),
    ],
)
def test_a_quote_holds_a_value_in_any_spelling(text, value, right):
    assert holds(text, value) is right


def test_how_well_a_quote_bears_out_its_value():
    verbatim = QuoteCheck(asked="q", status="verbatim", text="Revenue was 5 crowns.", similarity=1.0)
    near = verbatim.model_copy(update={"status": "near", "similarity": 0.9})
    missing = QuoteCheck(asked="q", status="missing")
    order = [
        quote_match(5, verbatim, True),
        quote_match(5, near, True),
        quote_match(6, verbatim, True),
        quote_match(6, near, True),
        quote_match(5, missing, True),
    ]
    assert order[0] == 1.0
    assert order == sorted(order, reverse=True)
    assert len(set(order)) == 5
    assert order[-1] == quote_match(5, None, True) == 0.0
    assert quote_match("Sales grew.", verbatim, False) == 1.0  # a sentence of the model's own


def test_of_several_places_the_one_that_was_read_is_taken(document):
    text = document(TEXT, "Other things.", TEXT, TEXT)
    evidence = Evidence(text)
    places = [start for start in range(len(text.text)) if text.text.startswith(TEXT, start)]
    for page, start in zip((1, 3, 4), places, strict=True):
        found = evidence.look_up(TEXT, start - 1 if start else 0, start + 30)
        assert (found.start, found.page, found.times) == (start, page, 3)
        assert text.text[found.start : found.end] == found.text == TEXT
    assert evidence.look_up(TEXT, 20, 25).start == places[0]  # not in the part: the first of all
    assert evidence.look_up("Elephants danced on the roofs.").status == "missing"
