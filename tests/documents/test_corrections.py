"""What people say about results is kept, and becomes examples, labels, tests and training data."""

import json
import multiprocessing
from datetime import UTC, datetime, timedelta

import pytest

from glasshouse.core.errors import StorageError, UsageError
from glasshouse.documents.calibrator import Calibrator
from glasshouse.documents.chunking.quotable import quotable
from glasshouse.documents.learning.corrections import Corrections, held_out, sha256
from glasshouse.documents.learning.passage import AROUND, SMALL
from glasshouse.documents.result import FieldResult, QuoteCheck, Result
from glasshouse.files import read_conversations, read_preferences
from glasshouse.files.document import Document

TEXT = "Larkspur Mills sold 1,204 bolts of cloth. Its margin was 18 percent. It employs 45 weavers."
SCHEMA = {"type": "object", "properties": {"sold": {"type": "number"}, "margin": {"type": "number"}}}


def document(text: str = TEXT, name: str = "larkspur.txt") -> Document:
    return Document(name, text, (), "txt")


def quote(text: str, words: str) -> QuoteCheck:
    start = text.index(words)
    return QuoteCheck(asked=words, status="verbatim", start=start, end=start + len(words), text=words)


def result(text: str = TEXT, name: str = "larkspur.txt", model: str = "m", **values) -> Result:
    """An extraction; a value may come with the words it is taken from."""
    fields, plain = [], {}
    for path, told in values.items():
        value, words = told if isinstance(told, tuple) else (told, None)
        quotes = (quote(text, words),) if words else ()
        plain[path] = value
        if not isinstance(value, list):
            fields.append(FieldResult(path=path, value=value, quotes=quotes, token_probability=0.7))
    return Result(
        document=name,
        task="extraction",
        domain="general",
        model=model,
        prompt="extraction@1 abc",
        success=True,
        value=plain,
        fields=tuple(fields),
        sha256=sha256(text),
    )


WRONG = {"sold": (45, "It employs 45 weavers."), "margin": (18, "Its margin was 18 percent.")}
SOLD = quote(TEXT, "Larkspur Mills sold 1,204 bolts of cloth.")


@pytest.fixture
def store(tmp_path):
    with Corrections(tmp_path / "corrections.sqlite") as opened:
        yield opened


def ask(lesson):
    return [{"role": "user", "content": lesson.text}]


def test_a_correction_keeps_who_when_what_and_why(tmp_path):
    when = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
    with Corrections(tmp_path / "c.sqlite", clock=lambda: when) as store:
        store.correct(document(), result(**WRONG), "sold", 1204, who="ann", quote=SOLD, schema=SCHEMA)
    with Corrections(tmp_path / "c.sqlite") as store:
        (entry,) = store.newest()
    assert (entry.who, entry.when, entry.model) == ("ann", "2026-11-22T01:02:03+00:00", "m")
    assert (entry.said.value, entry.said.token_probability, entry.right) == (45, 0.7, 1204)
    assert (entry.quote, entry.passage, entry.schema_) == (SOLD.text, TEXT, SCHEMA)
    assert not entry.was_right


def test_a_later_correction_takes_the_place_of_an_earlier_one_and_the_history_stays(store):
    for right in (1200, 1204, 1204):
        store.correct(document(), result(**WRONG), "sold", right, who="ann")
    store.accept(document(), result(**WRONG), who="bob", paths=["margin"])
    assert len(store) == 2
    assert [(entry.path, entry.right) for entry in store.newest()] == [("sold", 1204), ("margin", 18)]
    assert [entry.right for entry in store.history("larkspur.txt", "sold")] == [1200, 1204]


def test_of_a_large_document_only_the_passage_is_kept(store):
    filler = "Nothing of note was told about the weather in these days. " * 200
    text = filler + TEXT + " " + filler
    told = result(text, **WRONG)
    place = quote(text, SOLD.text)
    assert len(text) > 2 * SMALL
    entry = store.correct(document(text), told, "sold", 1204, who="ann", quote=place)
    assert entry.passage == text[entry.start : entry.start + len(entry.passage)]
    assert SOLD.text in entry.passage
    assert len(entry.passage) <= 2 * AROUND + len(SOLD.text)
    assert "secret" not in entry.model_dump_json()
    (lesson,) = store.lessons()
    assert lesson.right["sold"] == {"quote": SOLD.text, "value": 1204}
    assert lesson.right["margin"]["value"] == 18  # its words stand in the passage too


def test_what_stands_outside_of_the_passage_is_not_mentioned_in_it(store):
    filler = "Nothing of note was told about the weather in these days. " * 200
    text = SOLD.text + " " + filler + "Its margin was 18 percent."
    told = result(text, sold=(12, SOLD.text), margin=(17, "Its margin was 18 percent."))
    store.correct(document(text), told, "sold", 1204, who="ann")
    store.correct(document(text), told, "margin", 18, who="ann")
    first, second = sorted(store.lessons(), key=lambda lesson: lesson.right["sold"]["value"] is None)
    nothing = {"quote": None, "value": None}
    assert first.right == {"sold": {"quote": SOLD.text, "value": 1204}, "margin": nothing}
    assert second.right == {"sold": nothing, "margin": {"quote": "Its margin was 18 percent.", "value": 18}}


@pytest.mark.parametrize(
    ("path", "message"), [("solt", "did you mean 'sold'"), ("sold.x", "no field"), ("sold[0]", "no field")]
)
def test_a_field_that_the_result_does_not_have_is_refused(store, path, message):
    with pytest.raises(UsageError, match=message):
        store.correct(document(), result(**WRONG), path, 1, who="ann")
    assert len(store) == 0


def test_a_text_that_is_not_the_results_is_refused(store):
    with pytest.raises(UsageError, match="not the one"):
        store.correct(document(TEXT + "!"), result(**WRONG), "sold", 1204, who="ann")


def test_an_item_that_the_model_missed_can_be_added_and_a_wrong_one_taken_out(store):
    told = result(who=[])
    store.correct(document(), told, "who[0]", "weavers", who="ann", quote=quote(TEXT, "45 weavers"))
    (lesson,) = store.lessons()
    assert lesson.right == {"who": [{"quote": "45 weavers", "value": "weavers"}]}
    listed = told.model_copy(
        update={
            "value": {"who": ["weavers", "bolts"]},
            "fields": (FieldResult(path="who[1]", value="bolts"),),
        }
    )
    store.correct(document(), listed, "who[1]", None, who="ann")
    (lesson,) = store.lessons()
    assert [item["value"] for item in lesson.right["who"]] == ["weavers"]


def test_accepted_and_corrected_fields_are_labels_for_every_model_that_said_them(store):
    store.accept(document(), result(**WRONG), who="ann")
    store.correct(document(), result(**WRONG), "sold", 1204, who="ann")
    other = result(model="n", sold=1204.0, margin=18)
    store.accept(document(), other, who="bob", paths=["sold"])
    rows = {(row.setting.model, row.path): row.right for row in store.labelled_rows()}
    assert rows == {("m", "sold"): False, ("m", "margin"): True, ("n", "sold"): True}


def test_labels_move_the_calibration(store):
    """A model that is right in one of three of what it is 70% sure of is told so."""
    for i in range(60):
        text = f"Report {i}. {TEXT}"
        told = result(text, f"{i}.txt", **WRONG)
        store.accept(document(text, f"{i}.txt"), told, who="ann", paths=["margin"] if i % 2 else ["sold"])
        if i % 6:
            store.correct(document(text, f"{i}.txt"), told, "sold", 1204, who="ann")
            store.correct(document(text, f"{i}.txt"), told, "margin", 19 if i % 2 else 18, who="ann")
    rows = store.labelled_rows()
    calibrator = Calibrator.fit(rows)
    share = {
        path: sum(row.right for row in rows if row.path == path) / sum(row.path == path for row in rows)
        for path in ("sold", "margin")
    }
    for field in result(**WRONG).fields:
        sure = calibrator.confidence(field, rows[0].setting)
        assert sure == pytest.approx(share[field.path], abs=0.08)


def test_the_likest_texts_become_examples_and_never_the_text_itself(store):
    texts = {
        "mill.txt": "The mill of Larkspur sold 900 bolts of cloth and its margin was 9 percent.",
        "ship.txt": "The ship left the harbour with 12 sailors and a cargo of salt.",
        "loom.txt": "A loom weaves cloth.",
    }
    for name, text in texts.items():
        told = result(text, name, sold=None, margin=None)
        store.correct(document(text, name), told, "sold", 900 if "900" in text else None, who="ann")
    store.correct(document(), result(**WRONG), "sold", 1204, who="ann")
    found = store.examples("extraction", "general", TEXT, 2)
    assert [example["document"] for example in found] == [texts["loom.txt"], texts["mill.txt"]]
    assert json.loads(found[-1]["reply"])["sold"] == {"quote": texts["mill.txt"], "value": 900}
    assert store.examples("extraction", "legal", TEXT, 2) == []
    assert store.examples("extraction", "general", TEXT, 2, fields={"price"}) == []
    assert len(store.examples("extraction", "general", TEXT, 9, fields={"sold", "margin", "x"})) == 3


def test_cases_catch_a_regression(store):
    store.correct(document(), result(**WRONG), "sold", 1204, who="ann", schema=SCHEMA)
    store.accept(document(), result(**WRONG), who="ann", paths=["margin"])
    (case,) = store.cases("extraction", "general")
    assert (case.document.text, case.schema) == (TEXT, SCHEMA)
    assert case.judge(result(sold=1204, margin="18")) == {"sold": True, "margin": True}
    assert case.judge(result(sold=1204, margin=17)) == {"sold": True, "margin": False}
    assert case.judge(result()) == {"sold": False, "margin": False}


def test_what_may_be_quoted_of_a_case_are_its_sentences(store):
    """A model whose replies are held to a schema can quote nothing else (it was nothing once)."""
    text = f"{TEXT}\n\nBolts | 1,204\nWeavers | 45"
    store.correct(document(text), result(text, sold=45), "sold", 1204, who="ann", schema=SCHEMA)
    (case,) = store.cases()
    assert case.document.text == text
    lines = quotable(case.document, 0, len(text))
    assert lines == [*(f"{part}." for part in TEXT.rstrip(".").split(". ")), "Bolts | 1,204", "Weavers | 45"]


def test_an_item_of_a_list_may_stand_anywhere_in_it(store):
    told = result(who=["b"])
    told = told.model_copy(update={"fields": (FieldResult(path="who[0]", value="b"),)})
    store.accept(document(), told, who="ann")
    (case,) = store.cases()
    other = told.model_copy(
        update={"fields": (FieldResult(path="who[0]", value="a"), FieldResult(path="who[1]", value="B"))}
    )
    assert case.judge(other) == {"who[0]": True}


def test_what_is_written_for_training_is_read_by_the_houses_own_readers(store, tmp_path):
    assert not held_out(sha256(TEXT))
    store.correct(document(), result(**WRONG), "sold", 1204, who="ann", quote=SOLD)
    fine = "Bolts sold: 7. Margin: 3."
    store.accept(document(fine, "b.txt"), result(fine, "b.txt", sold=(7, "Bolts sold: 7.")), who="ann")
    assert store.write_sft(tmp_path / "sft.jsonl", ask) == 2
    assert store.write_preferences(tmp_path / "pairs.jsonl", ask) == 1
    (first, _) = read_conversations([tmp_path / "sft.jsonl"])
    assert first["messages"][0] == {"role": "user", "content": TEXT}
    right = {
        "sold": {"quote": SOLD.text, "value": 1204},
        "margin": {"quote": "Its margin was 18 percent.", "value": 18},
    }
    assert json.loads(first["messages"][1]["content"]) == right
    assert list(right["sold"]) == ["quote", "value"]
    (pair,) = read_preferences([tmp_path / "pairs.jsonl"])
    assert json.loads(pair["chosen"][0]["content"]) == right
    assert json.loads(pair["rejected"][0]["content"])["sold"]["value"] == 45
    assert pair["prompt"] == first["messages"][:1]


def test_documents_that_are_held_out_are_tests_and_never_trained_on(store, tmp_path):
    for i in range(30):
        text = f"Report {i}. {TEXT}"
        store.correct(document(text, f"{i}.txt"), result(text, f"{i}.txt", **WRONG), "sold", 1204, who="ann")
    cases = store.cases()
    kept = {case.document.text for case in cases if case.held_out}
    assert len(cases) == 30
    assert 4 <= len(kept) <= 16
    assert store.write_sft(tmp_path / "sft.jsonl", ask) == 30 - len(kept)
    assert store.write_preferences(tmp_path / "pairs.jsonl", ask) == 30 - len(kept)
    for name in ("sft.jsonl", "pairs.jsonl"):
        rows = [json.loads(line) for line in (tmp_path / name).read_text().split("\n") if line]
        seen = {(row.get("messages") or row["prompt"])[0]["content"] for row in rows}
        assert not seen & kept


def test_other_tasks_keep_their_replies_as_they_are(store, tmp_path):
    told = Result(
        document="larkspur.txt",
        task="summary",
        domain="general",
        model="m",
        prompt="summary@1 abc",
        success=True,
        value={"topic": "ships", "findings": [{"quote": "It employs 45 weavers.", "finding": "9"}]},
        fields=(
            FieldResult(path="topic", value="ships"),
            FieldResult(path="findings[0].finding", value="9"),
        ),
        sha256=sha256(TEXT),
    )
    store.correct(document(), told, "topic", "a mill", who="ann")
    store.correct(document(), told, "findings[0].finding", "sold", who="ann", quote=SOLD)
    (lesson,) = store.lessons()
    assert lesson.right == {"topic": "a mill", "findings": [{"quote": SOLD.text, "finding": "sold"}]}
    assert set(lesson.judged) == {"topic", "findings[0].finding"}


def _many(path, number):
    with Corrections(path) as store:
        for i in range(20):
            text = f"{TEXT} {number} {i}"
            told = result(text, f"{number}-{i}.txt", **WRONG)
            store.correct(document(text, f"{number}-{i}.txt"), told, "sold", 1204, who=str(number))


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with Corrections(path) as store:
        assert len(store) == 60


def test_a_file_that_is_no_store_is_told(tmp_path):
    (tmp_path / "c.sqlite").write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(StorageError, match=r"c\.sqlite"):
        Corrections(tmp_path / "c.sqlite")


def test_times_are_those_of_the_clock(tmp_path):
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with Corrections(tmp_path / "c.sqlite", clock=lambda: now[0]) as store:
        store.correct(document(), result(**WRONG), "sold", 1, who="ann")
        now[0] += timedelta(days=1)
        store.correct(document(), result(**WRONG), "sold", 2, who="bob")
        assert [entry.when[:10] for entry in store.history(sha256(TEXT))] == ["2026-01-01", "2026-01-02"]
