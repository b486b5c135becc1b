"""Characters that nobody sees: taken out of a text, and the words written in them found."""

from __future__ import annotations

import re
from collections.abc import Iterable

from glasshouse.files.document import Flag

# Soft hyphen, word joiner, byte-order mark: they only say where lines may break. The zero-width space stays,
# because it is the word boundary of Thai and Khmer.
_BREAKS = re.compile("[\u00ad\u2060\ufeff]")

# Tag characters stand for ASCII and are never drawn; only after a black flag do they belong.
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007f]{1,10})|[\U000e0000-\U000e007f]+")

_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")


def smuggled_flags(found: Iterable[tuple[str, int | None]]) -> tuple[Flag, ...]:
    """What to say of a file with words in characters that are not drawn, each with its page."""
    parts = [(words, page) for words, page in found if words.strip()]
    if not parts:
        return ()
    pages = tuple(sorted({page for _, page in parts if page is not None}))
    text = " ".join(words for words, _ in parts)[:10_000]
    return (Flag("hidden_text", "Words stand in characters that are never drawn.", pages, text),)


def visible(text: str) -> tuple[str, str]:
    """The text without characters that are not drawn, and the words that were written in them ("" mostly)."""
    if text.isascii():
        return (_CONTROLS.sub("", text), "") if _CONTROLS.search(text) else (text, "")
    text = _CONTROLS.sub("", _BREAKS.sub("", text))
    if max(text, default="") < "\U000e0000":
        return text, ""
    hidden = [found[0] for found in _TAGS.finditer(text) if not found[1]]
    words = "".join(
        chr(ord(c) - 0xE0000) for part in hidden for c in part if "\U000e0020" <= c < "\U000e007f"
    )
    return _TAGS.sub(lambda found: found[1] or "", text), words
