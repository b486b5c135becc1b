"""The document analyzer with the newest model of `pocket`: on unseen reports, with the run's own calibration.

The calibration was fitted by the run, on other reports; the figures here are of freshly drawn ones. Results
are written to benchmarks/results/analysis-<seed>.json.
"""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest
from tests.accept.test_pocket import RESULTS, commit

from glasshouse.core.devices import machine
from glasshouse.core.model_folders import model_folder
from glasshouse.documents import probes
from glasshouse.documents.own_model import OwnModel
from glasshouse.evaluation.confidence import expected_calibration_error
from glasshouse.inference import LanguageModel
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.world import World

pytestmark = pytest.mark.accept

REPORTS = 500


@pytest.fixture(scope="module")
def analysis(pocket) -> dict:
    folder = model_folder(pocket.path)
    recipe = load_recipe(pocket.path / "recipe.yaml")
    reads = probes.read_reports(
        World(recipe.world, recipe.seed), LanguageModel.load(folder), REPORTS, "accept"
    )
    calibration = OwnModel.at(folder).calibration(probes.NAME)
    said, right = [], []
    for read in reads:
        for field, row in zip(read.result.fields, read.labelled(), strict=True):
            said.append(calibration.confidence(field, row.setting))
            right.append(row.right)
    tasks = {task: [read.share_right for read in reads if read.result.task == task] for task in probes.ASKED}
    result = {
        "seed": pocket.seed,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "model": folder.parent.name,
        "reports": REPORTS,
        **{name: estimate.as_dict() for name, estimate in probes.scores(reads).items()},
        **{task: float(np.mean(shares)) for task, shares in tasks.items()},
        "calibrated_fields": len(said),
        "calibrated_ece": float(expected_calibration_error(np.array(said), np.array(right, float))),
    }
    RESULTS.joinpath(f"analysis-{pocket.seed}.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def test_fields_are_right(analysis):
    assert analysis["analysis_field_accuracy"]["value"] >= 0.90
    assert analysis["extraction"] >= 0.90
    assert analysis["classification"] >= 0.90


def test_every_reply_follows_its_schema_and_every_quote_is_verbatim(analysis):
    assert analysis["analysis_schema_validity"]["value"] == 1
    assert analysis["analysis_quotes_verbatim"]["value"] == 1


def test_confidence_comes_true(analysis):
    assert analysis["calibrated_ece"] <= 0.05
