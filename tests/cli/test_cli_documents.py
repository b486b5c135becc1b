"""`glasshouse documents`: what people say about results is kept, and used."""

import io
import json
import shutil
import sys

import pytest
from tests.documents import folder_kills
from tests.llm.scripted_server import Reply, Wire

from glasshouse.documents.learning.corrections import Corrections
from glasshouse.files import read_examples, read_preferences


@pytest.fixture
def wire():
    wire = Wire()
    folder_kills.model(wire, seconds=0.0)
    yield wire
    wire.stop()


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory):
    """A folder with results.jsonl of twelve reports, all fields of which are to be looked at."""
    folder, wire = tmp_path_factory.mktemp("analyzed"), Wire()
    folder_kills.write_reports(folder / "reports", 12)
    folder_kills.model(wire, seconds=0.0)
    process = folder_kills.start(folder, wire, "--votes", "1", "--min-confidence", "0.5")
    error = process.communicate()[1]
    wire.stop()
    assert process.returncode == 0, error
    return folder


@pytest.fixture
def results(glasshouse, analyzed, tmp_path):
    shutil.copytree(analyzed, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def documents(glasshouse, results, monkeypatch):
    """documents("correct", ..., keys=["y"]): with these lines on its pipe."""

    def call(*arguments, keys=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{key}\n" for key in keys)))
        return glasshouse("documents", *arguments)

    return call


def kept(tmp_path):
    with Corrections(tmp_path / "corrections" / "corrections.sqlite") as corrections:
        return {(entry.document, entry.path): entry for entry in corrections.newest()}


def test_one_field_by_options(documents, tmp_path):
    line = ["correct", "results.jsonl", "--document", "3/report-0003.txt", "--field", "revenue"]
    result = documents(*line, "--value", "11", "--quote", "Revenue was $10 million", "--who", "Ada")
    assert result.code == 0, result.err
    (entry,) = kept(tmp_path).values()
    assert (entry.said.value, entry.right, entry.quote) == (10, 11, "Revenue was $10 million")
    assert (entry.who, entry.was_right, entry.schema_) == ("Ada", False, folder_kills.SCHEMA)


def test_the_review_list_one_after_the_other(documents, tmp_path):
    result = documents("correct", "results.jsonl", keys=["y", "e", "99", "", "n", "s", "q"])
    assert "3 judged now, 3 in all" in result.err
    rights = sorted(str(entry.right) for entry in kept(tmp_path).values())
    assert "99" in rights
    assert "None" in rights
    before = set(kept(tmp_path))
    result = documents("correct", "results.jsonl", keys=["y"] * 40)
    assert "24 in all" in result.err
    after = kept(tmp_path)
    assert len(after) == 24
    assert before < set(after), "what was judged is not asked again"
    result = documents("correct", "results.jsonl")
    assert "nothing is to be looked at" in result.err


def test_the_text_around_a_quote_is_shown(documents):
    result = documents("correct", "results.jsonl", "--document", "0/report-0000.txt", keys=["q"])
    assert "Report 0. Revenue was $7 million. The seat is in Ostby." in result.err


def test_regression_tests_pass_where_the_model_is_right_and_name_what_is_wrong(documents, wire):
    model = ["--model", f"{wire.url}/v1#m"]
    documents("correct", "results.jsonl", keys=["y"] * 40)
    result = documents("test", *model)
    assert result.code == 0, result.out
    assert "24 of 24 fields are right" in result.err
    line = ["correct", "results.jsonl", "--document", "3/report-0003.txt", "--field", "revenue"]
    documents(*line, "--value", "11")
    result = documents("test", *model)
    assert result.code == 1
    assert "3/report-0003.txt" in result.out
    assert "revenue" in result.out


def test_what_is_exported_is_read_by_the_readers_of_training(documents, wire, tmp_path):
    documents("correct", "results.jsonl", keys=["y"] * 20)
    line = ["correct", "results.jsonl", "--field", "town", "--value", "Oslo", "--document"]
    for n in range(12):
        assert documents(*line, f"{n % 10}/report-{n:04d}.txt").code == 0
    result = documents(
        "export", "--sft", "sft.jsonl", "--preferences", "pairs.jsonl", "--model", f"{wire.url}/v1#m"
    )
    assert result.code == 0, result.err
    examples = list(read_examples(tmp_path / "sft.jsonl"))
    pairs = list(read_preferences(tmp_path / "pairs.jsonl"))
    assert 0 < len(examples) < 12, "some documents are held out"
    assert len(pairs) == len(examples)
    for example in examples:
        question, answer = example["messages"][-2:]
        assert json.loads(answer["content"])["town"]["value"] == "Oslo"
        assert "The seat is in" in question["content"]


def promoted(documents, wire, monkeypatch, *, fell: bool):
    """One model is wrong about every revenue, the other about none; the probes are another test's."""

    def reply(asked):
        value = json.loads(folder_kills.say(asked))
        if asked.body["model"] == "old":
            value["revenue"]["value"] = 0
        return Reply(json.dumps(value))

    def probes(model, settings, like=None):
        value = 0.5 if fell and model.endswith("#new") else 0.9
        return {"facts": {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 1000}}

    wire.script(reply)
    monkeypatch.setattr("glasshouse.pipeline.evaluate.evaluate_model", probes)
    documents("correct", "results.jsonl", keys=["y"] * 40)
    return documents("promote", f"{wire.url}/v1#old", f"{wire.url}/v1#new")


def test_a_model_that_gains_on_what_was_corrected_is_promoted(documents, wire, monkeypatch):
    result = promoted(documents, wire, monkeypatch, fell=False)
    assert result.code == 0, result.out
    assert result.out.startswith("promoted: ")
    assert "extraction, general: 12 of 24 fields right before, 24 after" in result.out


def test_but_not_where_a_probe_falls(documents, wire, monkeypatch):
    result = promoted(documents, wire, monkeypatch, fell=True)
    assert result.code == 1
    assert result.out.startswith("not promoted: the probe facts fell")


def test_too_few_judgements_cannot_be_calibrated(documents):
    documents("correct", "results.jsonl", keys=["y"] * 40)
    result = documents("calibrate")
    assert result.code == 1
    assert "100 labelled fields" in result.err


def test_enough_judgements_make_later_results_calibrated(glasshouse, wire, tmp_path, monkeypatch):
    """50 documents with two fields each: 100 judged fields, a fifth of which is said to be wrong."""
    folder_kills.write_reports(tmp_path / "reports", 50)
    (tmp_path / "schema.json").write_text(json.dumps(folder_kills.SCHEMA))
    line = ["analyze", "reports", "--task", "extraction", "--schema", "schema.json", "--domain", "general"]
    line += ["--model", f"{wire.url}/v1#m", "--votes", "2"]
    assert glasshouse(*line).code == 0
    keys = [key for n in range(100) for key in (["n"] if n % 5 == 0 else ["y"])]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{key}\n" for key in keys)))
    glasshouse("documents", "correct", "results.jsonl", "--all")
    result = glasshouse("documents", "calibrate", "--json")
    assert result.code == 0, result.err
    (fitted,) = json.loads(result.out)
    assert fitted["rows"] == 100
    # Few-shot examples change the prompt's text but not its name: the calibration holds for it.
    result = glasshouse(*line, "--corrections", "corrections", "--out", "again.jsonl")
    assert result.code == 0, result.err
    rows = [json.loads(row) for row in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert all(row["calibrated"] for row in rows)
    mean = sum(field["confidence"] for row in rows for field in row["fields"]) / 100
    assert 0.7 < mean < 0.9


def test_the_overview_is_written_anew(documents, tmp_path):
    (tmp_path / "results.html").unlink()
    result = documents("overview", "results.jsonl")
    assert result.out.strip() == "results.html"
    assert (tmp_path / "results.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["correct", "nowhere.jsonl"], 1, ["nowhere.jsonl"]),
        (["correct", "results.jsonl", "--value", "3"], 2, ["--document"]),
        (["correct", "results.jsonl", "--document", "0/report-000.txt"], 2, ["'0/report-0"]),
        (
            ["correct", "results.jsonl", "--document=0/report-0000.txt", "--field=revenu", "--value=1"],
            2,
            ["'revenue'"],
        ),
        (["export"], 2, ["--sft"]),
        (["test", "--store", "nowhere"], 2, ["nowhere", "glasshouse documents correct"]),
        (["overview", "schema.json"], 1, ["schema.json"]),
    ],
)
def test_wrong_usage_is_one_line(documents, arguments, code, named):
    result = documents(*arguments)
    assert result.code == code, result.err
    for part in named:
        assert part in result.err
    assert len(result.err.strip().splitlines()) == 1
