"""Readers of rows: what is read, and the one clear error for everything else."""

import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError
from glasshouse.files import Position, jsonl, read_rows

ROWS = [{"text": "a\u2028b\x85c"}, {"text": "é", "n": 1, "deep": {"list": [1, None]}}, {}]


def written(rows: list[dict], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def rows_or_problem(path: Path) -> tuple[list, str]:
    """What a file gives: rows, or the message of its one error."""
    try:
        return [row for _, row in read_rows(path)], ""
    except DataError as error:
        return [], str(error)


COMPRESSED = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.compress(data),
}


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n  \n"])
def test_jsonl_rows_come_with_their_lines(tmp_path: Path, suffix: str, end: str):
    """Lines end at line feeds only, blank ones are passed over, and positions count lines from 1."""
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(COMPRESSED[suffix](written(ROWS, end)))
    positions, rows = zip(*read_rows(path), strict=True)
    assert list(rows) == ROWS
    lines = end.count("\n")
    assert positions == tuple(Position(path, 1 + i * lines) for i in range(3))


def test_the_last_line_needs_no_end_and_a_byte_order_mark_is_dropped(tmp_path: Path):
    """Both are usual in files from other systems."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + written(ROWS).rstrip(b"\n"))
    assert [row for _, row in read_rows(path)] == ROWS


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_json_lists_are_rows(tmp_path: Path, suffix: str):
    """A .json file holds a list of objects; positions count its items."""
    path = tmp_path / f"rows.json{suffix}"
    path.write_bytes(COMPRESSED[suffix](json.dumps(ROWS).encode()))
    assert list(read_rows(path)) == [(Position(path, i), row) for i, row in enumerate(ROWS, 1)]


def test_json_lines_under_another_name_are_recognised(tmp_path: Path):
    """One object a line in a .json file is a common mistake, and the fix says so."""
    path = tmp_path / "rows.json"
    path.write_bytes(written(ROWS))
    with pytest.raises(DataError, match=r"name it \.jsonl"):
        list(read_rows(path))


def test_parquet_rows_keep_their_types(tmp_path: Path):
    """Lists, structs and nulls become Python's; more rows than one batch come in order."""
    rows = [
        {"n": i, "text": str(i) if i % 7 else None, "messages": [{"role": "user"}] * (i % 3)}
        for i in range(700)
    ]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=300)
    assert [row for _, row in read_rows(path)] == rows
    assert next(iter(read_rows(path)))[0] == Position(path, 1)


def test_suffixes_may_be_in_capitals(tmp_path: Path):
    """Other systems write them so."""
    path = tmp_path / "ROWS.JSONL.GZ"
    path.write_bytes(gzip.compress(written(ROWS)))
    assert [row for _, row in read_rows(path)] == ROWS


def test_several_frames_are_one_file(tmp_path: Path):
    """Compressed files that were joined read as one, as gzip and zstd themselves do."""
    for suffix in (".gz", ".zst"):
        path = tmp_path / f"joined.jsonl{suffix}"
        path.write_bytes(b"".join(COMPRESSED[suffix](written([row])) for row in ROWS))
        assert [row for _, row in read_rows(path)] == ROWS


def test_reading_is_lazy(tmp_path: Path):
    """The rows before a broken one come first; a file is never read ahead as a whole."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(written(ROWS[:2]) + b"{broken\n")
    rows = read_rows(path)
    assert [next(rows)[1], next(rows)[1]] == ROWS[:2]
    with pytest.raises(DataError, match="row 3"):
        next(rows)


WRONG_ROWS = {
    b"[1]": "a list, not an object",
    b'"text"': "a string, not an object",
    b"12": "a number, not an object",
    b"null": "null, not an object",
    b"true": "a truth value, not an object",
    b'{"a": }': "not valid JSON",
    b'{"a": 1} {"b": 2}': "not valid JSON",
    b'{"a": "\xff"}': "not UTF-8",
    b"[" * 100_000: "not valid JSON",
    b'{"a": ' + b"1" * 5000 + b"}": "not valid JSON",
}


@pytest.mark.parametrize("wrong", WRONG_ROWS)
def test_a_wrong_row_is_named(tmp_path: Path, wrong: bytes):
    """The message names the file, the row and what is wrong, in one line with a fix."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + wrong + b"\n")
    with pytest.raises(DataError, match=WRONG_ROWS[wrong]) as error:
        list(read_rows(path))
    message = str(error.value)
    assert f"{path}, row 3" in message
    assert "Fix: " in message
    assert "\n" not in message
    assert len(message) < 500


def test_an_endless_row_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A line longer than the limit is not loaded."""
    monkeypatch.setattr(jsonl, "LONGEST_ROW", 100)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "' + b"x" * 200 + b'"}\n')
    with pytest.raises(DataError, match="row 1"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.parquet"])
@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"\x00" * 64, b"PAR1" * 3, b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]
)
def test_files_without_rows_are_named(tmp_path: Path, name: str, content: bytes):
    """Empty, blank, overwritten and cut-off files end in an error that names the file."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        list(read_rows(path))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_off_file_is_noticed(tmp_path: Path, suffix: str):
    """Rows before the end may come, but the end is an error: half a corpus is no corpus."""
    whole = COMPRESSED[suffix](written([{"text": "row " + str(i)} for i in range(1000)]))
    path = tmp_path / f"rows.jsonl{suffix}"
    for length in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut off"):
            list(read_rows(path))


def test_missing_files_folders_and_other_kinds_are_named(tmp_path: Path):
    """Each ends in an error with a fix."""
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("missing.jsonl", "missing.parquet", "folder.jsonl", "rows.csv", "rows"):
        with pytest.raises(DataError, match=name):
            list(read_rows(tmp_path / name))


JSONISH = st.lists(
    st.sampled_from(
        [b'{"text": "a"}', b"\n", b"{", b"}", b"[", b"\xff", b'"', b":", b"\\u", b"d800", b"1e999", b"NaN"]
    )
).map(b"".join)


@settings(deadline=None)
@given(data=st.binary() | JSONISH, name=st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json"]))
@example(data=zstandard.compress(b"{}")[:-1], name="a.jsonl.zst")
@example(data=gzip.compress(b"{}") + b"garbage", name="a.jsonl.gz")
def test_any_bytes_give_rows_or_one_error(tmp_path_factory, data: bytes, name: str):
    """Whatever a file holds, the answer is objects or a DataError."""
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(data)
    rows, problem = rows_or_problem(path)
    assert rows or name in problem
    assert all(isinstance(row, dict) for row in rows)


@settings(deadline=None, max_examples=200)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 2000),
)
def test_a_damaged_table_gives_rows_or_one_error(tmp_path_factory, changes, cut):
    """Changed bytes and lost ends of a Parquet file never raise anything but DataError."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "bc", None], "n": [1, 2, 3]}), buffer)
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.mktemp("any") / "a.parquet"
    path.write_bytes(data[: len(data) - cut] if cut % 3 == 0 else data)
    rows, problem = rows_or_problem(path)
    assert rows or "a.parquet" in problem
    assert all(isinstance(row, dict) for row in rows)
