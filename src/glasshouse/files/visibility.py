"""Whether words can be seen on their background: what tells white text on white paper."""

from __future__ import annotations

import re

LEAST_CONTRAST = 1.15
"""Contrast ratio of WCAG 2 from 1 (the same colour) to 21. Below it a reader sees nothing; light grey on
white, as of a watermark, has 1.6."""

LEAST_POINTS = 2.0
"""Height of letters. Legal small print has at least 4."""

WHITE = "FFFFFF"


def seen(color: str | None, background: str | None, points: float | None = None) -> bool:
    """Colours as RRGGBB; None where one is not known, or chosen by the program so that it can be seen."""
    if points is not None and points < LEAST_POINTS:
        return False
    if color is None or background is None:
        return True
    light, dark = sorted((_luminance(color), _luminance(background)), reverse=True)
    return (light + 0.05) / (dark + 0.05) >= LEAST_CONTRAST


def hex_color(value: str | None) -> str | None:
    """RRGGBB of a colour as files write it ("#ffffff", "FFFFFF", "FFFFFFFF" with alpha first); else None."""
    if value is None or not re.fullmatch(r"#?(?:[0-9A-Fa-f]{2})?[0-9A-Fa-f]{6}", value):
        return None
    return value[-6:].upper()


def _luminance(color: str) -> float:
    """Relative luminance of WCAG 2, from 0 (black) to 1 (white)."""
    red, green, blue = (_linear(int(color[place : place + 2], 16) / 255) for place in (0, 2, 4))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.03928 else ((channel + 0.055) / 1.055) ** 2.4
