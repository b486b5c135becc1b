"""The main promise: `glasshouse run pocket` on seeds never used while tuning, held to the lower bounds.

Seeds come from GLASSHOUSE_ACCEPT_SEEDS (`make accept SEEDS="..."`). Results are written to
benchmarks/results/pocket-<seed>.json. Time is recorded, never asserted.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path

import pytest

from glasshouse.core.devices import machine

pytestmark = pytest.mark.accept

RESULTS = Path(__file__).parents[2] / "benchmarks/results"

# probe -> (end of the interval that counts, bound)
PROMISES = {
    "heldout_fact_extraction": ("low", 0.90),
    "unknown_abstention": ("low", 0.90),
    "false_abstention": ("high", 0.05),
    "instruction_following": ("low", 0.90),
    "few_shot_gain": ("low", 0.0),
    "induction_score": ("low", 0.0),
}


def commit() -> str:
    line = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


@pytest.fixture(scope="module")
def run(pocket) -> dict:
    """One whole run; its probes after each stage, time and memory."""
    out = pocket.path
    result = {
        "seed": pocket.seed,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "seconds": pocket.seconds,
        "peak_memory_gib": pocket.peak_memory_gib,
        "stages": {
            stage: json.loads((out / stage / "stage.json").read_text())["duration_seconds"]
            for stage in ("corpus", "tokenizer", "pretrain", "sft")
        },
        "probes": {
            name: json.loads((out / f"evaluation/{name}.json").read_text())
            for name in ("init", "pretrain", "sft")
        },
        "baselines": {
            name: json.loads((out / f"evaluation/{name}.json").read_text())
            for name in ("nearest_neighbour", "n_gram")
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"pocket-{pocket.seed}.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


@pytest.mark.parametrize("probe", list(PROMISES))
def test_the_assistant_keeps_its_promise(run, probe):
    """After fine-tuning, the unfavourable end of the 95% interval stands on the right side of the bound."""
    end, bound = PROMISES[probe]
    after = run["probes"]["sft"][probe]
    assert after[end] <= bound if end == "high" else after[end] >= bound, after
    if probe in (
        "heldout_fact_extraction",
        "unknown_abstention",
        "false_abstention",
        "instruction_following",
    ):
        assert after["n"] >= 500


@pytest.mark.parametrize("probe", ["heldout_fact_extraction", "unknown_abstention", "instruction_following"])
def test_the_stage_made_the_difference(run, probe):
    """Far above the same probe before the stage, and above both baselines."""
    after = run["probes"]["sft"][probe]["low"]
    assert run["probes"]["pretrain"][probe]["high"] < after - 0.3
    for baseline in run["baselines"].values():
        assert baseline[probe]["high"] < after
        if probe == "heldout_fact_extraction":
            assert baseline[probe]["value"] <= 0.3


def test_pretraining_taught_the_looking_back(run):
    """Few-shot gain and induction come from pre-training: none before, some after, and they survive."""
    for probe in ("few_shot_gain", "induction_score"):
        before, after = (run["probes"][stage][probe] for stage in ("init", "sft"))
        assert before["high"] < after["low"]


def test_it_fits_in_four_gibibytes(run):
    assert run["peak_memory_gib"] <= 4
