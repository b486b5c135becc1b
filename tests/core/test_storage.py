"""Files are whole or absent, whatever happens on the way."""

from __future__ import annotations

import errno

import pytest

from glasshouse.core import storage
from glasshouse.core.errors import DataError, StorageError


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A full disk raises StorageError with the fix; the old content stays and no scrap is left."""
    path = tmp_path / "a.json"
    storage.write_json(path, {"old": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(StorageError, match="free some space"):
        storage.write_json(path, {"new": 2})
    assert storage.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "out"

    def fail_halfway() -> None:
        with storage.directory(target) as folder:
            (folder / "part").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []
    with storage.directory(target) as folder:
        (folder / "part").write_text("whole")
    assert (target / "part").read_text() == "whole"


def test_a_folder_replaces_the_one_before_and_sweeps_scraps_of_killed_processes(tmp_path):
    target = tmp_path / "out"
    (tmp_path / ".out.dead.tmp").mkdir()
    for content in ("first", "second"):
        with storage.directory(target) as folder:
            (folder / "file").write_text(content)
    assert (target / "file").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_hashes_depend_on_content_and_names_only(tmp_path):
    assert storage.hash_json({"a": 1, "b": 2}) == storage.hash_json({"b": 2, "a": 1})
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "x").write_text("same")
    assert storage.hash_folder(one) == storage.hash_folder(two)
    (two / "y").write_text("")
    assert storage.hash_folder(one) != storage.hash_folder(two)


def test_unreadable_json_names_the_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json"):
        storage.read_json(tmp_path / "bad.json")
