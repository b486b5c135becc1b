"""`glasshouse analyze`: one document shown here, many into a file with its page."""

import json
import re

import pytest
from tests.documents import folder_kills
from tests.llm.scripted_server import Reply, Wire

from glasshouse.cli.analyze import TaskName
from glasshouse.documents.own_model import OwnModel
from glasshouse.documents.result import TASKS


@pytest.fixture
def wire():
    wire = Wire()
    folder_kills.model(wire, seconds=0.0)
    yield wire
    wire.stop()


@pytest.fixture
def analyze(glasshouse, wire, tmp_path):
    """analyze(path, ...) in a folder with reports/ of twelve and schema.json."""
    folder_kills.write_reports(tmp_path / "reports", 12)
    (tmp_path / "schema.json").write_text(json.dumps(folder_kills.SCHEMA))

    def call(*arguments, schema=True):
        asked = ["--task", "extraction", "--schema", "schema.json"] if schema else []
        return glasshouse("analyze", *asked, "--model", f"{wire.url}/v1#m", *arguments)

    return call


def test_the_tasks_are_those_of_the_analyzer():
    assert tuple(TaskName) == TASKS


def test_one_document_is_shown_with_its_values_and_quotes(analyze, tmp_path):
    result = analyze("reports/3/report-0003.txt")
    assert result.code == 0, result.err
    rows = [re.split(r"  +", line.strip()) for line in result.out.splitlines()]
    assert ["revenue", "10", "–", "–", "“Revenue was $10 million”"] in rows
    assert ["town", "Quay", "–", "–", "“The seat is in Quay”"] in rows
    assert "uncalibrated" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reports", "schema.json"], "nothing is kept"


def test_json_is_the_whole_result(analyze):
    result = analyze("reports/3/report-0003.txt", "--json")
    assert json.loads(result.out)["value"] == {"revenue": 10, "town": "Quay"}
    assert json.loads(result.out)["fields"][0]["quotes"][0]["status"] == "verbatim"


def test_a_quote_that_is_not_quite_there_is_shown_with_its_difference(analyze, wire):
    value = {
        "revenue": {"quote": "Revenue was $11 million", "value": 11},
        "town": {"quote": "Nobody said so.", "value": "Quay"},
    }
    wire.script(Reply(json.dumps(value)))
    result = analyze("reports/3/report-0003.txt")
    assert "“Revenue was $10 million” (not verbatim:" in " ".join(result.out.split())
    assert "'$11" in result.out or "'11" in result.out
    assert "dropped: 1 quotes that stand nowhere in the document" in result.out


def test_what_a_document_says_cannot_move_the_cursor(analyze, wire, tmp_path):
    (tmp_path / "evil.txt").write_text("Revenue was $1 million. \x1b[2J gone.\n\nThe seat is in Marn.")
    value = {"revenue": {"quote": None, "value": None}, "town": {"quote": None, "value": "\x1b[2J"}}
    wire.script(Reply(json.dumps(value)))
    result = analyze("evil.txt")
    assert result.code == 0, result.err
    assert "\x1b[2J" not in result.out


def test_a_folder_gives_a_file_and_a_page(analyze, tmp_path):
    result = analyze("reports", "--out", "found/results.jsonl")
    assert result.code == 0, result.err
    assert "documents  12" in result.out
    rows = [json.loads(line) for line in (tmp_path / "found" / "results.jsonl").read_text().splitlines()]
    assert len({row["document"] for row in rows}) == 12
    assert "12 documents" in (tmp_path / "found" / "results.html").read_text()
    assert analyze("reports", "--out", "found/results.jsonl").code == 0


def test_several_documents_go_to_results_jsonl(analyze, tmp_path):
    result = analyze("reports/1", "reports/2", "--json")
    told = json.loads(result.out)
    assert (told["documents"], told["results"], told["failed"], told["stopped"]) == (3, 3, 0, None)
    assert (tmp_path / "results.jsonl").is_file()


def test_a_broken_file_among_others_is_told_and_does_not_stop_them(analyze, tmp_path):
    (tmp_path / "reports" / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    result = analyze("reports")
    assert result.code == 0, result.err
    assert "documents  13, 1 of them failed" in result.out
    result = analyze("reports/broken.pdf", "--out", "other.jsonl")
    assert result.code == 1
    assert "every document failed" in result.err


def test_other_settings_are_named(analyze):
    analyze("reports")
    result = analyze("reports", "--votes", "2")
    assert result.code == 2
    assert "votes was 1 and is 2" in result.err
    assert analyze("reports", "--votes", "2", "--fresh").code == 0


def test_a_spent_budget_ends_with_what_is_left_and_how_to_go_on(analyze, wire):
    result = analyze("reports", "--tokens", "3000", "--at-once", "1")
    assert result.code == 1
    assert re.search(r"\d+ of 12 documents are not done: the call may take up to", result.err)
    assert "then the same command goes on" in result.err
    asked = len(wire.chats())
    result = analyze("reports", "--tokens", "300000", "--at-once", "1")
    assert result.code == 0, result.err
    assert len(wire.chats()) == 12
    assert asked < 12


def test_a_server_that_is_gone_stops_the_run_and_fails_no_document(analyze, wire, tmp_path):
    wire.stop()
    result = analyze("reports/1/report-0001.txt")
    assert result.code == 1
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["nowhere.txt"], 1, ["nowhere.txt", "no such file"]),
        (["reports", "--task", "extracton"], 2, ["extracton"]),
        (["reports", "--schema", "nowhere.json"], 2, ["nowhere.json"]),
        (["reports", "--domain", "leagl"], 2, ["leagl"]),
        (["reports/1/report-0001.txt", "--fresh"], 2, ["--out"]),
        (["reports", "--min-confidence", "2"], 2, ["--min-confidence"]),
        (["reports", "--corrections", "nowhere"], 2, ["nowhere", "glasshouse documents correct"]),
    ],
)
def test_wrong_usage_is_one_line(analyze, arguments, code, named, wire):
    result = analyze(*arguments, schema="--schema" not in arguments)
    assert result.code == code, result.err
    for part in named:
        assert part in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert wire.asked == []


def test_models_of_the_invented_world_have_its_domain(tmp_path):
    for name, text in (("pocket", "name: pocket\nworld: {people: 5}\n"), ("own", "name: own\n")):
        (tmp_path / name / "sft" / "model").mkdir(parents=True)
        (tmp_path / name / "recipe.yaml").write_text(text)
    assert OwnModel.at(tmp_path / "pocket" / "sft" / "model").domain == "land"
    assert OwnModel.at(tmp_path / "own" / "sft" / "model").domain is None
    assert OwnModel.named("openai:gpt-5-mini") is None
