"""A snapshot as one self-contained HTML file: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import resources

from glasshouse.llm.monitoring import show
from glasshouse.llm.monitoring.curve import Line, curve_svg
from glasshouse.llm.monitoring.judge import standing
from glasshouse.llm.monitoring.snapshot import Figures, Snapshot


def dashboard(snapshot: Snapshot) -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined

    template = (resources.files("glasshouse.llm.monitoring") / "dashboard.html.jinja").read_text(
        encoding="utf-8"
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        seconds=show.seconds, count=show.count, dollars=show.dollars, share=show.share, moment=_moment
    )
    return environment.from_string(template).render(
        snapshot=snapshot,
        head=_head(snapshot.all),
        curves=_curves(snapshot),
        on=[alert for alert in snapshot.alerts if alert.ended is None],
        over=[alert for alert in snapshot.alerts if alert.ended is not None],
        quality=show.quality,
        standing=standing,
    )


def _head(all: Figures) -> list[tuple[str, str]]:
    """The figures on top: value and name."""
    tokens = all.prompt_tokens + all.new_tokens
    return [
        (show.count(all.calls), "calls"),
        (show.count(all.calls_per_minute), "calls a minute"),
        (f"{show.seconds(all.seconds_p50)} · {show.seconds(all.seconds_p95)}", "latency, p50 · p95"),
        (
            f"{show.seconds(all.first_token_p50)} · {show.seconds(all.first_token_p95)}",
            "first token, p50 · p95",
        ),
        (show.count(tokens), f"tokens, {show.count(all.new_tokens)} of them new"),
        (show.dollars(all.cost), f"cost{f'; {all.unpriced:,} calls without' if all.unpriced else ''}"),
        (show.share(all.error_rate), f"errors ({all.errors:,})"),
        (show.share(all.refusal_rate), f"refusals ({all.refusals:,})"),
        (show.share(all.validation_failure_rate), "invalid replies"),
        (show.share(all.cache_hit_rate), f"cache hits ({all.cache_hits:,})"),
        (show.quality(all.quality, all.quality_standing), f"quality ({all.judged:,} judged)"),
    ]


def _curves(snapshot: Snapshot) -> list[tuple[str, list[str], str]]:
    """(title, names of the lines, SVG) for each picture that has something to show."""
    series = snapshot.series
    drawn: list[tuple[str, list[Line], Callable[[float | None], str]]] = [
        ("Calls a minute", [Line("calls", series.calls_per_minute)], show.count),
        ("Latency", [Line("p50", series.seconds_p50), Line("p95", series.seconds_p95)], show.seconds),
        ("Time to the first token", [Line("p50", series.first_token_p50)], show.seconds),
        ("Tokens a minute", [Line("tokens", series.tokens_per_minute)], show.count),
        ("Cost a minute", [Line("cost", series.cost_per_minute)], show.dollars),
        (
            "Errors and refusals",
            [Line("errors", series.errors), Line("refusals", series.refusals)],
            show.count,
        ),
    ]
    began = snapshot.now - 60 * snapshot.minutes
    pictures = [
        (title, [line.label for line in lines], curve_svg(lines, began, snapshot.now, shown, title))
        for title, lines, shown in drawn
    ]
    return [picture for picture in pictures if picture[2]]


def _moment(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
