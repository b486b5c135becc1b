"""Curves as inline SVG that takes its colours from the page, so that it fits light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glasshouse.pipeline.summary import show_count

TEXT, LINE = "#010203", "#020304"
SERIES = ("#030405", "#040506")
_CSS = {TEXT: "var(--text)", LINE: "var(--line)", SERIES[0]: "var(--first)", SERIES[1]: "var(--second)"}
"""Stand-ins drawn by matplotlib, which knows no CSS variables, and what each becomes in the SVG."""

MOST_POINTS = 1500
"""Points drawn of one curve; more cannot be told apart and make the page heavy."""

SMOOTH_ROWS = 200
"""A curve of more rows than this is drawn faint, with its running mean over a fiftieth of the rows on top."""


@dataclass(frozen=True)
class Curve:
    """Rows of one metrics.jsonl and the name in the legend."""

    label: str
    rows: Sequence[Mapping[str, Any]]


def loss_svg(curves: Sequence[Curve], title: str) -> str:
    """Training loss (line) and validation loss (dots) over tokens; at most two curves. "" without rows."""
    if not any(curve.rows for curve in curves):
        return ""

    def draw(axes: Any) -> None:
        for colour, curve in zip(SERIES, curves, strict=False):
            if curve.rows:
                _draw(axes, curve, colour, several=len(curves) > 1)
        _dress(axes, curves)

    return svg(draw, title)


def reward_svg(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """What reinforcement learning trained on, what is meant, and how far it went, over its steps.

    Proxy and gold reward on the left scale, each less its first value (only differences of a reward model
    mean something), KL to the reference in nats a reply on the right one. "" without rewards.
    """
    newest = {row.get("rollouts", row["step"]): row for row in rows if "reward_proxy" in row}
    rows = list(newest.values())  # several steps on the same replies tell of them once
    if not rows:
        return ""

    def draw(axes: Any) -> None:
        steps = [row["step"] for row in rows]
        for name, colour, label in (("reward_proxy", SERIES[0], "proxy"), ("reward_gold", SERIES[1], "gold")):
            if all(name in row for row in rows):
                values = running_mean([row[name] for row in rows], 8)
                axes.plot(steps, [v - values[0] for v in values], color=colour, label=f"{label} reward")
        axes.axhline(0, color=LINE, linewidth=1)
        dress_axes(axes, "step", "reward, change")
        if all("kl" in row for row in rows):
            right = axes.twinx()
            right.plot(
                steps, running_mean([row["kl"] for row in rows], 8), color=TEXT, linestyle=":", linewidth=1
            )
            right.set_ylabel("KL (dotted), nats a reply", color=TEXT)
            right.tick_params(colors=TEXT, length=0)
            for side in right.spines.values():
                side.set_visible(False)

    return svg(draw, title)


def svg(draw: Callable[[Any], None], title: str, size: tuple[float, float] = (6.4, 3.4)) -> str:
    """What `draw` puts on the axes of a figure; `size` in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10}
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(drawn.getvalue(), title)


def _draw(axes: Any, curve: Curve, colour: str, *, several: bool) -> None:
    tokens = [row["tokens"] for row in curve.rows]
    losses = [row["loss"] for row in curve.rows]
    name = f"{curve.label}: " if several else ""
    every = slice(None, None, -(-len(losses) // MOST_POINTS))
    many = len(losses) > SMOOTH_ROWS
    smooth = running_mean(losses) if many else losses
    axes.plot(tokens[every], losses[every], color=colour, linewidth=1, alpha=0.25 if many else 1.0)
    axes.plot(tokens[every], smooth[every], color=colour, label=f"{name}training")
    held_out = [(row["tokens"], row["val_loss"]) for row in curve.rows if "val_loss" in row]
    if held_out:
        axes.plot(
            *zip(*held_out, strict=True),
            color=colour,
            marker="o",
            markersize=4,
            linestyle=":",
            label=f"{name}held out",
        )


def _dress(axes: Any, curves: Sequence[Curve]) -> None:
    losses = sorted(row["loss"] for curve in curves for row in curve.rows)
    if len(losses) > 20:  # the first steps would squeeze everything else into a line
        top = losses[math.floor(0.98 * (len(losses) - 1))]
        axes.set_ylim(losses[0] - 0.05 * (top - losses[0]), top + 0.05 * (top - losses[0]))
    dress_axes(axes, "tokens", "loss, nats a token")


def dress_axes(axes: Any, across: str, up: str) -> None:
    """Labels, a light grid and a legend in the page's colours."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(across, color=TEXT)
    axes.set_ylabel(up, color=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda x, _: show_count(x) if x else "0")
    axes.tick_params(colors=TEXT, length=0)
    axes.grid(color=LINE, linewidth=0.8)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(frameon=False, labelcolor=TEXT)


def running_mean(values: Sequence[float], parts: int = 50) -> list[float]:
    """Mean over a window of one of so many parts of the values, centred, shorter at both ends."""
    half = max(1, len(values) // (2 * parts))
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    bounds = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[high] - sums[low]) / (high - low) for low, high in bounds]


def _inline(svg: str, title: str) -> str:
    """The <svg> element alone, scaling with the page and coloured by it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{title}"', svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: (\d+px)[^;\"]*", r"font-size: \1", svg)
    for stand_in, variable in _CSS.items():
        svg = svg.replace(stand_in, variable)
    return svg
