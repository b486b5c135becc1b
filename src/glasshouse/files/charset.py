"""In which encoding the bytes of a text are: its mark, what it says of itself, UTF-8, else Windows-1252."""

from __future__ import annotations

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TEXT = re.compile(r"utf-?(8|16|32)|iso8859|cp\d|ascii|gb|big5|shift|euc|koi8|mac|hz$|iso2022|ptcp|tis")
_AS_BROWSERS = {"ascii": "cp1252", "iso8859-1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
# The five places that Windows-1252 leaves empty are the control characters that browsers make of them.
_WINDOWS = {
    place: bytes([place]).decode("cp1252", errors="ignore") or chr(place) for place in range(128, 160)
}


def marked(data: bytes) -> tuple[str, int] | None:
    """The encoding that a byte-order mark names, and the length of the mark; None without one."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    return None


def codec(label: str) -> str | None:
    """Python's name of the text encoding called `label`; None for an unknown one.

    Codecs that are not a way to write text (`zip`, `idna`, `unicode_escape`) count as unknown: some of them
    need quadratic time.
    """
    try:
        name = codecs.lookup(label.strip()).name
    except (LookupError, ValueError):
        return None
    return name if _TEXT.match(name.lower()) else None


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of bytes: by their mark, as UTF-8, by the encoding they declare, else as Windows-1252.

    UTF-8 comes before what is declared, because hardly any text in another encoding happens to be UTF-8, and
    many a declaration is wrong; encodings of seven bits (ISO-2022-JP) are the exception. What is declared is
    read as browsers do: Latin-1 means Windows-1252. Bytes that no encoding explains become U+FFFD.
    """
    if found := marked(data):
        encoding, length = found
        return data[length:].decode(encoding, errors="replace")
    if guess := _without_mark(data):
        return data.decode(guess, errors="replace")
    encoding = codec(declared) if declared else None
    if encoding is not None and encoding.startswith(("iso2022", "hz", "utf-7")):
        return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    encoding = _AS_BROWSERS.get(encoding or "cp1252", encoding)
    if encoding is None or encoding == "cp1252" or encoding.startswith(("utf-16", "utf-32")):
        # Nobody can read "I am UTF-16" in UTF-16: such a text is not what it says.
        return _mostly_utf8(data) or data.decode("latin-1").translate(_WINDOWS)
    return data.decode(encoding, errors="replace")


def _without_mark(data: bytes) -> str | None:
    """UTF-16 whose mark is missing: every other byte of Western text is zero."""
    head = data[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half >= 4 and len(data) % 2 == 0:
        if odd > 0.4 * half and even < 0.05 * half:
            return "utf-16-le"
        if even > 0.4 * half and odd < 0.05 * half:
            return "utf-16-be"
    return None


def _mostly_utf8(data: bytes) -> str | None:
    """UTF-8 with a few broken bytes (a cut, a bad join): ten good signs for a broken one."""
    text = data.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    return text if sum(len(found) for found in _BEYOND_ASCII.findall(text)) - broken > 10 * broken else None
