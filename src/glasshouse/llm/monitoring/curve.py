"""A curve over time as inline SVG that takes its colours from the page."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 170
LEFT, RIGHT, TOP, BOTTOM = 52, 6, 8, 22
"""Room for the labels, in units of the picture."""


@dataclass(frozen=True)
class Line:
    """One value for each of equal stretches of time; None leaves a gap."""

    label: str
    values: Sequence[float | None]


def curve_svg(
    lines: Sequence[Line], began: float, ended: float, show: Callable[[float | None], str], title: str
) -> str:
    """At most two lines, from 0 up; `show` writes a value. "" where there is no value at all.

    Times are seconds since 1970 and shown in UTC. Whoever points at a place sees its values.
    """
    known = [value for line in lines for value in line.values if value is not None]
    if not known:
        return ""
    top, step = _scale(max(known))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    points = len(lines[0].values)

    def across(place: float) -> float:
        return LEFT + wide * place / points

    def up(value: float) -> float:
        return TOP + high * (1 - value / top)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for number in range(round(top / step) + 1):
        y = up(number * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="up" x="{LEFT - 6}" y="{y + 4:.1f}">{escape(show(number * step))}</text>')
    for quarter in range(5):
        moment = began + (ended - began) * quarter / 4
        anchor = "start" if quarter == 0 else "end" if quarter == 4 else "middle"
        x, y = LEFT + wide * quarter / 4, HEIGHT - 6
        parts.append(
            f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{_clock(moment, ended - began)}</text>'
        )
    for number, line in enumerate(lines):
        for run in _runs(line.values):
            places = " ".join(f"{across(place + 0.5):.1f},{up(value):.1f}" for place, value in run)
            if len(run) == 1:
                x, y = places.split(",")
                parts.append(f'<circle class="dot{number}" cx="{x}" cy="{y}" r="2.5"/>')
            else:
                parts.append(f'<polyline class="line{number}" points="{places}"/>')
    for place in range(points):
        moment = _clock(began + (ended - began) * place / points, ended - began)
        told = [f"{line.label} {show(line.values[place])}" for line in lines]
        size = f'y="{TOP}" width="{wide / points:.1f}" height="{high}"'
        tip = f"<title>{escape(', '.join([moment, *told]))}</title>"
        parts.append(f'<rect class="point" x="{across(place):.1f}" {size}>{tip}</rect>')
    return "".join([*parts, "</svg>"])


def _scale(most: float) -> tuple[float, float]:
    """(top of the axis, step between its marks): 1, 2, 2.5 or 5 times a power of ten, four marks or so."""
    if most <= 0:
        return 1.0, 1.0
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= most / 4)
    return step * math.ceil(most / step - 1e-9), step


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches without a gap: (place, value)."""
    runs: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((place, value))
    return [run for run in runs if run]


def _clock(moment: float, span: float) -> str:
    form = "%H:%M:%S" if span < 600 else "%H:%M" if span <= 86400 else "%d %b %H:%M"
    return time.strftime(form, time.gmtime(moment))
