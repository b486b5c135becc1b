"""Two runs side by side: which settings differ, and what the difference did to every probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glasshouse.core.storage import write_text
from glasshouse.pipeline.curves import Curve, loss_svg
from glasshouse.pipeline.report import render
from glasshouse.pipeline.summary import Summary, probe_names

ABSENT = "–"


@dataclass(frozen=True)
class Setting:
    key: str  # dotted, as --set takes it
    first: str
    second: str


@dataclass(frozen=True)
class ProbeRow:
    """One probe of one model in both runs; None where a run did not ask it."""

    model: str
    probe: str
    first: dict[str, Any] | None
    second: dict[str, Any] | None

    @property
    def difference(self) -> float | None:
        """The second run's value minus the first's."""
        if self.first is None or self.second is None:
            return None
        return self.second["value"] - self.first["value"]

    @property
    def apart(self) -> bool:
        """Whether both 95% intervals are known and do not overlap."""
        known = [run for run in (self.first, self.second) if run and None not in (run["low"], run["high"])]
        return len(known) == 2 and max(run["low"] for run in known) > min(run["high"] for run in known)

    @property
    def verdict(self) -> str:
        return "*" if self.apart else ""


@dataclass(frozen=True)
class Comparison:
    first: Summary
    second: Summary
    settings: list[Setting]
    probes: list[ProbeRow]

    @property
    def names(self) -> tuple[str, str]:
        """Short names of the two runs, different from each other."""
        first, second = self.first.path, self.second.path
        return (first.name, second.name) if first.name != second.name else (str(first), str(second))

    @property
    def same_models(self) -> list[str]:
        """Models whose probes are equal in both runs: what they share, or a change that changed nothing."""
        models = dict.fromkeys(row.model for row in self.probes)
        return [m for m in models if all(row.first == row.second for row in self.probes if row.model == m)]

    def as_json(self) -> dict[str, Any]:
        return {
            "first": str(self.first.path),
            "second": str(self.second.path),
            "settings": [asdict(setting) for setting in self.settings],
            "probes": [
                {**asdict(row), "difference": row.difference, "intervals_apart": row.apart}
                for row in self.probes
            ],
        }


def compare_runs(first: str | Path, second: str | Path) -> Comparison:
    """Raises UsageError when one of the two is not a run folder."""
    a, b = Summary.read(first), Summary.read(second)
    models = [*a.models, *(model for model in b.models if model not in a.models)]
    rows = [
        ProbeRow(model, probe, a.probes.get(model, {}).get(probe), b.probes.get(model, {}).get(probe))
        for model in models
        for probe in probe_names(a, b)
    ]
    asked = [row for row in rows if row.first is not None or row.second is not None]
    return Comparison(a, b, differing_settings(a.recipe, b.recipe), asked)


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Setting]:
    """Keys of two recipes whose values differ; a key or a whole section that one lacks shows as "–"."""
    lacking = {key for key in {*first, *second} if key not in first or key not in second}
    a, b = (_flat({k: "present" if k in lacking else v for k, v in r.items()}) for r in (first, second))
    keys = [*a, *(key for key in b if key not in a)]
    return [
        Setting(key, str(a.get(key, ABSENT)), str(b.get(key, ABSENT)))
        for key in keys
        if key != "name" and a.get(key, ABSENT) != b.get(key, ABSENT)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def write_comparison(comparison: Comparison, path: str | Path | None = None) -> Path:
    """Write the comparison as one self-contained HTML file, by default into the second run's folder."""
    first, second = comparison.names
    target = (
        comparison.second.path / f"compare-{comparison.first.path.name}.html" if path is None else Path(path)
    )
    stages = {**comparison.first.metrics, **comparison.second.metrics}
    curves = {
        stage: loss_svg(
            [
                Curve(first, comparison.first.metrics.get(stage, [])),
                Curve(second, comparison.second.metrics.get(stage, [])),
            ],
            f"Loss of {stage}",
        )
        for stage in stages
    }
    page = render(
        "compare.html.jinja",
        comparison=comparison,
        first=first,
        second=second,
        curves=curves,
        samples=_samples(comparison),
    )
    write_text(target, page)
    return target


def _samples(comparison: Comparison) -> list[dict[str, Any]]:
    """Replies to the same prompts that differ, of the models that both runs have."""
    differing = []
    for model, samples in comparison.first.samples.items():
        others = {sample["name"]: sample for sample in comparison.second.samples.get(model, [])}
        for sample in samples:
            other = others.get(sample["name"])
            if other is None or (other["prompt"] == sample["prompt"] and other["reply"] == sample["reply"]):
                continue
            differing.append(
                {
                    "model": model,
                    "name": sample["name"],
                    "same_prompt": other["prompt"] == sample["prompt"],
                    "first": _turns(sample),
                    "second": _turns(other),
                }
            )
    return differing


def _turns(sample: Mapping[str, Any]) -> dict[str, Any]:
    asked = sample["prompt"]
    messages = [{"role": "text", "content": asked}] if isinstance(asked, str) else asked
    return {"messages": messages, "reply": sample["reply"]}
