"""E-mail addresses, phone numbers, web addresses, dates and money: checked, and written in one way.

As `format` names of JSON Schema (structured.py checks them) and as types for pydantic models:

    format       type           as it comes out
    email        Email          name@example.com, by email-validator, without asking the network
    phone        Phone          +4930901820 (E.164); the number must be written with its country's code
    phone-DE     phone("DE")    the same; a number without a country's code is Germany's
    url          Url            https://example.com/, http and https only
    date         IsoDate        2026-03-01
    date-dmy     DateDMY        2026-03-01 from 1.3.2026, 01/03/2026 or 1-3-2026
    date-mdy     DateMDY        2026-01-03 from 1/3/2026
    money        Money          EUR 12.50: an ISO 4217 code and an exact decimal amount

Nothing is guessed: "1/3/2026" has no meaning until an order of day and month is stated, "$" is the sign of
many currencies, and "1,234" is two numbers in two countries. Names of months are not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

Normalise = Callable[[str], str]
"""Gives the one way to write a value, or raises ValueError that says what is wrong with it."""

CURRENCIES = frozenset(
    re.findall(
        r"[A-Z]{3}",
        """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN
        BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD
        FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS
        KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK
        MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR
        SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH
        UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XAG XAU XCD XCG XDR XOF XPD XPF XPT XSU XUA
        YER ZAR ZMW ZWG
        """,
    )
)
"""Codes of ISO 4217 in use in 2025, funds and metals with them, without XTS (tests) and XXX (no currency)."""

_AMOUNT = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,12})?")
_MONEY = re.compile(r"(?P<before>[A-Z]{3})? ?(?P<amount>-?[0-9][0-9.,]*) ?(?P<after>[A-Z]{3})?", re.ASCII)
_DIALLED = re.compile(r"[+(0-9][0-9 ()./-]{1,38}", re.ASCII)
_WEB = re.compile(r"https?://[^\s\\/@]+([/?#][^\s\\]*)?", re.IGNORECASE)
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", re.ASCII)
_WRITTEN = re.compile(r"([0-9]{1,2})([./-])([0-9]{1,2})\2([0-9]{4})", re.ASCII)


@dataclass(frozen=True)
class Money:
    """An exact amount in one currency. `str` gives "EUR 12.50"; a currency's usual decimals are not enforced,
    since prices of small things have more."""

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        if self.currency not in CURRENCIES:
            raise ValueError(f"{self.currency!r} is no ISO 4217 currency in use; write its three letters")
        if not isinstance(self.amount, Decimal):
            raise ValueError(f"the amount must be a Decimal, got {type(self.amount).__name__}")
        if not _AMOUNT.fullmatch(f"{self.amount:f}"):
            raise ValueError(f"{self.amount} is no amount of money")

    @classmethod
    def parse(cls, text: str) -> Money:
        """Read "EUR 12.50" or "12.50 EUR". Raises ValueError."""
        found = _MONEY.fullmatch(text.strip())
        if not found or (found["before"] is None) == (found["after"] is None):
            raise ValueError(f"{text!r} is no money; write a currency's code and an amount, as EUR 1234.50")
        if not _AMOUNT.fullmatch(found["amount"]):
            raise ValueError(
                f"{text!r} has no plain amount; write a point and no thousands' sign, as EUR 1234.50"
            )
        return cls(Decimal(found["amount"]), found["before"] or found["after"])

    def __str__(self) -> str:
        return f"{self.currency} {self.amount:f}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        text = core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            text,
            core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "type": "string",
            "format": "money",
            "description": "ISO 4217 code and amount, as EUR 1234.50",
        }


def email(text: str) -> str:
    """The address with its domain in lower case. No DNS is asked: that the domain takes mail is not known."""
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise ValueError(f"{text!r} is no e-mail address: {error}") from None


def telephone(text: str, region: str | None = None) -> str:
    """The number as E.164. `region`: two letters of the country that numbers without a code belong to."""
    import phonenumbers

    how = "with +, the country's code and digits" if region is None else f"as one dials it in {region}"
    wrong = f"{text!r} is no phone number; write it {how}"
    if not _DIALLED.fullmatch(text.strip()):  # the library would pick a number out of any sentence
        raise ValueError(wrong)
    try:
        number = phonenumbers.parse(text.strip(), region)
    except phonenumbers.NumberParseException:
        raise ValueError(wrong) from None
    if not phonenumbers.is_valid_number(number):
        raise ValueError(f"{text!r} is a phone number that nobody can have")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def web_address(text: str) -> str:
    """An absolute http or https address, its host in lower case (punycode where it has other letters)."""
    from pydantic import HttpUrl, ValidationError

    # The parser is a browser's and would mend much; what it would mend is refused first.
    if not _WEB.fullmatch(text):
        raise ValueError(f"{text!r} is no web address; write http:// or https://, a host, and no password")
    try:
        return str(HttpUrl(text))
    except ValidationError as error:
        raise ValueError(f"{text!r} is no web address: {error.errors()[0]['msg']}") from None


def iso_date(text: str) -> str:
    """YYYY-MM-DD, a day that exists (RFC 3339's full-date)."""
    found = _DATE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no date; write it as YYYY-MM-DD")
    return _day(text, *found.groups())


def day_month_year(text: str) -> str:
    """1.3.2026 is 2026-03-01, the first of March."""
    found = _WRITTEN.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no date; write day, month and year, as 31.12.2026")
    return _day(text, found[4], found[3], found[1])


def month_day_year(text: str) -> str:
    """1/3/2026 is 2026-01-03, the third of January."""
    found = _WRITTEN.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no date; write month, day and year, as 12/31/2026")
    return _day(text, found[4], found[1], found[3])


def _day(text: str, year: str, month: str, day: str) -> str:
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is a day that does not exist") from None


_KNOWN: dict[str, Normalise] = {
    "email": email,
    "phone": telephone,
    "url": web_address,
    "date": iso_date,
    "date-dmy": day_month_year,
    "date-mdy": month_day_year,
    "money": lambda text: str(Money.parse(text)),
}

NAMES = (*_KNOWN, "phone-XX")
"""Formats that this module checks; XX is a country's two letters."""


@cache
def format_named(name: str) -> Normalise | None:
    """What checks and normalises values of this `format`; None for a name that is not ours."""
    if found := _KNOWN.get(name):
        return found
    region = name.removeprefix("phone-")
    if region == name:
        return None
    from phonenumbers import SUPPORTED_REGIONS

    if region not in SUPPORTED_REGIONS:
        return None
    return lambda text: telephone(text, region)


def _type(name: str) -> Any:
    """`str` that is checked and normalised as the format says."""
    normalise = format_named(name)
    if normalise is None:
        raise ValueError(f"no format is called {name!r}; known: {', '.join(NAMES)}")
    return Annotated[str, AfterValidator(normalise), WithJsonSchema({"type": "string", "format": name})]


def phone(region: str) -> Any:
    """A type for phone numbers of a country, by its two letters. Raises ValueError for an unknown one."""
    return _type(f"phone-{region}")


if TYPE_CHECKING:
    Email = Phone = Url = DateDMY = DateMDY = IsoDate = str
else:
    Email, Phone, Url, IsoDate = _type("email"), _type("phone"), _type("url"), _type("date")
    DateDMY, DateMDY = _type("date-dmy"), _type("date-mdy")
