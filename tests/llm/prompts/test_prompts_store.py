"""A folder of prompts: versions are kept, and a used one may not change."""

from __future__ import annotations

import json
import os

import pytest

from glasshouse.core.errors import ConfigError, StorageError, UsageError
from glasshouse.llm.prompts.store import LOCK, PromptStore


def write(folder, name, version, text="Hello {{ who }}", **header):
    path = folder / name / f"{version}.md"
    path.parent.mkdir(exist_ok=True)
    said = {"name": name, "version": version, "inputs": {"who": {}}} | header
    path.write_text(f"---\n{json.dumps(said)}\n---\n{text}\n", "utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for version in (1, 2, 10):
        write(tmp_path, "greeting", version, f"Hello {{{{ who }}}}, {version}")
    write(tmp_path, "goodbye", 1)
    return tmp_path


def test_names_versions_and_the_newest(folder):
    store = PromptStore(folder)
    assert store.names() == ["goodbye", "greeting"]
    assert store.versions("greeting") == [1, 2, 10]
    assert store.template("greeting").version == 10
    assert store.render("greeting", {"who": "Ada"}, 2).messages[0]["content"] == "Hello Ada, 2"
    assert store.render("greeting", {"who": "Ada"}).labels["version"] == "10"


def test_what_is_not_there_is_told(folder):
    store = PromptStore(folder)
    with pytest.raises(UsageError, match="did you mean 'greeting'"):
        store.template("greating")
    with pytest.raises(UsageError, match="versions: 1, 2, 10"):
        store.template("greeting", 3)
    with pytest.raises(UsageError, match="no such folder"):
        PromptStore(folder / "none")
    with pytest.raises(UsageError, match="no prompt is called"):
        store.template("../greeting")


def test_the_header_must_agree_with_the_path(folder):
    (folder / "goodbye" / "2.md").write_bytes((folder / "goodbye" / "1.md").read_bytes())
    with pytest.raises(ConfigError, match="write name: goodbye and version: 2"):
        PromptStore(folder).template("goodbye")


def test_a_version_that_changed_after_it_was_used_is_refused_until_it_is_restored(folder):
    PromptStore(folder).render("greeting", {"who": "Ada"})
    path = folder / "greeting" / "10.md"
    before = path.read_bytes()
    path.write_bytes(before + b"and more\n")
    store = PromptStore(folder)
    with pytest.raises(ConfigError, match=r"version 10 .* was changed after it was used .*11\.md"):
        store.render("greeting", {"who": "Ada"})
    assert store.state("greeting", 10) == "changed"
    assert store.template("greeting").text.endswith("and more\n")  # to look at it is allowed
    path.write_bytes(before)
    assert store.render("greeting", {"who": "Ada"})
    assert (store.state("greeting", 10), store.state("greeting", 2)) == ("used", "new")


def test_a_change_in_the_same_process_is_seen(folder):
    store = PromptStore(folder)
    store.render("greeting", {"who": "Ada"})
    write(folder, "greeting", 10, "Something quite different, {{ who }}")
    with pytest.raises(ConfigError, match="changed after it was used"):
        store.render("greeting", {"who": "Ada"})


def test_an_unused_version_may_change(folder):
    store = PromptStore(folder)
    write(folder, "greeting", 10, "Well, hello {{ who }}")
    assert store.render("greeting", {"who": "Ada"}).messages[0]["content"] == "Well, hello Ada"


def test_two_processes_keep_each_others_records(folder):
    one, other = PromptStore(folder), PromptStore(folder)
    one.render("greeting", {"who": "Ada"}, 1)
    other.render("goodbye", {"who": "Ada"})
    other.render("greeting", {"who": "Ada"}, 2)
    locked = json.loads((folder / LOCK).read_text("utf-8"))
    assert {name: list(versions) for name, versions in locked.items()} == {
        "goodbye": ["1"],
        "greeting": ["1", "2"],
    }


def test_a_used_version_that_is_gone_is_told(folder):
    store = PromptStore(folder)
    store.render("greeting", {"who": "Ada"}, 2)
    (folder / "greeting" / "2.md").unlink()
    assert store.gone() == [("greeting", 2)]
    assert store.state("greeting", 2) == "gone"


def test_without_a_lock_nothing_is_written(folder):
    PromptStore(folder, lock=False).render("greeting", {"who": "Ada"})
    assert not (folder / LOCK).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_told(folder):
    folder.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="lock=False"):
            PromptStore(folder).render("greeting", {"who": "Ada"})
    finally:
        folder.chmod(0o700)
