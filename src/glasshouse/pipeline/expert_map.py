"""The load of a mixture of experts as inline SVG: for each layer a small heat map, domains x experts.

A cell's colour says how far an expert's share lies above (--first, blue) or below (--second, orange) an even
one; blue and orange are told apart by colour-blind people too, and both keep their meaning on dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

WIDTH = 1040
MOST_LAYERS = 12
"""Layers drawn; of a deeper model so many from the first to the last, evenly spaced."""

_LABEL, _GAP, _ROW, _TITLE, _KEY = 110, 14, 15, 20, 34  # of domain names, between panels, cells, titles


def expert_map(load: dict[str, Any], title: str) -> str:
    """An <svg> of what `evaluation.expert_shares` found; "" without a domain."""
    domains, experts = load["domains"], load["experts"]
    if not domains:
        return ""
    layers = shown_layers(len(load["layers"]))
    room = (WIDTH - _LABEL + _GAP) / min(len(layers), 5) - _GAP  # of a panel, where five stand in a row
    cell = max(2.0, min(22.0, room / experts))
    across = max(1, int((WIDTH - _LABEL + _GAP + 0.5) // (cell * experts + _GAP)))
    height = _TITLE + len(domains) * _ROW + _GAP
    total = -(-len(layers) // across) * height + _KEY
    box = f'viewBox="0 0 {WIDTH} {total}" role="img" aria-label="{escape(title)}"'
    parts = [f'<svg {box} font-size="11" fill="var(--text)">']
    for place, layer in enumerate(layers):
        x, y = _LABEL + place % across * (cell * experts + _GAP), place // across * height
        if place % across == 0:
            parts += _names(domains, y + _TITLE)
        parts.append(f'<text x="{x:.1f}" y="{y + 13}">layer {load["layers"][layer]}</text>')
        parts += _cells(load, layer, x, y + _TITLE, cell)
    parts += _legend(total - _KEY + 12)
    return "".join([*parts, "</svg>"])


def shown_layers(count: int) -> list[int]:
    """Indices of at most MOST_LAYERS of `count` layers, the first and the last among them."""
    if count <= MOST_LAYERS:
        return list(range(count))
    return [round(i * (count - 1) / (MOST_LAYERS - 1)) for i in range(MOST_LAYERS)]


def colour(ratio: float) -> tuple[str, float]:
    """The colour of a share that is `ratio` times an even one, and its opacity: full at 4 and at 1/4."""
    strength = math.log2(ratio) / 2 if ratio > 0 else -1.0
    return "var(--first)" if strength >= 0 else "var(--second)", min(1.0, abs(strength))


def _names(domains: dict[str, Any], y: float) -> Iterator[str]:
    for row, name in enumerate(domains):
        short = name if len(name) <= 16 else "…" + name[-15:]
        yield (
            f'<text x="{_LABEL - 8}" y="{y + row * _ROW + 11}" text-anchor="end">{escape(short) or "–"}'
            f"<title>{escape(name)}: {domains[name]['tokens']:,} tokens</title></text>"
        )


def _cells(load: dict[str, Any], layer: int, x: float, y: float, cell: float) -> Iterator[str]:
    experts = load["experts"]
    for row, (name, domain) in enumerate(load["domains"].items()):
        for expert, share in enumerate(domain["shares"][layer]):
            said = f"layer {load['layers'][layer]}, {name}, expert {expert}: "
            said += f"{share:.1%}, {share * experts:.2f} times even"
            yield _box(x + expert * cell, y + row * _ROW, cell - 1, share * experts, said)


def _legend(y: float) -> Iterator[str]:
    """What the colours mean, as cells of some ratios."""
    yield f'<text x="{_LABEL - 8}" y="{y + 11}" text-anchor="end">times even</text>'
    for place, (ratio, name) in enumerate(((0.25, "≤ ¼"), (0.5, "½"), (1, "1"), (2, "2"), (4, "≥ 4"))):
        x = _LABEL + place * 62
        yield _box(x, y, 17, ratio) + f'<text x="{x + 23}" y="{y + 11}">{name}</text>'


def _box(x: float, y: float, width: float, ratio: float, said: str = "") -> str:
    """One cell; `said` is shown under the pointer."""
    fill, opacity = colour(ratio)
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" fill="{fill}" '
        f'fill-opacity="{opacity:.2f}" stroke="var(--line)" stroke-width=".5">'
        + (f"<title>{escape(said)}</title>" if said else "")
        + "</rect>"
    )
