"""Figures in a text, exactly: "$1,234.5 million", "(12.3)", "1.234,5 €", "12 %", "3 bps".

Numbers are decimals as written, never floats. Where a comma or a full stop could be either, three digits
after a comma make it a separator of thousands ("1,234"), one or two make it a decimal comma ("12,5"), and a
single full stop is a decimal point ("1.234").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_SCALES = {
    "thousand": 3,
    "thousands": 3,
    "tsd": 3,
    "k": 3,
    "lakh": 5,
    "lakhs": 5,
    "million": 6,
    "millions": 6,
    "millones": 6,
    "millionen": 6,
    "mio": 6,
    "mn": 6,
    "mm": 6,
    "m": 6,
    "crore": 7,
    "crores": 7,
    "billion": 9,
    "billions": 9,
    "milliarden": 9,
    "mrd": 9,
    "bn": 9,
    "b": 9,
    "trillion": 12,
    "trillions": 12,
    "tn": 12,
}
"""Powers of ten. A billion is 10^9."""

_LETTERS = frozenset(["k", "m", "b"])
"""Scales only beside a currency: "$5m", where "5m" may be metres."""

_CURRENCIES = {
    "$": "USD",
    "US$": "USD",
    "USD": "USD",
    "dollar": "USD",
    "dollars": "USD",
    "C$": "CAD",
    "CAD": "CAD",
    "A$": "AUD",
    "AUD": "AUD",
    "HK$": "HKD",
    "S$": "SGD",
    "NT$": "TWD",
    "R$": "BRL",
    "€": "EUR",
    "EUR": "EUR",
    "euro": "EUR",
    "euros": "EUR",
    "£": "GBP",
    "GBP": "GBP",
    "pounds": "GBP",
    "¥": "JPY",
    "JPY": "JPY",
    "yen": "JPY",
    "RMB": "CNY",
    "CNY": "CNY",
    "₹": "INR",
    "INR": "INR",
    "CHF": "CHF",
    "SEK": "SEK",
    "NOK": "NOK",
    "DKK": "DKK",
    "₩": "KRW",
    "KRW": "KRW",
}

_SHARES = {
    "%": ("%", -2),
    "percent": ("%", -2),
    "per cent": ("%", -2),
    "pct": ("%", -2),
    "percentage points": ("%", -2),
    "percentage point": ("%", -2),
    "pp": ("%", -2),
    "bps": ("%", -4),
    "bp": ("%", -4),
    "basis points": ("%", -4),
    "basis point": ("%", -4),
    "‰": ("%", -3),
}

_SIGNS = "|".join(re.escape(name) for name in sorted(_CURRENCIES, key=len, reverse=True))
_SCALE = "|".join(sorted(_SCALES, key=len, reverse=True))
_SHARE = "|".join(re.escape(name) for name in sorted(_SHARES, key=len, reverse=True))
_AFTER = rf"""
    (?:[ \u00a0-]?(?P<scale%d>{_SCALE})\b\.?)?
    (?:[ \u00a0]?(?P<share%d>{_SHARE})(?!\w)|[ \u00a0]?(?P<unit%d>{_SIGNS})(?P<letter%d>k|mn?|bn?)?(?!\w))?
"""
_FIGURE = re.compile(
    rf"""
    (?:(?<![\w)\]])(?P<minus>[-−–]))?
    (?P<open>\(\s*)?
    (?:(?<![A-Za-z])(?P<before>{_SIGNS})\s{{0,3}}['’]?)?
    (?P<open2>\(\s*)?
    (?P<minus2>(?<![\w)\]])[-−–])?
    (?<![\w])(?<!\d\.)
    (?P<number>
        (?:\d{{1,3}}(?:,\d{{2,3}})*,\d{{3}}(?:\.\d+)?        # 1,234.5 and 12,34,567
        |\d{{1,3}}(?:\.\d{{3}})+,\d+|\d{{1,3}}(?:\.\d{{3}}){{2,}} # 1.234,5 and 1.234.567
        |\d{{1,3}}(?:['’\u00a0\u202f\u2009]\d{{3}})+(?:[.,]\d+)? # 1'234.5
        |\d+,\d{{1,2}}|0,\d+                              # 12,5
        |\d+\.\d+|\d+|\.\d+)
        (?!\d|\.\d|,\d{{3}}(?!\d))
    )
    {_AFTER.replace("%d", "1")}
    (?P<close>\s*\))?
    (?:(?<=\)){_AFTER.replace("%d", "2")})?
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Figure:
    """A figure as a text has it: `number * 10**power`, in `unit`."""

    number: Decimal  # as written, with its sign
    power: int  # of ten: 6 of a million, -2 of a percentage, 0 where nothing stands beside it
    unit: str | None  # a currency's three letters, "%", or None where nothing stands beside it
    text: str
    start: int  # characters, half open
    end: int

    @property
    def value(self) -> Decimal:
        return self.number.scaleb(self.power)

    @property
    def step(self) -> Decimal:
        """One of the last digit that is written: the figure is its rounding to this."""
        exponent = self.number.as_tuple().exponent
        assert isinstance(exponent, int)
        return Decimal(1).scaleb(exponent + self.power)


def figures(text: str) -> list[Figure]:
    """Every figure of a text in order, those in dates and numbers of sections too.

    An accountant's brackets are a minus: "(12.3)", "$(5)". A whole number in brackets after a word is none:
    "sixty (60) days", "Other(1)".
    """
    return [figure for match in _FIGURE.finditer(text) if (figure := _figure(match, text)) is not None]


def figure_of(value: Any) -> Figure | None:
    """The one figure that a field's value is: a JSON number, or a text with it; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float | Decimal):
        number = Decimal(str(value))
        if not number.is_finite():
            return None
        if number == number.to_integral_value():
            number = number.quantize(Decimal(1)) if abs(number) < Decimal(10) ** 27 else number
        return Figure(number, 0, None, str(value), 0, len(str(value)))
    found = figures(value) if isinstance(value, str) else []
    return found[0] if len(found) == 1 else None


def _figure(match: re.Match[str], text: str) -> Figure | None:
    number = _decimal(match["number"])
    after = match["number"] and text[match.end() : match.end() + 1]
    unit = share = None
    power = 0
    for group in ("1", "2"):
        scale = match[f"scale{group}"]
        money = match["before"] or match[f"unit{group}"]
        if scale:
            if scale.lower() in _LETTERS and not money:
                return None  # "10-K", "5 m" are words
            power = _SCALES[scale.lower()]
        if match[f"share{group}"]:
            share = match[f"share{group}"].lower()
        if match[f"unit{group}"]:
            unit = _currency(match[f"unit{group}"])
        if match[f"letter{group}"]:
            power = _SCALES[match[f"letter{group}"].lower()]
    if match["before"]:
        unit = _currency(match["before"])
    if share:
        unit, power = _SHARES[share]
    elif after and after.isalpha() and match.end("number") == match.end():
        return None  # "3rd", "CO2e", "10-K" are words
    start = match.start()
    opened = match["open"] or match["open2"]
    negative = bool(match["minus"] or match["minus2"])
    if opened and match["close"]:
        negative = negative or _in_red(match, text)
    elif match["open"]:
        start = match.end("open")
    end = match.end() if opened or not match["close"] else match.start("close")
    return Figure(-number if negative else number, power, unit, text[start:end], start, end)


def _in_red(match: re.Match[str], text: str) -> bool:
    """Whether brackets around a number are a minus."""
    before = text[max(0, match.start() - 4) : match.start()].rstrip(" \u00a0")[-1:]
    return match["before"] is not None or not before.isalpha() or not match["number"].isdigit()


def _currency(sign: str) -> str:
    return _CURRENCIES.get(sign) or next(
        code for name, code in _CURRENCIES.items() if name.lower() == sign.lower()
    )


def _decimal(written: str) -> Decimal:
    plain = re.sub(r"['’\u00a0\u202f\u2009]", "", written)
    if "," in plain and "." in plain:
        group, point = (",", ".") if plain.rindex(".") > plain.rindex(",") else (".", ",")
    elif "," in plain:
        decimal = plain.startswith("0,") or len(plain) - plain.rindex(",") - 1 < 3
        group, point = (".", ",") if decimal else (",", ".")
    else:
        group, point = (".", ",") if plain.count(".") > 1 else (",", ".")
    return Decimal(plain.replace(group, "").replace(point, "."))
