"""The folder in which corrections live, with the calibration that was fitted on them."""

from __future__ import annotations

from pathlib import Path

from glasshouse.core.errors import UsageError
from glasshouse.core.storage import hash_file, hash_json
from glasshouse.documents.calibrator import Calibrator
from glasshouse.documents.learning.corrections import Corrections

FILE = "corrections.sqlite"
CALIBRATION = "calibration.json"


def opened(folder: str | Path) -> tuple[Corrections, Calibrator | None]:
    """The store and its calibration, if it has one. Raises UsageError where there is no store."""
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise UsageError(
            "there are no corrections in this folder",
            where=folder,
            fix="make some with: glasshouse documents correct results.jsonl",
        )
    calibration = folder / CALIBRATION
    return Corrections(folder / FILE), Calibrator.load(calibration) if calibration.is_file() else None


def state(folder: str | Path) -> str:
    """Changes where a correction or the calibration does: results made with another state are others."""
    folder = Path(folder)
    corrections, calibration = opened(folder)
    entries = [entry.model_dump(mode="json", by_alias=True) for entry in corrections.newest()]
    corrections.close()
    return hash_json([entries, None if calibration is None else hash_file(folder / CALIBRATION)])
