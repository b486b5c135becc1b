"""The corpus stage: what is held out, what is counted, what is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError
from glasshouse.pipeline.documents import DocumentWriter, read_rows
from glasshouse.pipeline.stages import corpus as stage
from glasshouse.pipeline.stages.corpus import CorpusConfig, corpus, split
from glasshouse.pipeline.stages.tokenizer import TokenizerConfig, sample


def documents(count: int) -> list[dict]:
    return [{"id": str(i), "text": f"text number {i}", "source": "x"} for i in range(count)]


@settings(deadline=None, max_examples=50)
@given(count=st.integers(0, 200), fraction=st.floats(0.01, 0.49), seed=st.integers(0, 9))
def test_no_document_is_lost_or_in_both_parts(count, fraction, seed):
    """With too few documents to hold a whole one out, their ends are; otherwise whole documents."""
    parts = {"train": [], "validation": []}
    for part, document in split(documents(count), fraction, seed):
        parts[part].append(document)
    if count >= round(1 / fraction):
        assert sorted(d["id"] for p in parts.values() for d in p) == sorted(str(i) for i in range(count))
        assert len(parts["validation"]) >= count // round(1 / fraction)
    else:
        ends = {d["id"].removesuffix("#end"): d["text"] for d in parts["validation"]}
        starts = {d["id"]: d["text"] for d in parts["train"]}
        for document in documents(count):
            name = document["id"]
            assert starts.get(name, "") + ends.get(name, "") == document["text"]


def test_the_split_is_the_same_for_the_same_seed():
    assert list(split(documents(100), 0.1, 3)) == list(split(documents(100), 0.1, 3))
    assert list(split(documents(100), 0.1, 3)) != list(split(documents(100), 0.1, 4))


def test_a_single_text_is_cut_where_nanogpt_cuts_it():
    """The first int(0.9 * n) characters train."""
    text = "abcdefghij" * 11 + "xyz"
    (_, train), (_, held_out) = split([{"id": "a", "text": text}], 0.1, 1)
    assert train["text"] == text[: int(len(text) * 0.9)]
    assert held_out["text"] == text[int(len(text) * 0.9) :]


def test_statistics_count_both_parts_and_add_up_small_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "LISTED_SOURCES", 2)
    for i in range(4):
        (tmp_path / f"{i}.jsonl").write_text(
            "".join(json.dumps({"text": "é " * (i + 1)}) + "\n" for _ in range(10))
        )
    out = tmp_path / "corpus"
    out.mkdir()
    corpus(CorpusConfig(data=(str(tmp_path),), validation_fraction=0.1), out, seed=1)
    statistics = json.loads((out / stage.STATISTICS).read_text())
    train, held_out = statistics["train"], statistics["validation"]
    assert train["documents"] + held_out["documents"] == 40
    assert train["bytes"] + held_out["bytes"] == 10 * 3 * (1 + 2 + 3 + 4)
    assert train["words"] + held_out["words"] == 10 * (1 + 2 + 3 + 4)
    assert len(train["sources"]) == 3
    assert "(2 smaller sources)" in train["sources"]
    assert sum(s["bytes"] for s in train["sources"].values()) == train["bytes"]
    assert sum(1 for _ in read_rows(out / stage.TRAIN)) == train["documents"]


def test_a_text_too_short_to_hold_anything_out_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="empty"):
        corpus(CorpusConfig(data=(str(tmp_path / "a.txt"),)), tmp_path, seed=1)


def test_documents_survive_their_file(tmp_path):
    """Line separators inside a text are no row ends."""
    rows = [{"id": "1", "text": "a\u2028b\nc\r\n\x85\U0001f600", "source": "s", "metadata": {"k": [1]}}]
    with DocumentWriter(tmp_path / "d.jsonl.zst") as writer:
        for row in rows:
            writer.write(row)
    assert list(read_rows(tmp_path / "d.jsonl.zst")) == rows


def test_a_failure_while_writing_leaves_no_file(tmp_path):
    def fail():
        with DocumentWriter(tmp_path / "d.jsonl.zst") as writer:
            writer.write({"text": "x"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_learns_from_an_even_sample_of_a_large_corpus(tmp_path):
    with DocumentWriter(tmp_path / stage.TRAIN) as writer:
        for i in range(2000):
            writer.write({"text": f"{i:010d}"})
    (tmp_path / stage.STATISTICS).write_text('{"train": {"bytes": 20000}}')
    texts = list(sample(TokenizerConfig(train_bytes=5000), tmp_path, seed=1))
    assert 4000 < sum(map(len, texts)) < 6000
    assert texts[0] < "0000000050"
    assert texts[-1] > "0000001950"
    assert len(list(sample(TokenizerConfig(train_bytes=20000), tmp_path, seed=1))) == 2000
