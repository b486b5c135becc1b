"""The suite from end to end: a scripted model, the real analyzer, and the command."""

import gzip
import json
import math

import pytest

from glasshouse.documents.evaluation import cuad, tatqa
from glasshouse.documents.evaluation.run import ALL
from glasshouse.documents.evaluation.suite import SuiteConfig, run_documents
from glasshouse.llm import Completion, Usage
from glasshouse.llm.interface import Capabilities, TokenLogprob

NO = {"clauses": [], "answer": "No"}
ASSIGN = "Neither party may assign this Agreement without the consent of the other."
LAW = "This Agreement is governed by the laws of the State of Ohio."
TEXT = f"Supply Agreement number {{i}}\n\nIt is dated May 3, 2020.\n\n{ASSIGN}\n\n{LAW}"
LABELS = {category.label: NO for category in cuad.CATEGORIES} | {
    "Governing Law": {"clauses": [LAW], "answer": "Ohio"},
    "Anti-Assignment": {"clauses": [ASSIGN], "answer": "Yes"},
    "Agreement Date": {"clauses": ["May 3, 2020"], "answer": "5/3/2020"},
}
TRUTH = {
    "governing_law": (LAW, "Ohio"),
    "anti_assignment": (ASSIGN, True),
    "agreement_date": ("It is dated May 3, 2020.", "2020-05-03"),
    "answer": [("Sales | 12 | 10", "12")],
    "scale": (None, None),
}
FIELDS = ("governing_law", "anti_assignment", "agreement_date", "exclusivity")


def pair(told) -> dict:
    quote, value = told
    return {"quote": quote, "value": value}


def knows(request) -> Completion:
    """What the schema asks for, by the truth; each token 90% likely."""
    reply = {}
    for name in request.output_schema["properties"]:
        told = TRUTH.get(name, (None, None))
        reply[name] = [pair(item) for item in told] if isinstance(told, list) else pair(told)
    text = json.dumps(reply)
    tokens = tuple(TokenLogprob(text[i : i + 8], math.log(0.9)) for i in range(0, len(text), 8))
    return Completion(text, "stop", Usage(100, 50), "scripted", logprobs=tokens, cost=0.001)


@pytest.fixture
def labelled(tmp_path):
    (tmp_path / "docs").mkdir()
    with gzip.open(tmp_path / cuad.FILE, "wt", encoding="utf-8") as file:
        for i in range(12):
            file.write(json.dumps({"id": f"c{i}", "text": TEXT.format(i=i), "labels": LABELS}) + "\n")
    question = {
        "question": "What were sales in 2019?",
        "answer": ["12"],
        "answer_type": "span",
        "scale": "",
        "derivation": "",
    }
    table = {"uid": "t", "table": [["", "2019", "2018"], ["Sales", "12", "10"]]}
    with gzip.open(tmp_path / tatqa.FILE, "wt", encoding="utf-8") as file:
        file.write(json.dumps({"table": table, "paragraphs": [], "questions": [question]}) + "\n")
    return tmp_path


def test_a_model_that_knows_the_truth_is_told_so(labelled, scripted):
    config = SuiteConfig(n=5, fields=FIELDS)
    reports = run_documents(scripted([knows], can=Capabilities(counts_tokens=True)), labelled, config)
    assert list(reports) == ["cuad", "tatqa"]
    for report in reports.values():
        for found in report.figures["fields"].values():
            assert found["accuracy"]["value"] == 1.0
            assert found["quotes_verbatim"] in (1.0, None)
            assert found["ece"] is not None
    figures = reports["cuad"].figures
    assert (figures["documents"], figures["failed"], figures["domain"]) == (5, 0, "legal")
    assert figures["fields"]["governing_law"]["labelled_passage"]["value"] == 1.0
    assert figures["fields"][ALL]["cost"] == pytest.approx(0.001)
    assert reports["tatqa"].figures["documents"] == 1


def test_the_command_prints_a_table_and_writes_the_figures(labelled, scripted, capsys, monkeypatch, tmp_path):
    from glasshouse.cli import main

    opened = []

    def open_llm(name):
        opened.append(name)
        return scripted([knows], can=Capabilities(counts_tokens=True))

    monkeypatch.setattr("glasshouse.llm.open.open_llm", open_llm)
    asked = ["eval", "--suite", "documents", "--model", "openai:some", "--data", str(labelled)]
    fields = f"fields=[{','.join(FIELDS)}]"
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--set", "n=3", "--set", fields, "--out", str(tmp_path / "out.json")])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert opened == ["openai:some"]
    assert "cuad: 3 documents" in printed
    assert "governing_law" in printed
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["cuad"]["fields"]["anti_assignment"]["accuracy"]["value"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--suite", "documents", "--model", "openai:x"], 2, ["--data", "GLASSHOUSE_TEST_DATA"]),
        (["--suite", "documents", "--model", "openai:x", "--data", "nowhere"], 1, ["nowhere", "not there"]),
        (
            ["--suite", "documents", "--model", "openai:x", "--data", ".", "--set", "m=3"],
            2,
            ["unknown key 'm'"],
        ),
        (["a", "--model", "b", "--suite", "documents"], 2, ["named twice"]),
    ],
)
def test_what_is_missing_is_one_line(arguments, code, named, capsys, monkeypatch, tmp_path):
    from glasshouse.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLASSHOUSE_TEST_DATA", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "not a key")
    with pytest.raises(SystemExit) as ended:
        main(["eval", *arguments])
    assert ended.value.code == code
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert all(word in told for word in named), told
