"""The labelled evaluation: one who knows the truth gets 1, one who errs at a known rate is told that rate."""

import ast
import asyncio
import gzip
import json
import operator
import os
import random
from pathlib import Path

import pytest

from glasshouse.core.errors import DataError, UsageError
from glasshouse.documents.evaluation import cuad, tatqa
from glasshouse.documents.evaluation.run import ALL, evaluate
from glasshouse.documents.result import FieldResult, QuoteCheck, Result

DATA = os.environ.get("GLASSHOUSE_TEST_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="GLASSHOUSE_TEST_DATA names no labelled documents")

NO = {"clauses": [], "answer": "No"}
CLAUSE = "Neither party may assign this Agreement without the other's consent."
LABELS = {category.label: NO for category in cuad.CATEGORIES} | {
    "Document Name": {"clauses": ["Supply Agreement"], "answer": "Supply Agreement"},
    "Parties": {
        "clauses": ["Larkspur Mills, Inc.", "Buyer", "Tarn Weavers LLC"],
        "answer": 'Larkspur Mills, Inc. ("Seller"); Tarn Weavers LLC ("Buyer")',
    },
    "Agreement Date": {"clauses": ["May 3, 2020"], "answer": "5/3/2020"},
    "Effective Date": {"clauses": [], "answer": ""},
    "Expiration Date": {"clauses": ["five years after the Effective Date"], "answer": ""},
    "Renewal Term": {"clauses": ["for two (2) years"], "answer": "2 years"},
    "Notice Period to Terminate Renewal": {"clauses": [], "answer": ""},
    "Governing Law": {"clauses": ["the laws of New York"], "answer": "New York"},
    "Anti-Assignment": {"clauses": [CLAUSE], "answer": "Yes"},
}
TRUTH = {
    "document_name": "SUPPLY AGREEMENT",
    "parties": ["Larkspur Mills", "TARN WEAVERS, L.L.C."],
    "agreement_date": "2020-05-03",
    "expiration_date": "2025-05-03",
    "renewal_term": "24 months",
    "governing_law": "the State of New York",
    "anti_assignment": True,
}


class Told:
    """An analyzer that says of a document what it is told to: {path: value}, each with its confidence."""

    def __init__(self, says, cost: float | None = 0.02, success: bool = True) -> None:
        self.says, self.cost, self.success = says, cost, success

    async def run(self, document, task, *, schema=None, instructions=None):
        assert task == "extraction"
        fields = []
        for path, value in self.says(document, schema).items():
            sure = 0.7
            if isinstance(value, tuple):
                value, sure = value
            listed = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            fields += [
                FieldResult(path=path if i is None else f"{path}[{i}]", value=item, confidence=sure)
                for i, item in listed
            ]
        return Result(
            document=document.name, task="extraction", domain="legal", model="scripted", prompt="p@1 0",
            success=self.success, fields=tuple(fields), seconds=1.2, cost=self.cost,
        )  # fmt: skip


def asked(analyzer, examples):
    return asyncio.run(evaluate(analyzer, examples))


@pytest.fixture
def contracts(tmp_path) -> Path:
    """Forty contracts, all labelled alike."""
    (tmp_path / "docs").mkdir()
    with gzip.open(tmp_path / cuad.FILE, "wt", encoding="utf-8") as file:
        for i in range(40):
            text = f"Supply Agreement {i}\n\n{CLAUSE}"
            file.write(json.dumps({"id": f"c{i}", "text": text, "labels": LABELS}) + "\n")
    return tmp_path


def known(document, schema):
    return {name: TRUTH.get(name) for name in schema["properties"]}


def test_one_who_knows_the_truth_is_right_everywhere(contracts):
    figures = asked(Told(known), cuad.load(contracts, 40, 0)).figures
    for name, found in figures["fields"].items():
        assert found["accuracy"]["value"] == 1.0, name
        assert found["accuracy"]["high"] == 1.0
        assert 0.85 < found["accuracy"]["low"] < 1.0  # Wilson at 40 of 40
    assert set(figures["fields"]) == {*cuad.FIELDS, ALL}
    assert figures["fields"][ALL]["ece"] == pytest.approx(0.3)  # always right, 70% sure
    assert figures["fields"][ALL]["brier"] == pytest.approx(0.09)
    assert (figures["documents"], figures["failed"]) == (40, 0)


def test_one_who_says_nothing_is_right_where_nothing_is_to_be_said(contracts):
    figures = asked(Told(lambda d, s: dict.fromkeys(s["properties"])), cuad.load(contracts, 10, 0)).figures
    right = {name for name, found in figures["fields"].items() if found["accuracy"]["value"] == 1.0}
    assert right == set(cuad.FIELDS) - set(TRUTH)
    assert all(figures["fields"][name]["accuracy"]["value"] == 0.0 for name in TRUTH)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_one_who_errs_at_a_known_rate_is_told_so(contracts, rate):
    """The errors are counted here too, and 90% sure is too sure by what is missing."""
    rng, errors = random.Random(3), []

    def says(document, schema):
        told = known(document, schema)
        errors.append(rng.random() < rate)
        told["governing_law"] = ("Ohio" if errors[-1] else "New York", 0.9)
        return told

    found = asked(Told(says), cuad.load(contracts, 40, 0)).figures["fields"]["governing_law"]
    share = 1 - sum(errors) / 40
    assert found["accuracy"]["value"] == pytest.approx(share)
    assert found["accuracy"]["low"] < 1 - rate < found["accuracy"]["high"]
    assert found["ece"] == pytest.approx(abs(0.9 - share))
    assert found["brier"] == pytest.approx(share * 0.01 + (1 - share) * 0.81)


def test_a_document_that_failed_is_wrong_everywhere(contracts):
    figures = asked(Told(lambda d, s: {}, success=False), cuad.load(contracts, 5, 0)).figures
    assert figures["failed"] == 5
    assert figures["fields"][ALL]["accuracy"]["value"] == 0.0
    assert figures["fields"][ALL]["ece"] is None


def test_cost_and_time_are_those_of_a_field_and_unknown_stays_unknown(contracts):
    examples = cuad.load(contracts, 5, 0, fields=["parties", "governing_law"])
    figures = asked(Told(known), examples).figures["fields"]
    assert (figures["parties"]["cost"], figures[ALL]["cost"]) == (pytest.approx(0.01), pytest.approx(0.02))
    assert figures["parties"]["seconds"] == pytest.approx(0.6)
    assert asked(Told(known, cost=None), examples).figures["fields"][ALL]["cost"] is None


def test_labels_of_enough_documents_calibrate(contracts):
    report = asked(Told(known), cuad.load(contracts, 40, 0))
    (told,) = report.figures["calibration"]
    assert told["rows"] == len(report.labelled) >= 100
    assert told["ece"]["value"] < 0.05 < 0.3


def test_the_sample_is_drawn_by_its_seed_and_grows(contracts):
    def names(n, seed):
        return [example.document.name for example in cuad.load(contracts, n, seed)]

    assert names(10, 1)[:5] == names(5, 1)
    assert names(10, 1) != names(10, 2)


def test_missing_data_and_unknown_fields_are_told(tmp_path, contracts):
    with pytest.raises(DataError, match="--data or GLASSHOUSE_TEST_DATA"):
        cuad.load(tmp_path / "nowhere", 5, 0)
    with pytest.raises(DataError, match="--data or GLASSHOUSE_TEST_DATA"):
        tatqa.load(tmp_path / "nowhere", 5, 0)
    with pytest.raises(UsageError, match="did you mean 'governing_law'"):
        cuad.load(contracts, 5, 0, fields=["governing_laws"])
    with pytest.raises(DataError, match="nothing to evaluate"):
        asked(Told(known), [])


def graded(label: str, value, quote: str | None = None, **changes):
    (category,) = [category for category in cuad.CATEGORIES if category.label == label]
    quotes = (QuoteCheck(asked=quote, status="verbatim", text=quote),) if quote else ()
    listed = value if isinstance(value, list) else None
    fields = [
        FieldResult(path=f"{category.name}[{i}]" if listed else category.name, value=item, quotes=quotes)
        for i, item in enumerate(listed or [value])
    ]
    result = Result(
        document="d", task="extraction", domain="legal", model="m", prompt="p", success=True,
        fields=tuple(fields),
    )  # fmt: skip
    return cuad.grade_field(category, LABELS[label] | changes, result)


@pytest.mark.parametrize(
    ("label", "value", "answer", "right"),
    [
        ("Agreement Date", "as of the 3rd day of May, 2020", "5/3/2020", True),
        ("Agreement Date", "2020-05-04", "5/3/2020", False),
        ("Agreement Date", "2020-01-09", "[]/[]/2020", True),
        ("Agreement Date", "2019", "[]/[]/2020", False),
        ("Agreement Date", "March 1999", "3/[]/99", True),
        ("Agreement Date", "nobody knows", "5/3/2020", False),
        ("Agreement Date", "7/31/2000", "07/31/2000; 07/[]/2000", True),
        ("Expiration Date", "Perpetual", "perpetual", True),
        ("Expiration Date", "2020-01-01", "perpetual", False),
        ("Expiration Date", None, "", False),  # a clause without a date: the mention counts
        ("Expiration Date", "2033-01-01", "", True),
        ("Renewal Term", "one (1) year", "successive 1 year", True),
        ("Renewal Term", "12 months", "1 year", True),
        ("Renewal Term", "two years", "1 year", False),
        ("Renewal Term", "thirty days", "(30) days", True),
        ("Governing Law", "the laws of the State of New York", "New York", True),
        ("Governing Law", "York", "New York", False),
        ("Governing Law", "British Columbia", "British Columbia, Canada", True),
        ("Governing Law", "Illinois", "Illinois; New York", True),
        ("Document Name", "Supply and Service Agreement", "Supply Agreement", True),
        ("Document Name", "Lease", "Supply Agreement", False),
        ("Anti-Assignment", True, "Yes", True),
        ("Anti-Assignment", False, "Yes", False),
        ("Anti-Assignment", None, "Yes", False),
    ],
)
def test_how_answers_are_compared(label, value, answer, right):
    assert graded(label, value, answer=answer).right is right


@pytest.mark.parametrize(("value", "right"), [(True, False), (False, True), (None, True)])
def test_what_the_contract_does_not_have(value, right):
    assert graded("Exclusivity", value).right is right


@pytest.mark.parametrize(
    ("names", "right", "f1"),
    [
        (["Larkspur Mills Inc", "Tarn Weavers"], True, 1.0),
        (["Larkspur Mills", "Tarn Weavers", "Buyer"], True, 1.0),  # an alias the label knows
        (["Larkspur Mills"], False, 2 / 3),
        (["Larkspur Mills", "Tarn Weavers", "Ohio Bank"], False, 0.8),
        ([], False, 0.0),
    ],
)
def test_parties_are_names_without_their_legal_forms(names, right, f1):
    found = graded("Parties", names or None)
    assert (found.right, found.f1) == (right, pytest.approx(f1))


def test_a_quote_is_compared_with_the_labelled_clause():
    assert graded("Anti-Assignment", True, CLAUSE).clauses == (True,)
    assert graded("Anti-Assignment", True, "The seller pays for salt.").clauses == (False,)


# --- TAT-QA ---------------------------------------------------------------------------------------------

ROW = {
    "table": {"uid": "t", "table": [["", "2019", "2018"], ["Sales", "$1,496.5", "1,202.9"]]},
    "paragraphs": [{"order": 2, "text": "Second."}, {"order": 1, "text": "In millions."}],
}


def test_the_document_is_the_table_and_the_paragraphs_in_their_order():
    document = tatqa.document(ROW)
    assert document.text == "| 2019 | 2018\nSales | $1,496.5 | 1,202.9\n\nIn millions.\n\nSecond."
    assert [block.kind for block in document.blocks] == ["table", "paragraph", "paragraph"]


@pytest.mark.parametrize(
    ("given", "scale", "gold", "gold_scale", "kind", "exact", "f1"),
    [
        (["1,496.5"], "million", ["$1,496.5"], "million", "span", True, 1.0),
        (["$1,496.5 million"], "", ["$1,496.5"], "million", "span", True, 1.0),
        (["1,496.5"], "", ["$1,496.5"], "million", "span", False, 0.0),
        (["-12.6"], "million", ["-12.6"], "million", "arithmetic", True, 1.0),
        (["(12.6)"], "million", ["-12.6"], "million", "arithmetic", True, 1.0),
        (["-12.63"], "million", ["-12.6"], "million", "arithmetic", True, 1.0),  # rounds to the label
        (["12.6"], "million", ["-12.6"], "million", "arithmetic", False, 0.0),
        (["-22.22%"], "", ["-22.22"], "percent", "arithmetic", True, 1.0),
        (["-22.2"], "percent", ["-22.22"], "percent", "arithmetic", False, 0.0),
        (["3"], "", ["3"], "", "count", True, 1.0),
        (["The Fixed Price"], "", ["fixed price"], "", "span", True, 1.0),
        (["b", "a"], "", ["a", "b"], "", "multi-span", True, 1.0),
        (["a"], "", ["a", "b"], "", "multi-span", False, 0.5),
        (["cost plus profit"], "", ["cost plus"], "", "span", False, 0.8),
        (["sales of 2018"], "", ["sales of 2019"], "", "span", False, 0.0),
        ([], "", ["a"], "", "span", False, 0.0),
        (["2019", "2019"], "", ["2019", "2018"], "", "multi-span", False, 0.5),
    ],
)
def test_how_a_question_is_scored(given, scale, gold, gold_scale, kind, exact, f1):
    found = tatqa.score(given, scale, gold, gold_scale, kind)
    assert found == (exact, pytest.approx(f1))


def _arithmetic(node):
    """The value of a derivation that is numbers and + - * / alone."""
    operators = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
    }
    match node:
        case ast.Expression(body=inner):
            return _arithmetic(inner)
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_arithmetic(inner)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in operators:
            return operators[type(sign)](_arithmetic(left), _arithmetic(right))
    raise ValueError


@needs_data
def test_the_labels_own_derivations_score_as_right():
    """What people wrote down as the way to each computed answer, computed again."""
    right = asked_for = 0
    for row in tatqa.rows(Path(DATA or "") / tatqa.FILE):
        for question in row["questions"]:
            if question["answer_type"] != "arithmetic" or "%" in question["derivation"]:
                continue
            derivation = question["derivation"].translate(str.maketrans("[]–−", "()--", "$,"))
            try:
                number = _arithmetic(ast.parse(derivation.strip(), mode="eval"))
            except (ValueError, SyntaxError, ZeroDivisionError):
                continue
            asked_for += 1
            told = [number, 100 * number] if question["scale"] == "percent" else [number]
            scale, gold = question["scale"], str(question["answer"])
            right += any(tatqa.same_item(repr(one), scale, gold, scale, "arithmetic") for one in told)
    assert asked_for > 600
    assert right / asked_for > 0.99  # the rest are slips of the labels


@needs_data
def test_the_labels_of_tatqa_are_right_by_their_own_measure():
    for row in tatqa.rows(Path(DATA or "") / tatqa.FILE):
        for question in row["questions"]:
            gold = question["answer"] if isinstance(question["answer"], list) else [question["answer"]]
            gold, scale, kind = [str(item) for item in gold], question["scale"], question["answer_type"]
            assert tatqa.score(gold, scale, gold, scale, kind) == (True, 1.0)
            wrong = [f"{item} 7" for item in gold]
            assert not tatqa.score(wrong, scale, gold, scale, kind)[0]


@needs_data
def test_the_labels_of_cuad_are_right_by_their_own_measure():
    """Every category of every contract."""
    contracts = list(cuad.rows(Path(DATA or "") / cuad.FILE))
    assert len(contracts) > 400
    for row in contracts:
        for category in cuad.CATEGORIES:
            label = row["labels"][category.label]
            if category.kind == "parties":
                value = cuad.party_names(label["answer"]) or None
            else:
                value = label["answer"] or (label["clauses"][0] if label["clauses"] else None)
                value = {"No": None, "Yes": True}.get(value or "", value)
            grade = graded(category.label, value, **label)
            assert grade.right, (row["id"], category.label, label)


@needs_data
def test_a_question_of_each_table_before_a_second_one():
    folder = Path(DATA or "")
    examples = tatqa.load(folder, 278, 3)
    assert len({example.document.name for example in examples}) == 278
    assert [e.schema for e in tatqa.load(folder, 20, 3)] == [e.schema for e in examples[:20]]
    assert len(tatqa.load(folder, 10**6, 3)) == 1668


@needs_data
def test_an_analyzer_that_errs_on_real_questions_is_told_its_rate():
    examples = tatqa.load(Path(DATA or ""), 200, 0)
    gold = {}
    for row in tatqa.rows(Path(DATA or "") / tatqa.FILE):
        for question in row["questions"]:
            answer = question["answer"] if isinstance(question["answer"], list) else [question["answer"]]
            gold[row["table"]["uid"], question["question"].strip()] = (
                [str(item) for item in answer],
                question["scale"] or None,
            )
    rng = random.Random(1)

    def says(document, schema):
        told = schema["properties"]["answer"]["description"].split(": ", 1)[1]
        items, scale = gold[document.name, told]
        return {"answer": [f"{item} 7" for item in items] if rng.random() < 0.25 else items, "scale": scale}

    figures = asked(Told(says), examples).figures
    answers = [found for name, found in figures["fields"].items() if name not in (ALL, "scale")]
    right = sum(found["accuracy"]["value"] * found["accuracy"]["n"] for found in answers)
    assert sum(found["accuracy"]["n"] for found in answers) == 200
    assert right / 200 == pytest.approx(0.75, abs=0.09)
    assert figures["fields"]["scale"]["accuracy"]["value"] == 1.0
