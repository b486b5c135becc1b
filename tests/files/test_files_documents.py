"""Documents from files and folders."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError
from glasshouse.files import read_documents


def rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_text_file_is_one_document(tmp_path: Path):
    """Its text is unchanged: line ends, tabs and final spaces too."""
    (tmp_path / "note.txt").write_bytes("a\r\nb\t \u2028é\n ".encode())
    assert list(read_documents(tmp_path / "note.txt")) == [
        {"id": "note", "text": "a\r\nb\t \u2028é\n ", "source": "note"}
    ]
    (tmp_path / "old.md.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf# Title"))
    assert list(read_documents(tmp_path / "old.md.gz")) == [{"id": "old", "text": "# Title", "source": "old"}]


def test_rows_keep_what_they_say_about_themselves(tmp_path: Path):
    """id, source and language are kept, other columns go into the metadata, missing ones are made."""
    path = rows(
        tmp_path / "web.jsonl",
        {"id": 7, "text": "a", "source": "crawl", "lang": "en", "metadata": {"x": 1}, "url": "u"},
        {"text": "b", "id": None},
    )
    assert list(read_documents(path)) == [
        {"id": "7", "text": "a", "source": "crawl", "lang": "en", "metadata": {"x": 1, "url": "u"}},
        {"id": "web:2", "text": "b", "source": "web"},
    ]


def test_folders_are_walked_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Names sort, folders come after the files beside them, hidden and unknown files are passed over."""
    for name in ("b.txt", "a.md", "sub/c.txt", ".hidden/d.txt", ".e.txt", "photo.png", "data.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    documents = list(read_documents(tmp_path))
    assert [document["text"] for document in documents] == ["a.md", "b.txt", "sub/c.txt"]
    assert [document["id"] for document in documents] == ["a", "b", "sub/c"]
    assert {document["source"] for document in documents} == {tmp_path.name}
    notice = capsys.readouterr().err
    assert "1 .csv" in notice
    assert "1 .png" in notice


def test_several_paths_are_read_in_their_order(tmp_path: Path):
    """Files and folders may be mixed."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.txt").write_text("x")
    (tmp_path / "a.txt").write_text("a")
    paths = [str(tmp_path / "folder"), tmp_path / "a.txt"]
    assert [document["text"] for document in read_documents(paths)] == ["x", "a"]


def test_paths_are_checked_before_the_first_document(tmp_path: Path):
    """An empty or missing file late in the list is an error at once, before any work."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "z.txt").write_text("")
    for path in (tmp_path, [tmp_path / "a.txt", tmp_path / "z.txt"], [tmp_path / "a.txt", tmp_path / "none"]):
        with pytest.raises(DataError, match=r"z\.txt|none"):
            read_documents(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": "x"}, r"no \"text\".*it has 'body'.*rename the column"),
        ({"text": None}, r'"text" is NoneType'),
        ({"text": ["x"]}, r'"text" is list'),
        ({"messages": [], "id": 1}, "conversations.*glasshouse train sft"),
        ({"instruction": "x", "output": "y"}, "conversations.*glasshouse train sft"),
        ({"question": "x", "answer": "y"}, "conversations.*glasshouse train sft"),
        ({"text": "half \ud800"}, "surrogate"),
        ({}, "it has nothing"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, row: dict, message: str):
    """The error names the row, its columns and what to do."""
    path = rows(tmp_path / "rows.jsonl", {"text": "fine"}, row)
    with pytest.raises(DataError, match=message) as error:
        list(read_documents(path))
    assert "rows.jsonl, row 2" in str(error.value)


def test_rows_without_words_are_left_out_with_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Empty texts teach nothing; a file of nothing else is an error."""
    path = rows(tmp_path / "rows.jsonl", {"text": ""}, {"text": "x"}, {"text": " \n"})
    assert [document["text"] for document in read_documents(path)] == ["x"]
    assert "2 of 3 rows" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DataError, match="every row"):
        list(read_documents(rows(tmp_path / "blank.jsonl", {"text": ""})))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b" \n", "empty"), (b"a\nb\xff", "line 2 is not UTF-8"), (b"\xef\xbb\xbf", "empty")],
)
def test_text_files_that_are_no_text_are_named(tmp_path: Path, content: bytes, message: str):
    """Blank files and other encodings."""
    (tmp_path / "note.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_documents(tmp_path / "note.txt"))
    assert "note.txt" in str(error.value)


def test_paths_that_cannot_be_read_are_named(tmp_path: Path):
    """No path at all, an empty folder, a file of another kind."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "table.csv").write_text("a,b")
    for paths, message in (
        ([], "no file is named"),
        (tmp_path / "folder", "no file to read"),
        (tmp_path / "table.csv", r"\.csv.*use one of \.txt"),
    ):
        with pytest.raises(DataError, match=message):
            read_documents(paths)


@settings(deadline=None)
@given(
    data=st.binary(min_size=1) | st.text(min_size=1).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_are_a_document_or_one_error(tmp_path_factory, data: bytes):
    """A text file decodes to exactly its bytes, or a DataError names it."""
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(data)
    problem, text = "", None
    try:
        text = next(read_documents(path))["text"]
    except DataError as error:
        problem = str(error)
    assert "a.txt" in problem or text.encode() == data.removeprefix(b"\xef\xbb\xbf")
