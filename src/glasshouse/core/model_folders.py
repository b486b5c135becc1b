"""From the MODEL of a command line to a folder with weights and a tokenizer."""

from __future__ import annotations

from pathlib import Path

from glasshouse.core import hub
from glasshouse.core.config import nearest
from glasshouse.core.errors import UsageError
from glasshouse.core.record import read_record

RUNS = Path("runs")

MODEL_STAGES = (
    "pretrain",
    "context",
    "sft",
    "rejection",
    "dpo",
    "grpo",
    "ppo",
    "rounds",
    "constitution",
    "calibrate",
)
"""Stages that leave a model, in their order."""

TRAINING_STAGES = (*MODEL_STAGES[:3], "reward", *MODEL_STAGES[3:])
"""Those and the reward model, which judges replies and writes none."""

ANALYSIS_CALIBRATION = "analysis_calibration.json"
"""In evaluation/<stage>/ of a run: what its model's confidence about documents is worth."""

REMOTE = ("http://", "https://", "openai:", "anthropic:")


def resolve_model(name: str | Path | None = None) -> Path:
    """The folder that holds config.json and the weights, or a GGUF file.

    `name`: a run folder (then its newest stage's), one stage of it, a Hugging Face folder, a GGUF file or
    hf://ORG/NAME; by default the newest run. Raises UsageError when there is none.
    """
    if name is None:
        return _newest_run(RUNS)
    text, path = str(name), Path(name)
    if text.startswith(hub.PREFIX):
        return hub.download(text)
    if text.startswith(REMOTE):
        raise UsageError(
            "only models on this disk can be opened so far",
            where=text,
            fix="name a run folder or a Hugging Face model folder",
        )
    if (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file()):
        return path
    if (path / "model" / "config.json").is_file():  # the folder of one stage
        return path / "model"
    if _finished(path):
        return model_folder(path)
    if path.is_dir():
        raise UsageError(
            "no finished model is in this folder",
            where=path,
            fix="name a run folder or a Hugging Face model folder, or let its run go on",
        )
    close = nearest(text, [str(run) for run in _runs(RUNS)])
    raise UsageError(
        "no such model folder", where=text, fix=f"did you mean {close}?" if close else "check the path"
    )


def reward_folder(name: str) -> Path:
    """The folder of a reward model: a run's, a stage's or the model's own. Raises UsageError."""
    path = Path(name)
    for folder in (path / "reward" / "model", path / "model", path):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError("no reward model is in this folder", where=path, fix="name a run of `train reward`")


def model_folder(run: Path, stage: str | None = None) -> Path:
    """The model that a stage of a run left; by default its newest. Raises UsageError."""
    finished = _finished(run)
    if stage is not None and stage not in finished:
        have = ", ".join(finished) or "none"
        raise UsageError(f"this run has no finished stage '{stage}'", where=run, fix=f"it has: {have}")
    if not finished:
        raise UsageError("this run has no finished model", where=run, fix="let the run go on")
    return run / (stage or finished[-1]) / "model"


def _finished(run: Path) -> list[str]:
    """Stages of a run that left a model, in their order."""
    records = {stage: read_record(run / stage) for stage in MODEL_STAGES}
    return [stage for stage, record in records.items() if record is not None and record.finished is not None]


def _runs(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if _finished(path)] if folder.is_dir() else []


def _newest_run(folder: Path) -> Path:
    runs = _runs(folder)
    if not runs:
        raise UsageError(
            "there is no model yet", where=f"{folder}/", fix="grow one with: glasshouse run pocket"
        )
    return model_folder(max(runs, key=lambda run: (run / "recipe.yaml").stat().st_mtime))
