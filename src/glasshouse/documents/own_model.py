"""What a model of a run brings with it for documents: its domain, its calibration, its kind of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from glasshouse.core.errors import UsageError
from glasshouse.core.model_folders import ANALYSIS_CALIBRATION, resolve_model
from glasshouse.documents.calibrator import Calibrator
from glasshouse.documents.familiarity import Familiar
from glasshouse.documents.probes import DOMAIN
from glasshouse.llm.local import LocalLLM

if TYPE_CHECKING:
    from glasshouse.llm.interface import LLM


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

    @classmethod
    def named(cls, name: str | Path) -> OwnModel | None:
        """By the name that `open_llm` takes."""
        try:
            return cls.at(resolve_model(name))
        except UsageError:  # of another machine, or of no run
            return None

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

    def familiar(self, llm: LLM) -> Familiar | None:
        """By the texts that the run held out; None where it kept none, or where others run the model."""
        return Familiar.of_run(llm.model, self.run) if isinstance(llm, LocalLLM) else None
