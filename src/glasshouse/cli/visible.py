"""What a model wrote, safe to print: no control character may move the cursor or retitle the window."""

from __future__ import annotations

_PICTURES = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)


def visible(text: str) -> str:
    r"""The text with control characters as pictures; line breaks and tabs stay.

    >>> visible("\x1b[2Jgone")
    '␛[2Jgone'
    """
    return text.translate(_PICTURES)
