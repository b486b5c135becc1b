"""Numbers of a spreadsheet as the format of their cell shows them, in English signs; dates as ISO 8601."""

from __future__ import annotations

import datetime
import re
from functools import lru_cache

_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|[_*].|\[\$(?P<currency>[^\]-]*)(?:-[^\]]*)?\]|\[(?P<bracket>[^\]]*)\]'
    r"|(?P<exponent>[Ee][+-])|(?P<digits>[0#?][0#?,]*(?:\.[0#?]*)?|\.[0#?]+)(?P<scale>,*)|(?P<other>.)",
    re.DOTALL,
)
_COLORS = {"black", "blue", "cyan", "green", "magenta", "red", "white", "yellow"}
_LITERAL = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')
_MAX_FORMAT = 255  # characters, as Excel has it


def number_text(value: float, code: str, *, since_1904: bool = False) -> str:
    """`value` in the format `code`; what is not simple (fractions, conditions) is shown as "General".

    Empty where the format shows nothing (";;;"). `since_1904`: days are counted as old Macs did.

    >>> number_text(0.125, "0.0%"), number_text(-1234.5, "$#,##0.00;($#,##0.00)"), number_text(45000, "d.m.")
    ('12.5%', '($1,234.50)', '2023-03-15')
    """
    if code in ("", "General", "@") or len(code) > _MAX_FORMAT:
        return general(value)
    if _is_date(code):
        return date_text(value, code, since_1904=since_1904)
    sections = _sections(code)
    section = 1 if value < 0 and len(sections) > 1 else 2 if value == 0 and len(sections) > 2 else 0
    signed = value < 0 and section == 0
    shown = _shown(abs(value), sections[section])
    if shown is None:
        return general(value)
    return f"-{shown}" if signed and shown.strip("0.,% ") else shown


def general(value: float) -> str:
    """Without a format: whole numbers in full, others with ten digits, as in a cell that is wide enough."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.10g}"


def hides_text(code: str) -> bool:
    """Whether a format shows no text, as ";;;" does."""
    sections = _sections(code)
    return len(sections) == 4 and not sections[3].strip()


@lru_cache(maxsize=1024)
def _sections(code: str) -> tuple[str, ...]:
    plain = _LITERAL.sub(lambda literal: literal[0].replace(";", "\0"), code)
    return tuple(section.replace("\0", ";") for section in plain.split(";"))


@lru_cache(maxsize=1024)
def _is_date(code: str) -> bool:
    from openpyxl.styles.numbers import is_date_format

    return is_date_format(code)


def _shown(value: float, section: str) -> str | None:
    """A number that is not negative, by one section; None where the section is not simple."""
    before, after, pattern, scale, exponent = "", "", None, 0, False
    for token in _TOKEN.finditer(section):
        if token["digits"] is not None:
            if pattern is not None and not exponent:
                return None  # a fraction, or digits with signs between them
            if not exponent:
                pattern, scale = token["digits"], len(token["scale"])
                trailing = len(pattern) - len(pattern.rstrip(","))
                pattern, scale = pattern[: len(pattern) - trailing], scale + trailing
            continue
        if token["exponent"] is not None:
            exponent = True
            continue
        if token["bracket"] is not None:
            if token["bracket"].lower() not in _COLORS and not token["bracket"].lower().startswith("color"):
                return None
            continue
        literal = token["quoted"] or token["escaped"] or token["currency"] or token["other"] or ""
        if token["other"] in ("@", "/", "G"):
            return None
        if pattern is None:
            before += literal
        else:
            after += literal
    if pattern is None:
        return (before + after).strip()
    value *= 100 ** (before + after).count("%")
    value /= 1000**scale
    whole, _, decimals = pattern.partition(".")
    least = sum(sign in "0?" for sign in decimals)
    text = f"{value:.{len(decimals)}E}" if exponent else f"{value:,.{len(decimals)}f}"
    if "," not in whole:
        text = text.replace(",", "")
    if len(decimals) > least and not exponent:
        head, _, tail = text.partition(".")
        tail = tail[:least] + tail[least:].rstrip("0")
        text = f"{head}.{tail}" if tail else head
    if not exponent:
        wanted = whole.count("0")
        head, dot, tail = text.partition(".")
        text = head.zfill(wanted) + dot + tail
    return f"{before}{text}{after}".strip()


def date_text(value: float, code: str, *, since_1904: bool = False) -> str:
    """A count of days as a date, a time or both, as the format shows; as a number where it is no date."""
    from openpyxl.styles.numbers import is_timedelta_format
    from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH, from_excel

    if is_timedelta_format(code):
        seconds = round(value * 86400)
        sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
        return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    try:
        found = from_excel(value, MAC_EPOCH if since_1904 else WINDOWS_EPOCH)
    except (OverflowError, ValueError):
        return general(value)
    plain = _LITERAL.sub("", code).lower()
    if isinstance(found, datetime.datetime):
        if "y" not in plain and "d" not in plain and "h" in plain:
            return found.time().isoformat("seconds")
        if found.time() == datetime.time():
            return found.date().isoformat()
        return found.isoformat(" ", "seconds" if found.second else "minutes")
    if isinstance(found, datetime.time):
        return found.isoformat("seconds")
    return general(value)
