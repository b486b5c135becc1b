"""What a run folder tells, read back for its report, for comparisons and for the table at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glasshouse.core.config import load_yaml
from glasshouse.core.errors import DataError, UsageError
from glasshouse.core.model_folders import MODEL_STAGES, TRAINING_STAGES
from glasshouse.core.record import Record
from glasshouse.core.storage import read_json
from glasshouse.pipeline.run_folder import RunFolder

RECIPE = "recipe.yaml"
MODEL_ORDER = ("init", "base", *MODEL_STAGES)
WINDOW_MODELS = ("before", "stretched", "after_in_old_windows", "after")
"""What a context stage scores by position; see its `measure`."""
BASELINES = ("nearest_neighbour", "n_gram")
CALIBRATION_FIGURES = {
    "simpleqa_score": "score at t = 0.75",
    "ece": "calibration error of what it states",
    "brier_skill": "Brier skill of what it states",
    "bias_gap": "stated minus right",
    "token_ece": "calibration error of token probabilities",
    "token_brier_skill": "their Brier skill",
    "scaled_ece": "calibration error, temperature scaled",
    "scaled_brier_skill": "Brier skill, temperature scaled",
}
"""What is shown of `calibrate`, before and after; see `alignment.calibration_quality.quality`."""

Probes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Summary:
    """Everything is read when asked for; what a run does not have is an empty dict or list."""

    path: Path

    @classmethod
    def read(cls, path: str | Path) -> Summary:
        """Raises UsageError where there is no run."""
        path = Path(path)
        if not (path / RECIPE).is_file():
            raise UsageError(
                "this is not a run folder: it has no recipe.yaml",
                where=path,
                fix="name one, such as runs/pocket",
            )
        return cls(path)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        return load_yaml(self.path / RECIPE)

    @cached_property
    def records(self) -> dict[str, Record]:
        """Every stage and evaluation by its folder's name, in the order of the pipeline."""
        found = RunFolder(self.path).records()
        order = ["corpus", "tokenizer", *TRAINING_STAGES]
        order += [f"evaluation/{model}" for model in (*MODEL_ORDER, "baselines")]
        return {name: found[name] for name in order if name in found}

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of metrics.jsonl of each training stage."""
        found = {}
        for name in self.records:
            path = self.path / name / "metrics.jsonl"
            if path.is_file():
                found[name] = read_metrics(path)
        return found

    @cached_property
    def probes(self) -> dict[str, Probes]:
        """Model ("init", "pretrain", ...) -> probe -> {"value", "low", "high", "n"}."""
        return {model: read_json(self.path / "evaluation" / f"{model}.json") for model in self.models}

    @cached_property
    def models(self) -> list[str]:
        """Evaluated models in order, the baselines last."""
        folder = self.path / "evaluation"
        return [model for model in (*MODEL_ORDER, *BASELINES) if (folder / f"{model}.json").is_file()]

    @cached_property
    def samples(self) -> dict[str, list[dict[str, Any]]]:
        """Model -> the fixed prompts with its replies."""
        path = self.path / "evaluation" / "samples.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def experts(self) -> dict[str, dict[str, Any]]:
        """Model -> the load of its experts, by layer and domain; only for mixtures of experts."""
        paths = {model: self.path / "evaluation" / model / "experts.json" for model in self.models}
        return {model: read_json(path) for model, path in paths.items() if path.is_file()}

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """Of the corpus: {"train": {"documents", "bytes", "words", "sources"}, "validation": ...}."""
        path = self.path / "corpus" / "statistics.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def windows(self) -> dict[str, Any]:
        """Of a context stage: both windows, and bits per byte by position; see its `measure`."""
        path = self.path / "context" / "windows.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def reward_quality(self) -> dict[str, Any]:
        """Of a reward model on held-out pairs; see `alignment.reward_quality.judge`."""
        path = self.path / "reward" / "held_out.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def raters(self) -> dict[str, Any]:
        """Of a reward model against the world's raters; see `alignment.rater_agreement`."""
        path = self.path / "reward" / "raters.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def calibration(self) -> dict[str, Any]:
        """Of a model before and after `calibrate`; see `alignment.calibration_quality.quality`."""
        path = self.path / "calibrate" / "held_out.json"
        return read_json(path) if path.is_file() else {}

    def cost(self, record: Record) -> float | None:
        """What a stage cost: as it recorded, else by the rate that the recipe has now, else unknown."""
        rate, seconds = self.recipe.get("rate_per_hour"), record.duration_seconds
        if record.cost is not None or rate is None or seconds is None:
            return record.cost
        return rate * seconds / 3600

    @cached_property
    def tokens_by_source(self) -> dict[str, int]:
        """Tokens of the training part by source, as pre-training counted them."""
        index = self.path / "pretrain" / "shards" / "train" / "index.json"
        sources = read_json(index)["sources"] if index.is_file() else {}
        return {name: counts["tokens"] for name, counts in sources.items()}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that is still being written is left out."""
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise DataError(f"row {number} is not JSON", where=path, fix="run the stage again") from None
    return rows


def probe_names(*summaries: Summary) -> list[str]:
    """Names of all probes in these runs, in the order in which they were first asked."""
    names: dict[str, None] = {}
    for summary in summaries:
        for probes in summary.probes.values():
            names.update(dict.fromkeys(probes))
    return list(names)


def show_value(probe: dict[str, Any] | None) -> str:
    """A probe's value with its 95% interval: "0.912 [0.88, 0.94]"; "–" where it was not measured."""
    if probe is None or probe.get("value") is None:
        return "–"
    value, low, high = probe["value"], probe.get("low"), probe.get("high")
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.2f}, {high:.2f}]"


def show_duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def show_count(number: float | None) -> str:
    """1234567 -> "1.23M"; "–" for an unknown number."""
    if number is None:
        return "–"
    for limit, suffix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.3g}"
