"""`glasshouse monitor`: what a log of calls says, live in the terminal, as JSON or as a page."""

from __future__ import annotations

import json as jsonlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glasshouse.cli.visible import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from glasshouse.llm.monitoring.snapshot import Figures, Group, Snapshot

WIDE = 160
"""Columns where the output is no terminal."""

MOST_ROWS = 12
"""Prompts that the terminal shows; the page shows all."""

BARS = "▁▂▃▄▅▆▇█"


def register(app: typer.Typer) -> None:
    app.command(
        "monitor",
        epilog="\b\nExample:\n  glasshouse monitor calls.sqlite\n"
        "  glasshouse monitor calls.sqlite --minutes 1440 --html calls.html",
    )(monitor)


def monitor(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Log of calls, as a CallLog writes it.")
    ] = Path("calls.sqlite"),
    minutes: Annotated[float, typer.Option(help="How far back the figures go.", min=0.1)] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Print the view once and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one snapshot as JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="OUT", help="Write a page instead, with curves.")
    ] = None,
) -> None:
    """Show calls to models: latency, tokens, cost, errors, refusals, quality and drift alerts.

    In a terminal the view is live until Ctrl-C. A judge's score is shown as quality only where its agreement
    with people was measured.
    """
    from rich.console import Console

    from glasshouse.llm.monitoring.snapshot import LogReader

    with LogReader(file) as log:
        snapshot = log.snapshot(minutes)
        if json:
            typer.echo(jsonlib.dumps(snapshot.as_dict(), ensure_ascii=False, indent=2))
        if html is not None:
            from glasshouse.core.storage import write_text
            from glasshouse.llm.monitoring.dashboard import dashboard

            write_text(html, dashboard(snapshot))
            typer.echo(f"page  {html}", err=True)
        if json or html is not None:
            return
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=WIDE)
        if once or not console.is_terminal:
            console.print(view(snapshot))
            return
        _live(console, log, minutes)


def _live(console: Any, log: Any, minutes: float) -> None:
    """Until Ctrl-C, which is how one leaves."""
    from rich.live import Live

    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                began = time.monotonic()
                live.update(view(log.snapshot(minutes), "Ctrl-C ends it"), refresh=True)
                # At most a quarter of the time goes into reading, however long the log.
                time.sleep(max(1.0, 3 * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return


def view(snapshot: Snapshot, hint: str = "") -> RenderableType:
    """The whole picture, for a terminal."""
    from rich.console import Group as Lines
    from rich.text import Text

    def clock(when: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))

    title = Text.assemble(
        ("calls of the last ", "dim"),
        (f"{snapshot.minutes:g} minutes", "bold"),
        (f", {visible(snapshot.file)}, {clock(snapshot.now)}", "dim"),
        (f"    {hint}" if hint else "", "dim"),
    )
    parts: list[RenderableType] = [title, Text()]
    if snapshot.lost:
        parts.append(Text(f"{snapshot.lost:,} calls could not be written and are missing", style="bold red"))
    if not snapshot.all.calls:
        newest = "" if snapshot.newest is None else f"; the newest one began {clock(snapshot.newest)}"
        parts.append(Text(f"no call in this time{newest}", style="dim"))
    else:
        parts += [_head(snapshot), Text(), _sparks(snapshot), Text(), _groups(snapshot.by_model, "model")]
        if any(group.prompt or group.arm for group in snapshot.by_prompt):
            parts += [Text(), _groups(snapshot.by_prompt[:MOST_ROWS], "prompt")]
            if len(snapshot.by_prompt) > MOST_ROWS:
                parts.append(Text(f"and {len(snapshot.by_prompt) - MOST_ROWS} more (--html)", style="dim"))
        if snapshot.errors:
            kinds = "   ".join(f"{visible(kind)} {number:,}" for kind, number in snapshot.errors.items())
            parts += [Text(), Text.assemble(("errors   ", "dim"), kinds)]
    parts += [Text(), *_alerts(snapshot)]
    return Lines(*parts)


def _head(snapshot: Snapshot) -> Table:
    from rich.table import Table

    from glasshouse.llm.monitoring import show

    f = snapshot.all
    cells = [
        ("calls", show.count(f.calls)),
        ("a minute", show.count(f.calls_per_minute)),
        ("p50", show.seconds(f.seconds_p50)),
        ("p95", show.seconds(f.seconds_p95)),
        ("first token", show.seconds(f.first_token_p50)),
        ("tokens", show.count(f.prompt_tokens + f.new_tokens)),
        ("cost", show.dollars(f.cost) + ("+?" if f.unpriced and f.cost is not None else "")),
        ("errors", show.share(f.error_rate)),
        ("refusals", show.share(f.refusal_rate)),
        ("invalid", show.share(f.validation_failure_rate)),
        ("cache hits", show.share(f.cache_hit_rate)),
        ("quality", show.quality(f.quality, f.quality_standing)),
    ]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, _ in cells:
        table.add_column(name)
    table.add_row(*(value for _, value in cells), style="bold")
    return table


def _sparks(snapshot: Snapshot) -> Table:
    from rich.table import Table

    from glasshouse.llm.monitoring import show

    series = snapshot.series
    table = Table.grid(padding=(0, 2))
    for name, values, shown in (
        ("calls a minute", series.calls_per_minute, show.count),
        ("latency p95", series.seconds_p95, show.seconds),
        ("cost a minute", series.cost_per_minute, show.dollars),
        ("errors", series.errors, show.count),
    ):
        known = [value for value in values if value is not None]
        if known and max(known) > 0:
            table.add_row(
                f"[dim]{name}[/]", f"[cyan]{sparkline(values)}[/]", f"[dim]up to {shown(max(known))}[/]"
            )
    return table


def sparkline(values: tuple[float | None, ...] | tuple[int, ...]) -> str:
    """One sign a value, from 0 to the largest; a blank for None.

    >>> sparkline((0, 1, None, 8))
    '▁▂ █'
    """
    most = max((value for value in values if value is not None), default=0) or 1
    return "".join(
        " " if value is None else BARS[min(len(BARS) - 1, int(len(BARS) * value / most))] for value in values
    )


def _groups(groups: tuple[Group, ...], kind: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    names = ("model",) if kind == "model" else ("prompt", "version", "arm", "model")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in ("calls", "p50", "p95", "first token", "tokens", "cost", "errors", "refusals", "cache hits"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("quality", justify="right")
    for group in groups:
        about = [Text(visible(getattr(group, name)) or "–") for name in names]
        table.add_row(*about, *_cells(group.figures))
    return table


def _cells(f: Figures) -> list[str]:
    from glasshouse.llm.monitoring import show

    return [
        show.count(f.calls),
        show.seconds(f.seconds_p50),
        show.seconds(f.seconds_p95),
        show.seconds(f.first_token_p50),
        show.count(f.prompt_tokens + f.new_tokens),
        show.dollars(f.cost),
        show.share(f.error_rate),
        show.share(f.refusal_rate),
        show.share(f.cache_hit_rate),
        show.quality(f.quality, f.quality_standing),
    ]


def _alerts(snapshot: Snapshot) -> list[RenderableType]:
    from rich.text import Text

    on = [alert for alert in snapshot.alerts if alert.ended is None]
    if not on:
        return [Text("no alert is on", style="green")]
    return [
        Text.assemble((f"{alert.name}  ", "bold red"), visible(alert.sentence), overflow="fold")
        for alert in on
    ]
