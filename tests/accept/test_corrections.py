"""From corrections to a promoted model: `pocket` reads reports, is corrected, learns, and is compared.

Whoever corrects is simulated, and keeps to a rule that the model was never taught: where people were on
strike, the outlook is poor, whatever the report hopes. Everything else is what a user types.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glasshouse.core.model_folders import model_folder
from glasshouse.documents import probes
from glasshouse.documents.learning.correction_store import FILE
from glasshouse.documents.learning.corrections import Corrections
from glasshouse.documents.quotes.check import check
from glasshouse.documents.quotes.search import Source
from glasshouse.files.document import Document
from glasshouse.inference import LanguageModel
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.world import World

pytestmark = pytest.mark.accept

REPORTS = 360


def glasshouse(*words: object) -> subprocess.CompletedProcess:
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def store(pocket, tmp_path_factory) -> Path:
    """What somebody says about each field of some reports."""
    recipe = load_recipe(pocket.path / "recipe.yaml")
    world, model = World(recipe.world, recipe.seed), LanguageModel.load(model_folder(pocket.path))
    folder = tmp_path_factory.mktemp("corrections") / "store"
    with Corrections(folder / FILE) as corrections:
        for read in probes.read_reports(world, model, REPORTS, "corrections"):
            if read.result.task != "extraction":
                continue
            document = Document.of_text(read.result.document, read.filing.text)
            strike = next((words for event, words in read.filing.events if event == "strike"), None)
            for field in read.result.fields:
                right, quote = read.truth[field.path]["value"], read.truth[field.path]["quote"]
                if field.path == "outlook" and strike is not None:
                    right, quote = "poor", strike
                found = None if quote is None else check(Source(document.text), document, quote)
                corrections.correct(document, read.result, field.path, right, who="simulated", quote=found)
    return folder


def trained(model: Path, store: Path, name: str, *, exchanged: bool = False) -> Path:
    """The model after it learned from the corrections; `exchanged`: each with the reply of another one."""
    data, out = store.parent / f"{name}.jsonl", store.parent / name
    exported = glasshouse("documents", "export", "--sft", data, "--model", model, "--store", store)
    assert exported.returncode == 0, exported.stderr
    if exchanged:
        rows = [json.loads(line) for line in data.read_text().splitlines()]
        replies = [row["messages"][-1] for row in rows]
        for row, reply in zip(rows, replies[1:] + replies[:1], strict=True):
            row["messages"][-1] = reply
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ("--set", "epochs=8", "--set", "batch_tokens=2048")
    learnt = glasshouse(
        "train", "sft", "--lora", 16, "--model", model, "--data", data, "--out", out, *settings
    )
    assert learnt.returncode == 0, learnt.stderr
    return out


def promotion(before: Path, after: Path, store: Path) -> tuple[int, dict]:
    told = glasshouse("documents", "promote", before, after, "--store", store, "--json")
    return told.returncode, json.loads(told.stdout)


def test_what_was_corrected_is_learnt_and_promoted(pocket, store):
    code, decision = promotion(pocket.path, trained(pocket.path, store, "better"), store)
    assert code == 0, decision["reasons"]
    fresh = decision["held_out"]
    assert fresh["gained"] >= 10
    assert fresh["right_after"] > 0.98 * fresh["fields"]


def test_a_model_that_learnt_nonsense_is_refused(pocket, store):
    code, decision = promotion(pocket.path, trained(pocket.path, store, "worse", exchanged=True), store)
    assert code == 1
    assert not decision["promoted"]
