"""What a model of a run brings with it for documents: its domain, its calibration, its kind of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from glasshouse.core.model_folders import ANALYSIS_CALIBRATION
from glasshouse.documents.calibrator import Calibrator
from glasshouse.documents.familiarity import Familiar
from glasshouse.documents.probes import DOMAIN

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel


@dataclass(frozen=True)
class OwnModel:
    """A stage of a run, as runs/NAME/STAGE/model."""

    run: Path
    stage: str

    @classmethod
    def at(cls, folder: str | Path) -> OwnModel | None:
        """None for a model that is not of a run."""
        path = Path(folder)
        run = path.parent.parent
        return cls(run, path.parent.name) if (run / "recipe.yaml").is_file() else None

    @property
    def domain(self) -> str | None:
        """The domain that the model was taught: the invented world's, where it grew up in it."""
        recipe = yaml.safe_load((self.run / "recipe.yaml").read_text(encoding="utf-8"))
        return DOMAIN if isinstance(recipe, dict) and recipe.get("world") else None

    def calibration(self, name: str) -> Calibrator | None:
        """For the model under the name that it has now; None where the run measured none."""
        file = self.run / "evaluation" / self.stage / ANALYSIS_CALIBRATION
        if not file.is_file():
            return None
        calibrator = Calibrator.load(file)
        fitted = [
            each.model_copy(update={"setting": each.setting.model_copy(update={"model": name})})
            for each in calibrator.fitted
        ]
        return calibrator.model_copy(update={"fitted": tuple(fitted)})

    def familiar(self, model: LanguageModel) -> Familiar | None:
        """By the texts that the run held out; None where it kept none."""
        return Familiar.of_run(model, self.run)
