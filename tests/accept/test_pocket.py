"""The main promise: `glasshouse run pocket` on seeds never used while tuning, held to the lower bounds.

Seeds come from GLASSHOUSE_ACCEPT_SEEDS (`make accept SEEDS="..."`). Results are written to
benchmarks/results/pocket-<seed>.json. Time is recorded, never asserted.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glasshouse.core.devices import machine

pytestmark = pytest.mark.accept

SEEDS = os.environ.get("GLASSHOUSE_ACCEPT_SEEDS", "2027 4099").split()
RESULTS = Path(__file__).parents[2] / "benchmarks/results"
GIB = 2**30

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


@pytest.fixture(scope="module", params=SEEDS)
def run(request, tmp_path_factory) -> dict:
    """One whole run; its probes after each stage, time and memory."""
    out = tmp_path_factory.mktemp("accept") / "pocket"
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    threads = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}  # all cores, as a user has them
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, "run", "pocket", "--set", f"seed={request.param}", "--out", str(out)],
        env=threads,
        check=True,
    )
    result = {
        "seed": int(request.param),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / GIB, 2),
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
    (RESULTS / f"pocket-{request.param}.json").write_text(json.dumps(result, indent=2) + "\n")
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
