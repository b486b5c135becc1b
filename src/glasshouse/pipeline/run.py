"""Run a recipe: every step that is not there yet, in a folder that the same command can continue."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glasshouse.core.devices import machine, pick
from glasshouse.core.errors import GlasshouseError, InterruptedRunError, StorageError
from glasshouse.core.memory import release_freed_memory
from glasshouse.core.model_folders import model_folder, resolve_model
from glasshouse.core.progress import say
from glasshouse.core.record import Record, hash_files, now, write_record
from glasshouse.core.storage import read_json, write_json, write_text
from glasshouse.pipeline.plan import Step, plan, up_to
from glasshouse.pipeline.recipe import Recipe, load_recipe
from glasshouse.pipeline.run_folder import PREVIOUS, RunFolder
from glasshouse.pipeline.stages.evaluate import PROBES, SAMPLES
from glasshouse.pipeline.summary import MODEL_ORDER, RECIPE, read_metrics, show_count, show_duration
from glasshouse.pipeline.work import Work

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel

__all__ = ["DEFAULT_RECIPE", "Run", "load", "resolve_model", "run", "run_recipe"]

DEFAULT_RECIPE = "pocket"


@dataclass(frozen=True)
class Run:
    """A run folder that has been worked on."""

    path: Path

    @property
    def stages(self) -> dict[str, Record]:
        """Finished stages and evaluations by name, with what each recorded."""
        records = RunFolder(self.path).records()
        return {name: record for name, record in records.items() if record.finished is not None}

    def model(self, stage: str | None = None) -> LanguageModel:
        """The model that a stage left; without a name the newest."""
        return load(model_folder(self.path, stage))


def load(name: str | Path | None = None, device: str = "auto") -> LanguageModel:
    """Open a model: a run folder (its newest stage), a Hugging Face folder, or by default the newest run.

    Raises UsageError when there is none, ModelError when the folder is broken.
    """
    from glasshouse.inference import LanguageModel

    return LanguageModel.load(resolve_model(name), device=device)


def run(
    recipe: str | Path = DEFAULT_RECIPE,
    *,
    out: str | Path | None = None,
    data: Iterable[str] = (),
    overrides: Iterable[str] | Mapping[str, Any] = (),
    until: str | None = None,
    fresh: bool = False,
    device: str | None = None,
) -> Run:
    """Grow what a recipe describes; finished stages are skipped, begun ones continue.

    Raises ConfigError or DataError before anything is written when the recipe is wrong or a file absent,
    StorageError when the disk is full or the folder in use, InterruptedRunError on Ctrl-C.

    >>> run("pocket-mini", out="runs/seven", overrides={"seed": 7}).model().generate("Once")
    """
    resolved = load_recipe(recipe, data=data, overrides=overrides, device=device)
    return run_recipe(resolved, out=out, until=until, fresh=fresh)


def run_recipe(
    recipe: Recipe, *, out: str | Path | None = None, until: str | None = None, fresh: bool = False
) -> Run:
    """`run` with a recipe in hand."""
    pick(recipe.device)  # refuses a device that is not there before any work is done
    steps = plan(recipe)
    todo = up_to(steps, recipe, until)
    folder = RunFolder(Path("runs") / recipe.name if out is None else out)
    with folder.locked():
        _prepare(folder, recipe, steps, fresh)
        work = Work(recipe, folder)
        for step in todo:
            _ensure(step, work, reuse=not fresh)
            if step.evaluates is not None:
                collect_evaluations(folder)
        if recipe.report is not None and until in (None, "report"):
            from glasshouse.pipeline.stages.report import report

            report(recipe.report, folder.path)
    return Run(folder.path)


def _prepare(folder: RunFolder, recipe: Recipe, steps: list[Step], fresh: bool) -> None:
    """Make the folder hold nothing that this recipe would not make, and write the recipe down."""
    if fresh:
        folder.clear()
    _sweep(folder.path)
    moved = folder.keep_only({step.name: step.key for step in steps})
    if moved:
        kept = folder.path / PREVIOUS
        say(f"changed since the last run: {', '.join(moved)}; the earlier results are kept in {kept}")
    collect_evaluations(folder)
    here = machine()
    versions = {name: here[name] for name in ("glasshouse", "torch", "python")}
    write_text(folder.path / RECIPE, recipe.to_yaml(versions))


def _ensure(step: Step, work: Work, *, reuse: bool) -> None:
    """Leave the step finished: already there, taken from elsewhere, or worked out."""
    folder, out = work.folder, work.folder.stage(step.name)
    record = folder.record(step.name)
    if record is None and reuse and (source := folder.take(step.name, step.key)):
        say(f"{step.name}: reused from {source}")
        record = folder.record(step.name)
    if record is None or record.finished is None:
        _sweep(out)
        record = record or _begin(step, out)
    if record.finished is not None:
        missing = [file for file in record.files if not (out / file).is_file()]
        if missing:
            raise StorageError(
                "a file of a finished stage is missing",
                where=out / missing[0],
                fix=f"delete {out} to redo it",
            )
        return
    before, start = _seconds_so_far(out), time.perf_counter()
    try:
        results = work.do(step, out)
    except (KeyboardInterrupt, InterruptedRunError) as stop:
        what = stop.what if isinstance(stop, InterruptedRunError) else "stopped"
        raise InterruptedRunError(
            f"{step.name}: {what}", where=folder.path, fix="the same command continues"
        ) from None
    except OSError as error:
        if isinstance(error, GlasshouseError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fix = "free some space and run the same command again; finished work is kept"
        raise StorageError("no space left on the disk", where=out, fix=fix) from error
    duration = before + time.perf_counter() - start
    rate = work.recipe.rate_per_hour
    done = {
        "duration_seconds": round(duration, 3),
        "tokens": results.get("tokens"),
        "flops": results.get("flops"),
        "peak_flops_per_second": work.peak(out) if results.get("flops") else None,
        "cost": None if rate is None else duration / 3600 * rate,
        "results": results,
        "files": hash_files(out),
        "finished": now(),
    }
    write_record(out, record.model_copy(update=done))
    release_freed_memory()
    say(f"{step.name}: {_news(results)}{show_duration(duration)}")


def _begin(step: Step, out: Path) -> Record:
    """Write the record of a step that begins; refuses a folder that something else made."""
    if out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise StorageError(
            "this folder is in the way: no stage of a run made it",
            where=out,
            fix="choose another one with --out",
        )
    record = Record(
        stage=step.name,
        key=step.key,
        config=step.config,
        inputs=step.inputs,
        user_files=step.user_files,
        seed=step.seed,
        started=now(),
        machine=machine(),
    )
    write_record(out, record)
    return record


def _sweep(out: Path) -> None:
    """Remove the half-written files of a process that was killed here."""
    for leftover in out.glob(".*.tmp"):
        if leftover.is_file():
            leftover.unlink(missing_ok=True)


def _seconds_so_far(out: Path) -> float:
    """Time that an interrupted stage had worked, as far as its metrics tell."""
    rows = read_metrics(out / "metrics.jsonl") if (out / "metrics.jsonl").is_file() else []
    return rows[-1]["seconds"] if rows else 0.0


def _news(results: dict[str, Any]) -> str:
    """What a finished stage made, in a few words."""
    parts = []
    if "train" in results:
        parts.append(f"{results['train']['documents']:,} documents")
        parts.append(f"{show_count(results['train']['bytes'])}B of text")
    if "vocab_size" in results:
        parts.append(f"{results['vocab_size']:,} tokens in the vocabulary")
    for name in ("conversations", "documents", "held_out"):
        if results.get(name):
            parts.append(f"{results[name]:,} {name.replace('_', ' ')}")
    if "new" in results:
        parts.append(f"window {results['old']:,} to {results['new']:,} tokens")
    if "steps" in results:
        parts.append(f"{results['steps']:,} steps")
        loss = results["last"].get("val_loss", results["last"].get("loss"))
        parts.append(f"loss {loss:.3f}")
    return ", ".join([*parts, ""])


def collect_evaluations(folder: RunFolder) -> None:
    """Write evaluation/<model>.json and evaluation/samples.json from the finished evaluations."""
    out = folder.path / "evaluation"
    found: dict[str, Path] = {}
    samples = {}
    for model in (*MODEL_ORDER, "baselines"):
        record = folder.record(f"evaluation/{model}")
        if record is None or record.finished is None:
            continue
        if model == "baselines":
            found.update({name.removesuffix(".json"): out / model / name for name in record.files})
        else:
            found[model] = out / model / PROBES
            samples[model] = read_json(out / model / SAMPLES)
    for stale in out.glob("*.json"):
        if stale.stem not in found:
            stale.unlink()
    for model, probes in found.items():
        write_json(out / f"{model}.json", read_json(probes))
    if samples:
        write_json(out / "samples.json", samples)
