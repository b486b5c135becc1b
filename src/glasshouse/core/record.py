"""`stage.json`: what a stage was, what it took and what it left, so that anybody can check it later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from glasshouse.core.errors import DataError
from glasshouse.core.storage import hash_file, hash_json, read_json, write_json

FORMAT = 1
"""Enters every key: raised when a stage's code starts to make something else from the same settings."""

FILE = "stage.json"


class Record(BaseModel):
    """One stage. `finished` is None while the work goes on; unknown numbers are None, never 0."""

    model_config = ConfigDict(extra="ignore")

    stage: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, str]  # input stage -> its key
    user_files: dict[str, str] = {}  # name of a path the user gave -> hash of its content
    seed: int
    format: int = FORMAT
    started: str
    finished: str | None = None
    duration_seconds: float | None = None
    tokens: int | None = None
    flops: float | None = None
    peak_flops_per_second: float | None = None  # of this machine, measured; see core.devices.peak_flops
    cost: float | None = None  # duration times the recipe's rate_per_hour; None without a rate
    machine: dict[str, Any] = {}
    reused_from: str | None = None
    results: dict[str, Any] = {}  # what the stage itself reports: counts, notices, the last losses
    files: dict[str, str] = {}  # relative name -> hash, every file the stage left

    def expected_key(self) -> str:
        """The key that follows from what the record says."""
        return stage_key(self.stage, self.config, self.inputs, self.user_files, self.seed, self.format)


def stage_key(
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    user_files: Mapping[str, str],
    seed: int,
    format: int = FORMAT,
) -> str:
    """The name under which a stage's result is shared: equal keys mean the same work on the same input.

    The *content* of the user's files counts, not where they lie.
    """
    return hash_json(
        {
            "stage": stage,
            "config": dict(config),
            "inputs": dict(inputs),
            "user_files": sorted(user_files.values()),
            "seed": seed,
            "format": format,
        }
    )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_record(folder: Path) -> Record | None:
    """The record of a stage folder; None when there is none or it cannot be understood."""
    try:
        return Record.model_validate(read_json(folder / FILE))
    except (DataError, ValidationError):
        return None


def write_record(folder: Path, record: Record) -> None:
    write_json(folder / FILE, record.model_dump())


def hash_files(folder: Path) -> dict[str, str]:
    """Hash of every file below `folder` but stage.json and hidden or temporary ones."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder) for path in found]
    return {
        name.as_posix(): hash_file(folder / name)
        for name in names
        if name.as_posix() != FILE and not any(part.startswith(".") for part in name.parts)
    }
