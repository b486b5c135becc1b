"""The one door: a file is read as what it is, whatever its name says."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from tests.files.pdf_maker import make_pdf, text
from tests.files.words import fixture_file

from glasshouse.core.errors import DataError
from glasshouse.files import open_document as door
from glasshouse.files.formats import FORMATS, format_of
from glasshouse.files.open_document import SUFFIXES, open_document

PDF = make_pdf([text("A page of words.")])
ARTICLE = b'<?xml version="1.0"?>\n<!DOCTYPE article [<!ENTITY a "b">]><!-- note --><article></article>'
MAIL = b"Received: from a by b\nFrom: a@example.com\nTo: b@example.com\nSubject: Hello\n\nWords.\n"


def archive(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members:
            file.writestr(name, data)
    return out.getvalue()


CONTENTS = {
    "pdf": PDF,
    "docx": archive(("[Content_Types].xml", b"<Types/>"), ("word/document2.xml", b"<w/>")),
    "pptx": archive(("[Content_Types].xml", b"<Types/>"), ("ppt/presentation.xml", b"<p/>")),
    "xlsx": archive(("_rels/.rels", b""), ("xl/workbook.xml", b"<w/>")),
    "odt": archive(("mimetype", b"application/vnd.oasis.opendocument.text"), ("content.xml", b"")),
    "ods": archive(("mimetype", b"application/vnd.oasis.opendocument.spreadsheet")),
    "odp": archive(("mimetype", b"application/vnd.oasis.opendocument.presentation")),
    "epub": archive(("mimetype", b"application/epub+zip"), ("META-INF/container.xml", b"")),
    "html": b"\xef\xbb\xbf<!-- page -->\n<!DOCTYPE html>\n<html><body>Words</body></html>",
    "jats": ARTICLE,
    "uspto": b'<?xml version="1.0"?><us-patent-grant lang="EN"></us-patent-grant>',
    "eml": MAIL,
    "vtt": b"WEBVTT\n\n00:00.000 --> 00:01.000\nWords\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_tells_the_format(name: str) -> None:
    """With any name: none, its own suffix, the suffix of another format."""
    for file in ("report", f"report.{name}", "report.txt", "report.pdf", "report.csv", "report.html"):
        assert format_of(CONTENTS[name], file).name == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.csv", "csv"),
        ("a.TSV", "csv"),
        ("a.md", "markdown"),
        ("a.txt", "text"),
        ("a.log", "text"),
        ("a", "text"),
        ("a.pdf", "text"),
        ("a.docx", "text"),
        ("a.html", "text"),  # without any tag
    ],
)
def test_the_name_tells_what_plain_text_is(file: str, name: str) -> None:
    assert format_of(b"Words, more words.\nFrom: here on\n", file).name == name


def test_old_patents_are_text_with_fields() -> None:
    data = fixture_file("fixtures", "uspto", "pftaps057006474.txt").read_bytes()
    assert format_of(data, "pftaps057006474.txt").name == "uspto"


@pytest.mark.parametrize("file", ["letter.txt", "letter.docx", "letter.html"])
def test_a_wrong_extension_is_told(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.write_bytes(PDF)
    document = open_document(path)
    assert (document.name, document.format, document.text) == (file, "pdf", "A page of words.")
    assert [flag.kind for flag in document.flags] == ["wrong_extension"]
    assert path.suffix in document.flags[0].what


def test_a_right_extension_and_none_are_no_matter(tmp_path: Path) -> None:
    for file in ("letter.pdf", "letter.PDF", "letter"):
        (tmp_path / file).write_bytes(PDF)
        assert open_document(tmp_path / file).flags == ()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "PNG"),
        (gzip.compress(b"Words"), "gzip"),
        (b"{\\rtf1 Words}", "Rich Text"),
        (bytes(range(256)) * 40, "not a document"),
        (archive(("a.txt", b"Words")), "ZIP archive"),
        (b'<?xml version="1.0"?><invoice><total>3</total></invoice>', "<invoice>"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "before 2007"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le") + bytes(600),
            "encrypted",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "thing.dat"
    path.write_bytes(data)
    with pytest.raises(DataError, match=told) as error:
        open_document(path)
    assert "thing.dat" in str(error.value)
    assert error.value.fix


def test_missing_files_folders_and_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_document(tmp_path / "none.pdf")
    with pytest.raises(DataError, match="folder"):
        open_document(tmp_path)
    (tmp_path / "large.txt").write_bytes(b"Words " * 1_000)
    monkeypatch.setattr(door, "MAX_BYTES", 5_000)
    with pytest.raises(DataError, match="split the file"):
        open_document(tmp_path / "large.txt")


def test_every_format_has_its_reader() -> None:
    for format in FORMATS:
        assert callable(format.reader())
        assert set(format.suffixes) <= set(SUFFIXES)


def test_every_fixture_opens() -> None:
    """Each file of the data has a reader and is what its name says, but for the scan."""
    folder = fixture_file("fixtures")
    files = [path for path in sorted(folder.glob("*/*")) if not path.name.endswith(".expected.md")]
    assert len(files) > 40
    for path in files:
        if path.parent.name == "ocr":
            with pytest.raises(DataError, match="scan"):
                open_document(path)
            continue
        document = open_document(path)
        assert document.text
        assert not [flag for flag in document.flags if flag.kind in ("wrong_extension", "broken", "cut")], (
            path
        )
