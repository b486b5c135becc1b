"""Figures as people read them; a dash where nobody told."""

from __future__ import annotations

NOTHING = "–"


def seconds(value: float | None) -> str:
    """
    >>> [seconds(value) for value in (None, 0, 0.0021, 0.0421, 1.284, 75.0)]
    ['–', '0 s', '2.1 ms', '42 ms', '1.28 s', '75 s']
    """
    if value is None:
        return NOTHING
    if value == 0:
        return "0 s"
    if value < 0.9995:
        return f"{1000 * value:.0f} ms" if value >= 0.00995 else f"{1000 * value:.1f} ms"
    return f"{value:.2f} s" if value < 9.995 else f"{value:,.0f} s"


def count(value: float | None) -> str:
    """
    >>> [count(value) for value in (None, 0, 0.25, 12.4, 900, 12_345, 5_600_000, 7.1e9)]
    ['–', '0', '0.25', '12.4', '900', '12.3k', '5.6M', '7.1G']
    """
    if value is None:
        return NOTHING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= 0.99995 * size:
            return f"{value / min(size, 1e3) if letter == 'k' else value / size:.3g}{letter}"
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def dollars(value: float | None) -> str:
    """
    >>> [dollars(value) for value in (None, 0.0, 0.00012, 0.5, 1234.5)]
    ['–', '$0', '$0.00012', '$0.50', '$1,234.50']
    """
    if value is None:
        return NOTHING
    if value == 0:
        return "$0"
    return f"${value:.2g}" if value < 0.1 else f"${value:,.2f}"


def share(value: float | None) -> str:
    """
    >>> [share(value) for value in (None, 0.0, 0.0042, 0.318)]
    ['–', '0%', '0.4%', '31.8%']
    """
    if value is None:
        return NOTHING
    return "0%" if value == 0 else f"{value:.1%}"


def quality(value: float | None, standing: str) -> str:
    """A score alone where the judge is vouched for, else what there is to say of the judge.

    >>> quality(0.914, "agrees with people (...)"), quality(None, "unmeasured"), quality(None, "")
    ('0.91', 'unmeasured', '–')
    """
    if value is not None:
        return f"{value:.2f}"
    return standing.partition(" (")[0] or NOTHING
