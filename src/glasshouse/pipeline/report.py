"""report.html: one self-contained file that shows what every stage of a run did."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from glasshouse.core.record import Record
from glasshouse.core.storage import write_text
from glasshouse.pipeline.calibration_curves import calibration_svgs
from glasshouse.pipeline.curves import Curve, loss_svg, reward_svg
from glasshouse.pipeline.expert_map import expert_map
from glasshouse.pipeline.summary import (
    BASELINES,
    CALIBRATION_FIGURES,
    RECIPE,
    WINDOW_MODELS,
    Summary,
    probe_names,
    show_count,
    show_duration,
    show_value,
)

FILE = "report.html"
REWARDED = ("grpo", "ppo", "constitution")


def write_report(run: str | Path, *, curves: bool = True) -> Path:
    """Write RUN/report.html from what the stages left; returns its path. Reads no model."""
    from glasshouse.evaluation import LOWER_IS_BETTER

    summary = Summary.read(run)
    drawn, rewarded = {}, []
    if curves:
        rewarded = [_rewarded(summary, stage) for stage in summary.metrics if stage in REWARDED]
        for stage, rows in summary.metrics.items():
            drawn[stage] = loss_svg([Curve(stage, rows)], f"Loss of {stage}")
    page = render(
        "report.html.jinja",
        run=summary,
        curves=drawn,
        rewarded=rewarded,
        experts=_experts(summary),
        honesty=calibration_svgs(summary.calibration) if curves else {},
        probes=[(name, _bars(summary, name)) for name in probe_names(summary)],
        prompts=_prompts(summary),
        work=[_work(name, record, summary.cost(record)) for name, record in summary.records.items()],
        head=_head(summary),
        corpus=_corpus(summary),
        machine=next((r.machine for r in reversed(summary.records.values()) if r.machine), {}),
        recipe=(summary.path / RECIPE).read_text(encoding="utf-8"),
        baselines=BASELINES,
        window_models=WINDOW_MODELS,
        calibration_figures=CALIBRATION_FIGURES,
        lower_is_better=LOWER_IS_BETTER,
    )
    path = summary.path / FILE
    write_text(path, page)
    return path


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; every value is escaped unless the template says it is HTML."""
    return _environment().get_template(template).render(css=_text("page.css"), **values)


@cache
def _environment() -> Any:
    from jinja2 import DictLoader, Environment, StrictUndefined

    names = ("report.html.jinja", "compare.html.jinja", "parts.jinja")
    environment = Environment(
        loader=DictLoader({name: _text(name) for name in names}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=show_count, duration=show_duration, probe=show_value)
    return environment


def _text(name: str) -> str:
    return (resources.files("glasshouse.pipeline") / name).read_text(encoding="utf-8")


def _head(summary: Summary) -> list[tuple[str, str]]:
    """The figures on top: name and value."""
    records = summary.records
    trained = [record for record in records.values() if record.flops]
    figures = []
    if trained:
        figures.append(("parameters", show_count(trained[-1].results.get("parameters"))))
        figures.append(("tokens trained on", show_count(sum(record.tokens or 0 for record in trained))))
        figures.append(("FLOPs", show_count(sum(record.flops or 0 for record in trained))))
    durations = [
        record.duration_seconds for record in records.values() if record.duration_seconds is not None
    ]
    figures.append(("time", show_duration(sum(durations)) if durations else "–"))
    figures.append(("cost", show_cost(_sum_known([summary.cost(record) for record in records.values()]))))
    return figures


def _sum_known(values: list[float | None]) -> float | None:
    """The sum, or None as soon as one part is unknown."""
    return None if not values or None in values else sum(value for value in values if value is not None)


def show_cost(cost: float | None) -> str:
    return "–" if cost is None else f"{cost:.4f}" if cost < 1 else f"{cost:,.2f}"


def _bars(summary: Summary, probe: str) -> list[dict[str, Any]]:
    """For each model: the value, and where its bar and interval lie, in percent of the row's scale."""
    found = {model: summary.probes[model].get(probe) for model in summary.models}
    known = [p for p in found.values() if p is not None and p.get("value") is not None]
    ends = [p[k] for p in known for k in ("value", "low", "high") if p.get(k) is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    bars = []
    for model, p in found.items():
        bar: dict[str, Any] = {"model": model, "text": show_value(p), "n": p.get("n") if p else None}
        if p is not None and p.get("value") is not None:
            zero, end = place(0.0), place(p["value"])
            bar.update(left=min(zero, end), width=round(abs(end - zero), 2), at=end)
            if p.get("low") is not None and p.get("high") is not None:
                bar.update(low=place(p["low"]), span=round(place(p["high"]) - place(p["low"]), 2))
        bars.append(bar)
    return bars


def _experts(summary: Summary) -> list[dict[str, Any]]:
    """One row for each mixture of experts, the newest first: its picture, and its most and least loaded."""
    rows = []
    for model, load in reversed(summary.experts.items()):
        domains, count = load["domains"], load["experts"]
        if not domains:
            continue
        tokens = sum(domain["tokens"] for domain in domains.values())
        overall = [  # of each layer and expert, domains weighted alike
            sum(shares) / len(domains) * count
            for layer in zip(*(domain["shares"] for domain in domains.values()), strict=True)
            for shares in zip(*layer, strict=True)
        ]
        picture = expert_map(load, f"Experts of {model}")
        rows.append(
            {
                "model": model,
                "picture": picture,
                "tokens": tokens,
                "most": max(overall),
                "least": min(overall),
                "experts": count,
                "chosen": load["experts_per_token"],
            }
        )
    return rows


def _rewarded(summary: Summary, stage: str) -> dict[str, Any]:
    """A stage that learns from rewards: its picture, what its last steps say, and its alarms."""
    rows = summary.metrics[stage]
    return {
        "stage": stage,
        "picture": reward_svg(rows, f"Rewards of {stage}"),
        "last": rows[-1] if rows else {},
        "alarms": summary.records[stage].results.get("alarms", []),
    }


def _prompts(summary: Summary) -> list[dict[str, Any]]:
    """Each fixed prompt with every model's reply."""
    prompts: dict[str, dict[str, Any]] = {}
    for model, samples in summary.samples.items():
        for sample in samples:
            prompt = prompts.setdefault(sample["name"], {**sample, "replies": {}})
            prompt["replies"][model] = sample["reply"]
    for prompt in prompts.values():
        asked = prompt["prompt"]
        prompt["messages"] = [{"role": "text", "content": asked}] if isinstance(asked, str) else asked
    return list(prompts.values())


def _work(name: str, record: Record, cost: float | None) -> dict[str, Any]:
    """One row of the table of work."""
    seconds = record.results.get("seconds") or record.duration_seconds
    speed = record.tokens / seconds if record.tokens and seconds else None
    rate = record.flops / seconds if record.flops and seconds else None
    peak = record.peak_flops_per_second
    return {
        "name": name,
        "record": record,
        "tokens_per_second": show_count(speed),
        "flops_per_second": show_count(rate),
        "share": "–" if rate is None or not peak else f"{rate / peak:.0%}",
        "peak": show_count(peak),
        "cost": show_cost(cost),
        "finished": _minute(record.finished),
    }


def _minute(moment: str | None) -> str | None:
    return moment and datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC")


def _corpus(summary: Summary) -> list[dict[str, Any]]:
    """One row for each source of the corpus, the largest first, with its share of the text."""
    if not summary.statistics:
        return []
    train, held_out = summary.statistics["train"], summary.statistics["validation"]
    rows = []
    for source, counts in train["sources"].items():
        rows.append(
            {
                "source": source or "–",
                **counts,
                "share": counts["bytes"] / train["bytes"],
                "tokens": summary.tokens_by_source.get(source),
                "held_out": held_out["sources"].get(source, {}).get("documents"),
            }
        )
    return rows
