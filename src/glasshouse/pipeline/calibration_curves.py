"""Two pictures of what `calibrate` did: the reliability diagram and risk over coverage, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glasshouse.pipeline.curves import LINE, SERIES, dress_axes, svg

DOTS = 240
"""Area in square points of a dot that stands for all questions."""


def calibration_svgs(measured: Mapping[str, Any]) -> dict[str, str]:
    """{"reliability", "risk_coverage"} of a calibration's held_out.json; {} without one."""
    if not measured:
        return {}
    return {
        "reliability": svg(
            lambda axes: _reliability(axes, measured), "Stated confidence and rightness", (5, 4)
        ),
        "risk_coverage": svg(lambda axes: _risk_coverage(axes, measured), "Risk over coverage", (5, 4)),
    }


def _reliability(axes: Any, measured: Mapping[str, Any]) -> None:
    """Rightness over stated confidence in ten bins; a dot's area is its share of the questions."""
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5, label="exact")
    for name, colour in zip(("before", "after"), SERIES, strict=True):
        bins = measured[name]["reliability"]
        stated, right = [b["stated"] for b in bins], [b["right"] for b in bins]
        every = sum(b["n"] for b in bins)
        axes.plot(stated, right, color=colour, linewidth=1)
        axes.scatter(stated, right, s=[DOTS * b["n"] / every for b in bins], color=colour, label=name)
    dress_axes(axes, "stated confidence", "right")
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.05, 1.05)


def _risk_coverage(axes: Any, measured: Mapping[str, Any]) -> None:
    """The share of wrong answers when only the surest part is answered."""
    lines = [
        ("before", measured["before"], SERIES[0], "-"),
        ("after", measured["after"], SERIES[1], "-"),
        ("token probabilities before", measured["temperature"]["before"]["scaled"], SERIES[0], ":"),
        ("token probabilities after", measured["temperature"]["after"]["scaled"], SERIES[1], ":"),
    ]
    for label, found, colour, style in lines:
        points = found["risk_coverage"]
        marker = "o" if len(points) == 1 else None
        axes.plot(
            [p["coverage"] for p in points],
            [p["risk"] for p in points],
            color=colour,
            linestyle=style,
            marker=marker,
            label=label,
        )
    dress_axes(axes, "share of the questions answered", "wrong among them")
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(bottom=-0.02)
