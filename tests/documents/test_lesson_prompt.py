"""Corrections reach the model: as examples in its prompt, and as training data worded as it is asked."""

import json

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.learning.corrections import Corrections
from glasshouse.documents.learning.lesson_prompt import as_asked
from glasshouse.documents.quotes.stated import stated
from glasshouse.files.builder import Builder
from glasshouse.llm.interface import Capabilities

SCHEMA = {"type": "object", "properties": {"sold": {"type": "number", "description": "Bolts sold."}}}
WRONG = '{"sold": {"quote": "It employs 45 weavers.", "value": 45}}'


def document(name: str, text: str):
    builder = Builder()
    builder.add(text)
    return builder.document(name, "txt")


@pytest.fixture
def store(tmp_path):
    with Corrections(tmp_path / "c.sqlite") as opened:
        yield opened


@pytest.fixture
def model(scripted):
    return scripted([WRONG], can=Capabilities(counts_tokens=True, logprobs=False))


def corrected(store, model):
    """A report of a mill in which the model took the wrong number, put right."""
    report = document("larkspur.txt", "Larkspur Mills sold 1204 bolts of cloth. It employs 45 weavers.")
    result = Analyzer(model).analyze(report, "extraction", schema=SCHEMA)
    assert result.value == {"sold": 45}
    store.correct(report, result, "sold", 1204, who="ann", schema=SCHEMA)
    return report


def test_a_correction_is_an_example_in_the_prompt_of_a_document_like_it(store, model):
    report = corrected(store, model)
    other = document("tarn.txt", "Tarn Mills sold 77 bolts of cloth.")
    Analyzer(model, examples=store).analyze(other, "extraction", schema=SCHEMA)
    prompt = "\n".join(message["content"] for message in model.asked[-1].messages)
    assert report.text in prompt
    assert '"value": 1204' in prompt
    assert '"value": 45' not in prompt
    assert prompt.index('"value": 1204') < prompt.index(other.text)


def test_a_document_is_no_example_for_itself(store, model):
    report = corrected(store, model)
    Analyzer(model, examples=store).analyze(report, "extraction", schema=SCHEMA)
    prompt = "\n".join(message["content"] for message in model.asked[-1].messages)
    assert '"value": 1204' not in prompt


def test_training_data_is_worded_as_the_analyzer_asks(store, model, tmp_path):
    report = corrected(store, model)
    asked = [dict(message) for message in model.asked[-1].messages]
    assert store.write_sft(tmp_path / "sft.jsonl", as_asked(Analyzer(model))) == 1
    row = json.loads((tmp_path / "sft.jsonl").read_text())
    assert row["messages"][:-1] == asked
    assert json.loads(row["messages"][-1]["content"]) == {
        "sold": {"quote": "Larkspur Mills sold 1204 bolts of cloth.", "value": 1204}
    }
    assert report.text in row["messages"][-2]["content"]


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("It sold 12 bolts. It has 45 looms.", 45, "It has 45 looms."),
        ("It sold 1,204 bolts. It has 45 looms.", 1204, "It sold 1,204 bolts."),
        ("It sold 45 bolts. It has 45 looms.", 45, None),  # either may be meant
        ("It sold 450 bolts.", 45, None),
        ("The mayor is Ann Tarn. She weaves.", "ann tarn", "The mayor is Ann Tarn."),
        ("It is so.", True, None),
        ("It is so.", None, None),
    ],
)
def test_the_only_sentence_that_states_a_value_is_its_quote(text, value, found):
    quote = stated(document("d", text), value)
    assert (None if quote is None else quote.text) == found
    if quote is not None:
        assert text[quote.start : quote.end] == found


def test_the_quote_of_a_wrong_value_is_no_evidence_of_the_right_one(store, model):
    report = document("larkspur.txt", "Larkspur Mills sold many bolts. It employs 45 weavers.")
    result = Analyzer(model).analyze(report, "extraction", schema=SCHEMA)
    store.correct(report, result, "sold", 1204, who="ann", schema=SCHEMA)
    (lesson,) = store.lessons()
    assert lesson.right == {"sold": {"quote": None, "value": 1204}}


def test_a_lesson_of_another_domain_or_without_fields_is_refused(store, model):
    corrected(store, model)
    (lesson,) = store.lessons()
    with pytest.raises(ConfigError, match="'general', the analyzer of 'legal'"):
        as_asked(Analyzer(model, domain="legal"))(lesson)
