"""Files of strangers are read in children; one that loops, fills memory or crashes ends alone."""

from __future__ import annotations

import os
import signal
import threading
import time
import zlib
from pathlib import Path

import pytest
from tests.files.pdf_maker import lines, make_pdf, text

from glasshouse.core.errors import DataError
from glasshouse.files.document import Block, Document, Flag
from glasshouse.files.guarded import GuardedReader, document_from, document_to
from glasshouse.files.open_document import open_document

MEMORY = 1 << 30


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.pdf"
    path.write_bytes(make_pdf([text("Good words — on a page.".replace("—", "\x97")), text("and more")]))
    return path


def children(reader: GuardedReader) -> set[int]:
    """The process numbers of the children that wait for work."""
    return {child._process.pid for child in list(reader._idle.queue) if child is not None}


def test_a_document_comes_back_as_it_is(good: Path) -> None:
    with GuardedReader() as reader:
        assert reader.read(good) == open_document(good)


def test_json_keeps_every_field() -> None:
    block = Block("table", 0, 5, page=3, level=2, place="Sheet1!A1", box=(1.0, 2.0, 3.0, 4.5))
    flag = Flag("hidden_text", "Words.", (1, 2), "x\ud800y\u2028")
    document = Document("a", "Words", (block,), "xlsx", 4, {"title": "T"}, (flag,))
    assert document_from(document_to(document)) == document


def test_children_are_reused_and_closed(good: Path) -> None:
    with GuardedReader() as reader:
        reader.read(good)
        first = children(reader)
        reader.read(good)
        assert children(reader) == first
        (pid,) = first
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_errors_come_back_as_they_are(tmp_path: Path, good: Path) -> None:
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    with GuardedReader() as reader:
        with pytest.raises(DataError, match=r"bad\.pdf") as error:
            reader.read(tmp_path / "bad.pdf")
        assert error.value.fix
        before = children(reader)
        reader.read(good)
        assert children(reader) == before  # an error is no reason for a new child


def test_time_is_bounded(tmp_path: Path, good: Path) -> None:
    """10,000 pages in one second: ended, and the next file is read."""
    slow = tmp_path / "slow.pdf"
    slow.write_bytes(make_pdf([lines(*["words and words and words"] * 50, pitch=12)] * 10_000, shared=True))
    with GuardedReader(memory=MEMORY) as reader:
        reader.read(good)
        child = next(child for child in reader._idle.queue if child is not None)
        child._seconds = 1.0
        with pytest.raises(DataError, match=r"slow\.pdf.*1 seconds|1 seconds.*slow\.pdf"):
            reader.read(slow)
        assert children(reader) == set()
        assert reader.read(good).pages == 2


def bomb() -> bytes:
    """A page whose content unpacks to 4 GiB."""
    pump = zlib.compressobj(9)
    first = pump.compress(b" " * (1 << 22)) + pump.flush(zlib.Z_FULL_FLUSH)
    again = pump.compress(b" " * (1 << 22)) + pump.flush(zlib.Z_FULL_FLUSH)  # depends on nothing before it
    content = first + again * 1_023 + pump.flush()
    page = make_pdf([text("Words.")], compress=True)
    start, end = (
        page.index(b"stream\n", page.index(b"6 0 obj")) + 7,
        page.index(b"endstream", page.index(b"6 0 obj")),
    )
    head = page[:start]
    length = head.rindex(b"/Length")
    return head[:length] + b"/Length %d >>\nstream\n" % len(content) + content + b"\n" + page[end:]


def test_memory_is_bounded(tmp_path: Path, good: Path) -> None:
    """A bomb ends in an error or a flagged result within the ceiling; the parent and other files live on."""
    path = tmp_path / "bomb.pdf"
    path.write_bytes(bomb())
    with GuardedReader(memory=MEMORY, seconds=60) as reader:
        try:
            document = reader.read(path)
        except DataError as error:
            assert "bomb.pdf" in str(error)  # noqa: PT017
        else:
            assert document.flags
        assert reader.read(good).pages == 2


def test_too_little_memory_is_told(good: Path) -> None:
    with GuardedReader(memory=64 << 20) as reader, pytest.raises(DataError, match=r"good\.pdf"):
        reader.read(good)


def test_a_child_that_dies_is_replaced(tmp_path: Path, good: Path) -> None:
    slow = tmp_path / "slow.pdf"
    slow.write_bytes(make_pdf([lines(*["words and words and words"] * 50, pitch=12)] * 5_000, shared=True))
    with GuardedReader() as reader:
        reader.read(good)
        (pid,) = children(reader)

        def kill() -> None:
            time.sleep(0.3)
            os.kill(pid, signal.SIGSEGV)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(DataError, match=r"died \(signal 11\)"):
            reader.read(slow)
        killer.join()
        assert reader.read(good).pages == 2


def test_many_threads_share_few_children(good: Path) -> None:
    expected = open_document(good)
    results: list[Document] = []
    with GuardedReader(2) as reader:
        threads = [threading.Thread(target=lambda: results.append(reader.read(good))) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(children(reader)) <= 2
    assert results == [expected] * 12


def test_nothing_in_the_working_folder_is_run(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of strangers' files may hold a json.py."""
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    with GuardedReader() as reader:
        assert reader.read("good.pdf").pages == 2
