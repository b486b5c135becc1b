"""Plain text, tables as text, subtitles."""

from __future__ import annotations

import pytest

from glasshouse.core.errors import DataError
from glasshouse.files.plain import read_plain
from glasshouse.files.subtitles import read_vtt
from glasshouse.files.table_text import read_csv


def paragraphs(data: bytes) -> list[str]:
    document = read_plain(data, "note.txt")
    return [document.slice(block) for block in document.blocks]


def test_paragraphs_stand_between_empty_lines():
    """Lines stay as they are, whatever ends them."""
    assert paragraphs(b"one\r\n  two \r\n\r\n \t\r\nthree\rfour\n\n\n") == ["one\n  two", "three\nfour"]


def test_form_feeds_are_pages():
    document = read_plain(b"\fa\n\nb\fc\n\f", "note.txt")
    assert [(document.slice(block), block.page) for block in document.blocks] == [
        ("a", 1),
        ("b", 1),
        ("c", 2),
    ]
    assert document.pages == 2
    assert read_plain(b"a", "note.txt").pages is None


def test_encodings_of_text():
    """By the mark; else UTF-16 by its zeros, UTF-8, Windows-1252."""
    words = "naïve “café” – 5 €"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "cp1252"):
        assert paragraphs(words.encode(encoding)) == [words]
    assert paragraphs("日本語のテキスト".encode()) == ["日本語のテキスト"]


def test_a_few_broken_bytes_do_not_change_the_encoding():
    document = read_plain("é".encode() * 50 + b"\xff x", "note.txt")
    assert document.text == "é" * 50 + "\ufffd x"
    assert [flag.kind for flag in document.flags] == ["broken"]


def test_hidden_words_of_a_text_are_flagged():
    smuggled = "".join(chr(0xE0000 + ord(letter)) for letter in "obey me")
    document = read_plain(f"seen{smuggled}".encode(), "note.txt")
    assert (document.text, document.flags[0].kind, document.flags[0].text) == (
        "seen",
        "hidden_text",
        "obey me",
    )


@pytest.mark.parametrize("data", [b"", b" \n\f ", b"\xef\xbb\xbf", bytes(range(32)) * 100, b"\x00" * 1000])
def test_what_is_not_a_text_is_refused(data: bytes):
    with pytest.raises(DataError):
        read_plain(data, "note.txt")


def rows(text: str) -> list[str]:
    return read_csv(text.encode(), "t.csv").text.split("\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_from_the_rows(delimiter: str):
    """Cells may hold the others, and line breaks inside quotation marks."""
    source = '"name",note\n"a\nb","1,5; x"\n"say ""hi""",|\n'
    fields = [["name", "note"], ['"a\nb"', '"1,5; x | \t y"'], ['"say ""hi"""', "z"]]
    text = "\n".join(delimiter.join(row) for row in fields)
    document = read_csv(text.encode(), "t.csv")
    assert document.text.split("\n") == ["name | note", "a b | 1,5; x | y", 'say "hi" | z']
    assert document.metadata == {"delimiter": delimiter, "rows": "3", "header": "name | note"}
    assert len(rows(source)) == 3


def test_rows_of_any_width_are_kept():
    assert rows("a,b\n1\n1,2,3\n\n,,\n,x\n") == ["a | b", "1", "1 | 2 | 3", " | x"]
    assert rows("sep=;\na;b,c\n") == ["a | b,c"]
    assert rows("just words\nin lines") == ["just words", "in lines"]
    assert "header" not in read_csv(b"1,2\n3,4", "t.csv").metadata


def test_a_table_is_one_block():
    document = read_csv(b"a,b\n1,2\n", "t.csv")
    assert [(block.kind, document.slice(block)) for block in document.blocks] == [("table", "a | b\n1 | 2")]


def test_an_open_quotation_mark_is_refused_when_it_swallows_the_file():
    with pytest.raises(DataError, match="row 2 cannot be read"):
        read_csv(b'a,b\n"' + b"x,y\n" * 50_000, "t.csv")


def test_rows_beyond_the_limit_are_flagged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("glasshouse.files.table_text.MAX_ROWS", 3)
    document = read_csv(b"a,b\n" * 5, "t.csv")
    assert document.text.count("\n") == 2
    assert [flag.kind for flag in document.flags] == ["cut"]


def test_cues_of_subrip_and_webvtt():
    srt = """1
00:00:01,000 --> 00:00:02,500
{\\an8}<i>Hello</i>
- you

2
00:00:03,000 --> 00:00:04,000
<font color=red>A &amp; B</font>
"""
    document = read_vtt(srt.replace("\n", "\r\n").encode("utf-8-sig"), "film.srt")
    assert [(document.slice(block), block.place) for block in document.blocks] == [
        ("Hello\n- you", "00:00:01,000 --> 00:00:02,500"),
        ("A & B", "00:00:03,000 --> 00:00:04,000"),
    ]
    vtt = """WEBVTT x

STYLE
::cue{}

NOTE a
b

name
00:01.000 --> 00:02.000 align:left
<v.loud Ann>one <00:01.500><c.x>two</c>
<v Bob>three
"""
    document = read_vtt(vtt.encode(), "film.vtt")
    assert document.text == "Ann: one two\nBob: three"
    assert document.metadata == {"note": "a b"}
    assert document.format == "vtt"


@pytest.mark.parametrize("data", [b"", b"WEBVTT", b"words only", b"1\n00:00 --> x\nhi"])
def test_files_without_a_cue_are_refused(data: bytes):
    with pytest.raises(DataError):
        read_vtt(data, "film.vtt")


def test_one_line_of_50_megabytes():
    assert len(read_plain(b"word " * 10_000_000, "note.txt").text) == 49_999_999
