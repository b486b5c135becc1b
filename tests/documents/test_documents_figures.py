"""Figures and dates as texts have them, by hand and on the tables of annual reports."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.documents.values.dates import Days, days_of
from glasshouse.documents.values.figures import figure_of, figures

HAND = [
    ("$1,234.5 million", "1234500000", "USD"),
    ("(12.3)", "-12.3", None),
    ("1.234,5", "1234.5", None),
    ("12 %", "0.12", "%"),
    ("3 bps", "0.0003", "%"),
    ("(9)%", "-0.09", "%"),
    ("(9.9%)", "-0.099", "%"),
    ("(14) bps", "-0.0014", "%"),
    ("$(1,234)", "-1234", "USD"),
    ("$ (2.5) million", "-2500000", "USD"),
    ("-$5m", "-5000000", "USD"),
    ("−7", "-7", None),
    ("9 €m", "9000000", "EUR"),
    ("£3bn", "3000000000", "GBP"),
    ("1'234'567.50 CHF", "1234567.50", "CHF"),
    ("3.2 Mio. EUR", "3200000", "EUR"),
    ("12,34,567", "1234567", None),
    ("0,125", "0.125", None),
    ("$.05", "0.05", "USD"),
    ("five percent (5 percent)", "0.05", "%"),
]


@pytest.mark.parametrize(("text", "value", "unit"), HAND)
def test_one_figure(text: str, value: str, unit: str | None) -> None:
    figure = figure_of(text)
    assert figure is not None
    assert (figure.value, figure.unit) == (Decimal(value), unit)
    assert text[figure.start : figure.end] == figure.text


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("sixty (60) days", ["60"]),
        ("Other(1) was 5", ["1", "5"]),
        ("see 2.1.3 of the 10-K, the 3rd, FY2019 and CO2e", []),
        ("44.1-56.7 in 2017,2018", ["44.1", "56.7", "2017", "2018"]),
        ("fell (see $5 million) by 3.", ["5000000", "3"]),
        ("up 5%, down 1,000", ["0.05", "1000"]),
    ],
)
def test_figures_in_running_text(text: str, values: list[str]) -> None:
    assert [figure.value for figure in figures(text)] == [Decimal(value) for value in values]


def test_a_json_number_is_itself_and_the_last_digit_is_known() -> None:
    for number, value, step in ((1496.5, "1496.5", "0.1"), (7, "7", "1"), (2.0, "2", "1")):
        figure = figure_of(number)
        assert figure is not None
        assert (figure.value, figure.step) == (Decimal(value), Decimal(step))
    for nothing in (None, True, float("nan"), "from 3 to 4", "none", [1]):
        assert figure_of(nothing) is None


@given(st.decimals(-(10**12), 10**12, places=2), st.sampled_from(["", " million", " %", " bps", "k EUR"]))
def test_what_was_written_in_english_is_read(number: Decimal, after: str) -> None:
    figure = figure_of(f"{number:,}{after}")
    assert figure is not None
    assert figure.number == number


@given(st.text(max_size=200))
def test_any_text_gives_figures_in_order(text: str) -> None:
    at = 0
    for figure in figures(text):
        assert at <= figure.start < figure.end <= len(text)
        assert figure.text == text[figure.start : figure.end]
        at = figure.end


def questions() -> Iterator[dict[str, Any]]:
    root = os.environ.get("GLASSHOUSE_TEST_DATA")
    if not root:
        pytest.skip("GLASSHOUSE_TEST_DATA is not set")
    with gzip.open(Path(root) / "docs" / "tatqa_dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield from json.loads(line)["questions"]


def test_answers_of_annual_reports() -> None:
    """One span in a table whose scale the question tells: it is one figure, equal to what it says."""
    read = asked = 0
    for question in questions():
        if question["answer_type"] == "span" and question["scale"] in ("thousand", "million"):
            plain = question["answer"][0].strip().lstrip("$").strip()
            digits = plain.strip("()% ").replace(",", "").replace("$", "").strip()
            try:
                expected = Decimal(digits) * (-1 if "(" in plain else 1)
            except ArithmeticError:
                continue  # words
            asked += 1
            figure = figure_of(question["answer"][0])
            read += figure is not None and figure.number == expected
    assert asked > 150
    assert read == asked


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("October 1, 2019", (2019, 10, 1), (2019, 10, 1)),
        ("the 1st day of October, 2019", (2019, 10, 1), (2019, 10, 1)),
        ("3 Dec. 2021", (2021, 12, 3), (2021, 12, 3)),
        ("2020-02-29", (2020, 2, 29), (2020, 2, 29)),
        ("12/31/2020", (2020, 12, 31), (2020, 12, 31)),
        ("3/4/2019", (2019, 3, 4), (2019, 4, 3)),
        ("Q3 2024", (2024, 7, 1), (2024, 9, 30)),
        ("February 2023", (2023, 2, 1), (2023, 2, 28)),
        ("fiscal 2023", (2023, 1, 1), (2023, 12, 31)),
    ],
)
def test_dates(text: str, first: tuple[int, int, int], last: tuple[int, int, int]) -> None:
    assert days_of(text) == Days(date(*first), date(*last))


def test_no_date() -> None:
    assert [days_of(text) for text in ("upon termination", "", None, "99/99/2020", 12.5)] == [None] * 5
