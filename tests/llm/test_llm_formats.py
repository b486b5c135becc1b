"""Formats: what is right, what is wrong, and one way to write each value."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from glasshouse.llm import formats
from glasshouse.llm.formats import CURRENCIES, Money, format_named

RIGHT = [
    ("email", "Ada@Example.COM", "Ada@example.com"),
    ("email", "a.b+c@mail.example.org", "a.b+c@mail.example.org"),
    ("email", "grüße@example.com", "grüße@example.com"),
    ("phone", "+49 30 901820", "+4930901820"),
    ("phone", "+1 (212) 555-2368", "+12125552368"),
    ("phone", " +44 20 7946 0958 ", "+442079460958"),
    ("phone-DE", "030 901820", "+4930901820"),
    ("phone-DE", "+33 1 42 68 53 00", "+33142685300"),
    ("phone-US", "212-555-2368", "+12125552368"),
    ("url", "HTTPS://Example.com", "https://example.com/"),
    ("url", "http://example.com:8080/a?b=c#d", "http://example.com:8080/a?b=c#d"),
    ("url", "https://example.com:443/x", "https://example.com/x"),
    ("url", "https://bücher.example/", "https://xn--bcher-kva.example/"),
    ("url", "http://127.0.0.1/a", "http://127.0.0.1/a"),
    ("date", "2026-03-01", "2026-03-01"),
    ("date", "2024-02-29", "2024-02-29"),
    ("date-dmy", "1.3.2026", "2026-03-01"),
    ("date-dmy", "31/12/2026", "2026-12-31"),
    ("date-mdy", "1/3/2026", "2026-01-03"),
    ("money", "EUR 12.50", "EUR 12.50"),
    ("money", "12.50 EUR", "EUR 12.50"),
    ("money", "USD0.0000015", "USD 0.0000015"),
    ("money", "-3 JPY", "JPY -3"),
    ("money", "USD 100000000000000000000.01", "USD 100000000000000000000.01"),
]

WRONG = [
    ("email", "ada"),
    ("email", "ada@"),
    ("email", "ada@localhost"),
    ("email", "a b@example.com"),
    ("email", "Ada <ada@example.com>"),
    ("email", "ada@example..com"),
    ("phone", "030 901820"),
    ("phone", "+49"),
    ("phone", "+1 555"),
    ("phone", "call +49 30 901820"),
    ("phone", "+49 30 901820 ext. 7"),
    ("phone", "+999 12345678"),
    ("phone-DE", "12"),
    ("phone-DE", "drei"),
    ("url", "example.com"),
    ("url", "ftp://example.com/"),
    ("url", "javascript:alert(1)"),
    ("url", "http:example.com"),
    ("url", "https://"),
    ("url", "https://user:secret@example.com/"),
    ("url", "https://exa mple.com/"),
    ("url", "https:\\\\example.com"),
    ("url", "https://example.com:99999/"),
    ("date", "2026-02-30"),
    ("date", "2026-3-1"),
    ("date", "01.03.2026"),
    ("date", "2026-03-01T00:00:00"),
    ("date", "٢٠٢٦-٠٣-٠١"),
    ("date-dmy", "12/31/2026"),
    ("date-dmy", "1.3.26"),
    ("date-dmy", "1.3/2026"),
    ("date-mdy", "31/12/2026"),
    ("money", "12.50"),
    ("money", "$12.50"),
    ("money", "EUR"),
    ("money", "EUR 1,234.50"),
    ("money", "EUR 1.234,50"),
    ("money", "EUR 12,50"),
    ("money", "EUR 12.50 EUR"),
    ("money", "EUR 1e3"),
    ("money", "EUR NaN"),
    ("money", "eur 12.50"),
    ("money", "DEM 12.50"),
    ("money", "XYZ 12.50"),
]


def normalised(name: str, text: str) -> str:
    check = format_named(name)
    assert check is not None
    return check(text)


@pytest.mark.parametrize(("name", "text", "expected"), RIGHT)
def test_right_values_come_out_in_one_way(name, text, expected):
    assert normalised(name, text) == expected
    assert normalised(name if "-dmy" not in name and "-mdy" not in name else "date", expected) == expected


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_wrong_values_are_refused_with_the_value_in_the_message(name, text):
    with pytest.raises(ValueError, match=r"\S+ .*"):
        normalised(name, text)


def test_names_that_are_not_ours_are_left_alone():
    assert format_named("uuid") is None
    assert format_named("phone-QQ") is None
    with pytest.raises(ValueError, match="phone-QQ"):
        formats.phone("QQ")


class Contact(BaseModel):
    mail: formats.Email
    call: formats.phone("DE")  # pyright: ignore[reportInvalidTypeForm]
    site: formats.Url
    since: formats.IsoDate
    owes: Money


def test_pydantic_types_check_normalise_and_describe_themselves():
    got = Contact.model_validate_json(
        '{"mail": "A@Example.com", "call": "030 901820", "site": "https://Example.com",'
        ' "since": "2026-03-01", "owes": "5.10 EUR"}'
    )
    assert got.mail == "A@example.com"
    assert got.call == "+4930901820"
    assert got.owes == Money(Decimal("5.10"), "EUR")
    assert Contact.model_validate_json(got.model_dump_json()) == got
    properties = Contact.model_json_schema()["properties"]
    assert [properties[key]["format"] for key in properties] == ["email", "phone-DE", "url", "date", "money"]
    with pytest.raises(ValidationError, match="as EUR 1234"):
        TypeAdapter(Money).validate_json('"5.10"')
    with pytest.raises(ValidationError):
        TypeAdapter(Money).validate_json("5.10")


def test_money_is_never_a_float():
    with pytest.raises(ValueError, match="Decimal"):
        Money(0.1, "EUR")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no amount"):
        Money(Decimal("Infinity"), "EUR")


@given(st.decimals(-(10**20), 10**20, places=4), st.sampled_from(sorted(CURRENCIES)))
def test_money_round_trip(amount, currency):
    money = Money(amount, currency)
    assert Money.parse(str(money)) == money
    assert Money.parse(f"{amount:f} {currency}").amount.compare_total(amount) == 0  # trailing zeros stay too


@given(st.dates())
def test_date_round_trips(day: date):
    assert normalised("date", day.isoformat()) == day.isoformat()
    assert normalised("date-dmy", f"{day.day}.{day.month}.{day.year:04}") == day.isoformat()
    assert normalised("date-mdy", f"{day.month}/{day.day}/{day.year:04}") == day.isoformat()


@given(st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)))
@settings(max_examples=100)
def test_phone_round_trips_in_every_country(region):
    number = phonenumbers.example_number(region)
    if number is None:
        return
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    assert normalised("phone", written) == written
    spaced = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    assert normalised("phone", spaced) == written


@given(st.text(max_size=60), st.sampled_from(["email", "phone", "phone-US", "url", "date", "money"]))
def test_whatever_comes_is_normalised_for_good_or_refused(text, name):
    try:
        once = normalised(name, text)
    except ValueError:
        return
    assert normalised(name, once) == once


@given(st.from_regex(r"https?://[a-z0-9-]{1,10}\.example(:[0-9]{1,4})?(/[a-zA-Z0-9_%.~-]*)?", fullmatch=True))
def test_url_normalisation_is_stable(text):
    try:
        once = normalised("url", text)
    except ValueError:
        return
    assert normalised("url", once) == once
