"""Quotes: verbatim means the source's words and nothing else; what is near is shown as what it is."""

from __future__ import annotations

import itertools
import os
import random
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.documents.changed_clauses import changes, contracts, misplaced, reference, unshown

from glasshouse.documents.quotes.check import check
from glasshouse.documents.quotes.edit_search import nearest
from glasshouse.documents.quotes.plain_form import PlainForm
from glasshouse.documents.quotes.search import Source, find_quote
from glasshouse.files.builder import Builder

DATA = os.environ.get("GLASSHOUSE_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="GLASSHOUSE_TEST_DATA names no folder")

TERM = "The Supplier shall not assign this Agreement.\nEither party may end it\n\twith 60 days' notice."


def test_white_space_of_any_kind_is_one_space_and_the_slice_is_the_sources():
    found = find_quote(TERM, "  Either party\u00a0may end it with\u2003\r\n60 days' notice. ")
    assert found is not None
    assert found.verbatim
    assert (found.similarity, found.difference, found.times) == (1.0, None, 1)
    assert found.text == TERM[found.start : found.end] == "Either party may end it\n\twith 60 days' notice."


@pytest.mark.parametrize("blank", list("\t\n\v\f\r\x1c\x85\u00a0\u1680\u2000\u2028\u2029\u202f\u205f\u3000"))
def test_every_white_space_of_unicode_counts(blank):
    found = find_quote(f"a{blank}bee {blank} sea", "bee sea")
    assert found is not None
    assert (found.start, found.end, found.verbatim) == (2, 11, True)


def test_white_space_where_the_source_has_none_is_near():
    for quote in ("60days' notice", "with 6 0 days' notice"):
        found = find_quote(TERM, quote)
        assert found is not None
        assert not found.verbatim
    found = find_quote(TERM, "60days' notice")
    assert found is not None
    assert found.difference == "'60days'' for '60 days'' (spaces)"


@pytest.mark.parametrize("unseen", ["\u00ad", "\u200b", "\u2060", "\ufeff"])
def test_characters_that_nothing_shows_do_not_count(unseen):
    text = f"This Agree{unseen}ment ends."
    for quote in ("Agreement ends", f"{unseen}Agreement{unseen} ends"):
        found = find_quote(text, quote)
        assert found is not None
        assert found.verbatim
        assert found.text == f"Agree{unseen}ment ends"


def test_joiners_that_change_letters_count():
    found = find_quote("می\u200cخواهم این", "میخواهم این")
    assert found is not None
    assert not found.verbatim


@pytest.mark.parametrize(("source", "quote"), itertools.permutations(["NFC", "NFD"], 2))
def test_accents_in_one_character_or_in_two_are_the_same(source, quote):
    text = unicodedata.normalize(source, "Ünïted Cafés — São Paulo, 각하 end")  # type: ignore[arg-type]
    asked = unicodedata.normalize(quote, "Cafés — São Paulo, 각하")  # type: ignore[arg-type]
    found = find_quote(text, asked)
    assert found is not None
    assert found.verbatim
    assert found.text == unicodedata.normalize(source, asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["cafe\u0301 noir", "가각", unicodedata.normalize("NFD", "가각")])
def test_no_accent_and_no_part_of_a_syllable_is_cut_off(text):
    quote = {"c": "cafe"}.get(text[0], "가가")
    found = find_quote(text, quote)
    assert found is None or not found.verbatim


@pytest.mark.parametrize(
    ("text", "quote", "difference"),
    [
        ("ends with 60 days' notice", "ends with 30 days' notice", "'30 days' for '60 days'"),
        ("ends with 160 days' notice", "60 days' notice", "'60 days' for '160 days'"),
        ("a margin of 60.5 percent", "a margin of 60", "'60' for '60.5'"),
        ("income of -5.2 million", "5.2 million", "'-' left out"),
        ("at least sixteen days", "at least six", "'six' for 'sixteen'"),
        (
            "after twenty-five days of written notice",
            "five days of written notice",
            "'five days' for 'twenty-five days'",
        ),
        ("shall not assign it", "shall assign it", "'not' left out"),
        ("shall assign it freely", "shall not assign it freely", "'not' added"),
        ("who is unable to pay it", "able to pay it", "'able to' for 'unable to'"),
        ("the Supplier cannot", "the Supplier can", "'can' for 'cannot'"),
        ("a non-exclusive licence", "exclusive licence", "'exclusive licence' for 'non-exclusive licence'"),
        ("given without cause", "given with", "'with' for 'without'"),
        ("No party shall pay", "Any party shall pay", "'Any party' for 'No party'"),
        ("it doesn't apply here", "it does apply here", "'does apply' for 'doesn't apply'"),
        ("The “Term” ends", 'The "Term" ends', "'\"' for '“' (typography); '\"' for '”' (typography)"),
        ("2010–2012 in all", "2010-2012 in all", "'-' for '–' (typography)"),
        ("the ofﬁce closes", "the office closes", "'office' for 'ofﬁce' (typography)"),
        (
            "THE TERM ends here",
            "The Term ends here",
            "'The' for 'THE' (capitals); 'Term' for 'TERM' (capitals)",
        ),
        ("the notice of 60 days", "the notice of 60 days.", "'.' added"),
    ],
)
def test_what_differs_is_named_and_is_never_verbatim(text, quote, difference):
    found = find_quote(f"Before it, other words stand. {text} and others follow", quote)
    assert found is not None
    assert not found.verbatim
    assert found.difference == difference
    assert text.startswith(found.text) or text.endswith(found.text) or found.text in text


def test_numbers_and_negations_are_shown_first_and_all_of_them():
    text = (
        "The old firm of Smith shall not pay the sum of 60 dollars to any new clerk of the grey town by June"
    )
    quote = (
        "The new firm of Jones shall pay the sums of 90 dollars to any old clerk of the green town by July"
    )
    found = find_quote(text, quote)
    assert found is not None
    assert found.difference == (
        "'not' left out; '90 dollars' for '60 dollars'; "
        "'new' for 'old'; 'Jones' for 'Smith'; 'sums' for 'sum'; 3 more"
    )


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("the remaining plasma. Shipment of it", "the remaining plasma. S"),
        ("as of1 August 2019, by and", "1 August 2019"),
        ("in Section 11.2. It is", "in Section 11."),
        ("of the license.   3.2 Grant", "of the license.   3"),
        ("dated as of 09/24/2018 here", "9/24/2018"),
        ("by [●] and", "[●]"),
        ("合同期限为三年。任何一方", "期限为三年"),
    ],
)
def test_cuts_that_say_nothing_else_are_verbatim(text, quote):
    found = find_quote(text, quote)
    assert found is not None
    assert found.verbatim


def test_whole_words_come_before_parts_of_words_and_are_counted():
    found = find_quote("terms of the term, one term", "term")
    assert found is not None
    assert (found.start, found.times) == (13, 2)


@pytest.mark.parametrize("quote", ["", " \n", "\u00ad", "?!", "q", "zebra crossings", "x" * 5000])
def test_nothing_is_found_of_nothing_and_of_what_is_elsewhere(quote):
    assert find_quote(TERM, quote) is None
    assert find_quote("", quote) is None


def test_an_ellipsis_is_near_and_what_it_leaves_out_is_told():
    for ellipsis in ("...", "…", " [...] ", " . . . ", "(…)"):
        found = find_quote(TERM, f"The Supplier shall{ellipsis}assign this Agreement")
        assert found is not None
        assert not found.verbatim
        assert found.text == "The Supplier shall not assign this Agreement"
        assert found.difference == "left out at the ellipsis: 'not'"
    twice = find_quote(TERM, "The Supplier … assign this Agreement … 30 days' notice")
    assert twice is not None
    assert twice.text == TERM[:-1]
    assert twice.difference == (
        "'30 days' for '60 days'; left out at the ellipsis: 'shall not'; '. Either party may end it with'"
    )
    assert find_quote("a b … c d", "b … c") == find_quote("a b … c d", "b … c")
    stands = find_quote("a b … c d", "b … c")
    assert stands is not None
    assert stands.verbatim


def test_an_ellipsis_reaches_no_further_than_a_page():
    far = "The Supplier shall pay." + " Other words stand here." * 200 + " It ends in June."
    assert find_quote(far, "The Supplier shall ... ends in June") is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_place_in_the_same_capitals_comes_first(order):
    places = ["SECTION ONE OF IT", "Section One of it"][::order]
    found = find_quote(" and, then, ".join(places), "Section Two of it")
    assert found is not None
    assert found.text == "Section One of it"


def test_page_and_status_of_a_result():
    builder = Builder()
    builder.add("The term is one year.", page=1)
    builder.add("Either party may end it with 60 days' notice.", page=2)
    document = builder.document("contract.pdf", "pdf", pages=2)
    source = Source(document.text)
    verbatim = check(source, document, "end it with 60 days' notice")
    assert (verbatim.status, verbatim.page, verbatim.text) == ("verbatim", 2, "end it with 60 days' notice")
    assert (verbatim.asked, verbatim.difference) == (verbatim.text, None)
    near = check(source, document, "end it with 30 days' notice")
    assert (near.status, near.page, near.difference) == ("near", 2, "'30 days' for '60 days'")
    assert (near.start, near.end) == (verbatim.start, verbatim.end)
    missing = check(source, document, "The Supplier shall indemnify the Customer")
    assert missing.model_dump(exclude_defaults=True) == {
        "asked": "The Supplier shall indemnify the Customer",
        "status": "missing",
    }


SIMPLE = st.text("ab1 \n\u00a0.", max_size=40)


@given(SIMPLE, st.text("ab1 \n.", max_size=6))
def test_verbatim_is_what_a_regular_expression_finds(text, quote):
    found = find_quote(text, quote)
    places = reference(text, quote) if quote.strip() else []
    whole = [
        (start, end)
        for start, end in places
        if (not start or not (text[start - 1 : start + 1].isalnum() or text[start - 1] in "1."))
        and (end == len(text) or not (text[end - 1 : end + 1].isalnum() or text[end] in "1."))
    ]
    if found and found.verbatim:
        assert (found.start, found.end) in _all_places(text, quote)
        assert found.text == text[found.start : found.end]
        assert found.text.split() == quote.split()
    if len(places) == len(whole) > 0:
        assert found is not None
        assert found.verbatim
        assert (found.start, found.end, found.times) == (*places[0], len(places))


def _all_places(text: str, quote: str) -> set[tuple[int, int]]:
    """Overlapping ones among them."""
    pattern = re.compile(r"\s+".join(map(re.escape, quote.split())))
    matches = (pattern.match(text, start) for start in range(len(text)))
    return {match.span() for match in matches if match}


@given(SIMPLE, st.text("ab1 .", min_size=1, max_size=12))
def test_near_is_always_told_from_verbatim(text, quote):
    found = find_quote(text, quote)
    if found:
        assert found.text == text[found.start : found.end]
        assert found.verbatim == (found.difference is None)
        assert found.times >= 1
        assert 0.7 <= found.similarity <= 1 or quote.strip() in " ".join(text.split())


@given(st.text("abc", min_size=1, max_size=8), st.text("abcd", max_size=24))
def test_the_nearest_part_is_the_one_that_trying_all_of_them_finds(pattern, text):
    start, end, distance = nearest(pattern, text)
    parts = [text[a:b] for a in range(len(text) + 1) for b in range(a, len(text) + 1)]
    assert distance == _levenshtein(pattern, text[start:end]) == min(_levenshtein(pattern, p) for p in parts)


def _levenshtein(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for number, char in enumerate(one, 1):
        before, row[0] = row[0], number
        for place, another in enumerate(other, 1):
            before, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, before + (char != another)),
            )
    return row[-1]


@given(st.text(st.sampled_from("aé\u0301\u0323 각\u1100\u1161\n\u3000\u00ad\u200bßİǅﬁ"), max_size=20))
@settings(max_examples=300)
def test_the_plain_form_leads_back_to_the_text(text):
    form = PlainForm(text)
    unseen = re.sub("[\u00ad\u200b]", "", text)
    if not re.search("[\u00ad\u200b][\u0301\u0323]", text):  # an accent after nothing
        assert form.text == unicodedata.normalize("NFD", re.sub(r"\s+", " ", unseen))
    for start, end in itertools.combinations(range(len(form.text) + 1), 2):
        if form.whole(start) and form.whole(end):
            first, last = form.span(start, end)
            assert PlainForm(text[first:last]).text == form.text[start:end]


COMMON = "the of party shall notice term days agreement pay sum fee goods order under this any each"
WORDS = COMMON.split(" ")


@given(st.integers(0, 2**32).map(random.Random), st.integers(15, 150), st.integers(20, 2000))
@settings(max_examples=40, deadline=None)
def test_a_changed_quote_is_found_where_it_was_put(rng, length, around):
    """In a text of few words, all of them common, where the seeds say little. (Of a shorter quote the first
    or last word is more than a tenth, and may be left out where it is the changed one.)"""
    text = rng.choices(WORDS, k=around)
    planted = [rng.choice(WORDS) + rng.choice("aeiou") for _ in range(length)]
    at = rng.randrange(around)
    changed = list(planted)
    changed[rng.randrange(length)] = "never"
    before = " ".join(text[:at])
    source = " ".join([*text[:at], *planted, *text[at:]])
    start = len(before) + bool(before)
    end = start + len(" ".join(planted))
    found = find_quote(source, " ".join(changed))
    assert found is not None
    overlap = min(found.end, end) - max(found.start, start)
    assert overlap / (max(found.end, end) - min(found.start, start)) >= 0.9
    assert "never" in (found.difference or "")


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("a" * 40_000, "a"),
        ("a" * 200_000, "b" + "a" * 300),
        ("not " * 50_000, "not not never not " * 20),
        ("_" * 200_000 + "end", "____ the ____ end ____" * 5),
        ("the ... " * 20_000, "the ... the of ... the"),
        ("short", "long " * 50_000),
        ("word " * 1000, "other " * 20_000),
        ("1" * 100_000, "1.1.1.1"),
        ("e\u0301\u00ad" * 30_000, "\u00e9" * 50),
    ],
)
def test_no_text_and_no_quote_takes_long(text, quote):
    """That each ends is what is tested; a search that grows with the square of a text would not."""
    found = find_quote(text, quote)
    assert found is None or found.text == text[found.start : found.end]


@needs_data
def test_labelled_clauses_of_real_contracts_and_their_changes():
    """A sample; `make accept` does all of them."""
    some = list(itertools.islice(contracts(Path(DATA or "")), 0, 120, 20))
    standing = []
    for contract in some:
        source = Source(contract.text)
        for clause in contract.clauses:
            places = reference(contract.text, clause)
            if places:
                standing.append((contract, clause))
                found = source.find(clause)
                assert not misplaced(found, contract.text, clause, places), clause
    assert len(standing) > 100
    sources = {contract.id: Source(contract.text) for contract in some}
    made = list(itertools.islice(changes(standing, seed=11), 100))
    failures = [c for contract, c in made if unshown(sources[contract.id].find(c.quote), contract.text, c)]
    assert not any((found := sources[k.id].find(c.quote)) and found.verbatim for k, c in made)
    assert len(failures) <= 1, failures


def test_what_the_page_shows():
    """docs/quotes.md."""
    source = Source("Either party may end this Agreement\nwith 60 days' notice. It shall not be assigned.")
    found = source.find("end this Agreement with 60 days' notice")
    assert found is not None
    assert (found.verbatim, found.start, found.end) == (True, 17, 56)
    for quote, difference in {
        "end this Agreement with 30 days' notice": "'30 days' for '60 days'",
        "It shall be assigned": "'not' left out",
    }.items():
        found = source.find(quote)
        assert found is not None
        assert found.difference == difference
    assert source.find("The Supplier shall indemnify") is None
