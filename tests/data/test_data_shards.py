"""Shard folders: what is written is what is read, and damage is named."""

import json

import numpy as np
import pytest

from glasshouse.core.errors import DataError
from glasshouse.data import Shards, ShardWriter

DOCUMENTS = [[5, 6, 7], [8], [], [9, 10]]


def write(folder, documents, vocab_size=20, end_of_text=0, **add):
    with ShardWriter(folder, vocab_size, end_of_text) as writer:
        for document in documents:
            writer.add(document, **add)
    return Shards(folder)


def test_documents_are_stored_after_their_separator_and_one_more_closes_the_stream(tmp_path):
    """[<eot>, t1..tn] for each document, then one <eot>: the separator is first input and last target."""
    shards = write(tmp_path / "s", DOCUMENTS)
    assert shards.tokens.tolist() == [0, 5, 6, 7, 0, 8, 0, 0, 9, 10, 0]
    assert shards.offsets.tolist() == [0, 4, 6, 7, 10]
    assert [shards.document(i).tolist() for i in range(len(shards))] == [[0, *d] for d in DOCUMENTS]


def test_without_a_separator_documents_stand_as_given(tmp_path):
    """Conversations bring their own special tokens."""
    shards = write(tmp_path / "s", DOCUMENTS, end_of_text=None)
    assert shards.tokens.tolist() == [5, 6, 7, 8, 9, 10]
    assert shards.offsets.tolist() == [0, 3, 4, 4, 6]


@pytest.mark.parametrize(("vocab_size", "bits"), [(1 << 16, 16), ((1 << 16) + 1, 32)])
def test_tokens_take_two_bytes_where_the_vocabulary_allows(tmp_path, vocab_size, bits):
    """The largest id survives in both widths."""
    shards = write(tmp_path / "s", [[vocab_size - 1]], vocab_size=vocab_size)
    assert shards.tokens.dtype == np.dtype(f"uint{bits}")
    assert int(shards.tokens[1]) == vocab_size - 1


def test_the_mask_marks_targets_and_never_the_separator(tmp_path):
    """One mask byte for each stored token."""
    with ShardWriter(tmp_path / "s", 20, 0) as writer:
        writer.add([5, 6, 7], mask=[False, True, True])
        writer.add([8], mask=[True])
    shards = Shards(tmp_path / "s")
    assert shards.mask is not None
    assert shards.mask.tolist() == [0, 0, 1, 1, 0, 1, 0]
    assert shards.index["targets"] == 3


def test_sources_are_labelled_and_counted(tmp_path):
    """Every document keeps the name of its source; the index counts documents and stored tokens of each."""
    with ShardWriter(tmp_path / "s", 20, 0) as writer:
        writer.add([1, 2], source="facts")
        writer.add([3], source="sums")
        writer.add([4, 5, 6], source="facts")
    shards = Shards(tmp_path / "s")
    names = list(shards.sources)
    assert [names[i] for i in shards.labels] == ["facts", "sums", "facts"]
    assert shards.sources == {
        "facts": {"documents": 2, "tokens": 7},
        "sums": {"documents": 1, "tokens": 2},
    }


def test_the_hash_depends_on_the_content_only(tmp_path):
    """Equal documents give equal hashes in any folder; one other token, boundary or label another hash."""
    first = write(tmp_path / "a", DOCUMENTS).sha256
    assert write(tmp_path / "b", DOCUMENTS).sha256 == first
    assert write(tmp_path / "c", [[5, 6, 8], *DOCUMENTS[1:]]).sha256 != first
    assert write(tmp_path / "d", [[5, 6], [7, 0, 8], *DOCUMENTS[2:]]).sha256 != first


def test_a_writer_that_fails_leaves_nothing_and_keeps_the_older_folder(tmp_path):
    """The folder appears at once or not at all."""

    def fail(folder):
        with ShardWriter(folder, 20, 0) as writer:
            writer.add([1])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "s", DOCUMENTS)
    with pytest.raises(RuntimeError):
        fail(tmp_path / "s")
    assert len(Shards(tmp_path / "s")) == len(DOCUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("bad", [[20], [-1], [3, 70_000]])
def test_an_id_outside_the_vocabulary_is_refused(tmp_path, bad):
    """It would wrap around in two bytes."""
    with pytest.raises(DataError, match=r"outside 0\.\.19"), ShardWriter(tmp_path / "s", 20, 0) as writer:
        writer.add(bad)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.bin", "sources.bin", "mask.bin"])
def test_a_cut_or_missing_file_is_named(tmp_path, name):
    """Sizes are checked against the index before anything is read."""
    write(tmp_path / "s", [[1, 2]], mask=[True, True])
    path = tmp_path / "s" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=name):
        Shards(tmp_path / "s")
    path.unlink()
    with pytest.raises(DataError, match=name):
        Shards(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"dtype": "O"}, "token type"),
        ({"documents": None}, "not the index"),
    ],
)
def test_a_foreign_index_is_refused(tmp_path, change, message):
    """An index of another version, or with anything but plain integers, is not trusted."""
    write(tmp_path / "s", DOCUMENTS)
    path = tmp_path / "s" / "index.json"
    index = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in index.items() if v is not None}))
    with pytest.raises(DataError, match=message):
        Shards(tmp_path / "s")


def test_a_folder_that_is_no_shard_folder_is_named(tmp_path):
    """A missing index is the first thing a user sees after a typing error."""
    with pytest.raises(DataError, match=r"index\.json"):
        Shards(tmp_path)
