"""Run folders: sharing by key, setting aside, locking, checking."""

import multiprocessing
import os

import pytest

from glasshouse.core.errors import StorageError
from glasshouse.core.record import Record, hash_files, now, stage_key, write_record
from glasshouse.pipeline import run_folder
from glasshouse.pipeline.run_folder import Problem, RunFolder


def key(name: str, label: str, inputs=None) -> str:
    return stage_key(name, {"label": label}, inputs or {}, {}, 1)


def put(folder: RunFolder, name: str, label: str, *, finished: bool = True, inputs=None) -> None:
    """A stage with one file; stages of one name and label have the same key."""
    out = folder.stage(name)
    (out / "model").mkdir(parents=True)
    (out / "model" / "file.txt").write_text("text")
    record = Record(
        stage=name,
        key=key(name, label, inputs),
        config={"label": label},
        inputs=inputs or {},
        seed=1,
        started=now(),
    )
    if finished:
        record = record.model_copy(update={"finished": now(), "files": hash_files(out)})
    write_record(out, record)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.path.mkdir(parents=True)
    return folder


def test_a_finished_stage_of_a_sibling_is_taken(run):
    sibling = RunFolder(run.path.parent / "b")
    put(sibling, "corpus", "k1")
    assert run.take("corpus", key("corpus", "k1")).endswith("b")
    assert (run.stage("corpus") / "model" / "file.txt").read_text() == "text"
    assert run.record("corpus").reused_from.endswith("b")
    assert run.verify() == []


def test_a_sibling_with_another_key_or_unfinished_or_broken_is_not_taken(run):
    put(RunFolder(run.path.parent / "b"), "corpus", "other")
    put(RunFolder(run.path.parent / "c"), "corpus", "k1", finished=False)
    put(RunFolder(run.path.parent / "d"), "corpus", "k1")
    (run.path.parent / "d" / "corpus" / "model" / "file.txt").unlink()
    assert run.take("corpus", key("corpus", "k1")) is None


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_taken_stage_outlives_the_run_it_came_from(run, monkeypatch, limit):
    """Linked (large) or copied (small): deleting one run harms no other."""
    monkeypatch.setattr(run_folder, "LINK_FROM_BYTES", limit)
    sibling = RunFolder(run.path.parent / "b")
    put(sibling, "evaluation/sft", "k1")
    run.take("evaluation/sft", key("evaluation/sft", "k1"))
    sibling.clear()
    assert (run.stage("evaluation/sft") / "model" / "file.txt").read_text() == "text"
    assert run.verify() == []


def test_what_a_recipe_would_not_make_is_set_aside_and_found_again(run):
    put(run, "corpus", "k1")
    put(run, "evaluation/sft", "k2", finished=False)
    assert run.keep_only({"corpus": "new", "evaluation/sft": "new"}) == ["corpus", "evaluation/sft"]
    assert run.records() == {}
    assert run.take("corpus", key("corpus", "k1")) is not None
    assert (
        run.take("evaluation/sft", key("evaluation/sft", "k2")) is not None
    )  # unfinished work of one's own goes on, too
    assert set(run.records()) == {"corpus", "evaluation/sft"}
    assert run.record("evaluation/sft").finished is None


def test_what_fits_stays_in_place(run):
    put(run, "corpus", "k1")
    assert run.keep_only({"corpus": key("corpus", "k1"), "sft": "k2"}) == []
    assert set(run.records()) == {"corpus"}


def test_verify_names_changed_and_missing_files_and_foreign_inputs(run):
    put(run, "corpus", "k1")
    put(run, "pretrain", "k2", inputs={"corpus": "k0"})
    put(run, "sft", "k3", finished=False)
    (run.stage("corpus") / "model" / "file.txt").write_text("tampered")
    (run.stage("pretrain") / "model" / "file.txt").unlink()
    assert set(run.verify()) == {
        Problem("corpus", "model/file.txt", "changed"),
        Problem("pretrain", "model/file.txt", "missing"),
        Problem("pretrain", "stage.json", "made from another corpus"),
        Problem("sft", "stage.json", "not finished"),
    }


def test_verify_notices_an_edited_record(run):
    put(run, "corpus", "k1")
    record = run.record("corpus")
    assert run.verify() == []
    write_record(run.stage("corpus"), record.model_copy(update={"seed": 2}))
    assert run.verify() == [Problem("corpus", "stage.json", "its key is not that of its settings")]


def _hold(path, ready, leave):
    with RunFolder(path).locked():
        ready.set()
        leave.wait(30)


def test_one_process_at_a_time_and_a_killed_one_leaves_no_lock(run):
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(run.path, ready, leave))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(StorageError, match=f"process {holder.pid}"), run.locked():
        pass
    holder.kill()
    holder.join()
    with run.locked():
        assert (run.path / ".lock").read_text() == str(os.getpid())
