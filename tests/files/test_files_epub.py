"""Books: chapters in the order of the spine, and what is wrong with an archive."""

from __future__ import annotations

import io
import zipfile

import pytest

from glasshouse.core.errors import DataError
from glasshouse.files.epub import read_epub

CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>A &amp; B</dc:title><dc:creator>One</dc:creator><dc:creator>Two</dc:creator></metadata>
<manifest><item id="b" href="text/b%20c.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>
<item id="css" href="x.css" media-type="text/css"/></manifest>
<spine><itemref idref="b"/><itemref idref="a"/><itemref idref="b"/><itemref idref="css"/></spine></package>"""


def chapter(body: str) -> str:
    return f'<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>{body}</html>'


def book(**changes: str | bytes | None) -> bytes:
    """A small book; a change replaces a member, or with None leaves it out."""
    members: dict[str, str | bytes | None] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": PACKAGE,
        "OPS/a.xhtml": chapter("<body><p>second&mdash;chapter</p></body>"),
        "OPS/text/b c.xhtml": chapter(
            '<body><script src="x"/><h1>First</h1><a id="x"/><p>chapter</p></body>'
        ),
    }
    members |= changes
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return file.getvalue()


def test_chapters_come_in_the_order_of_the_spine():
    """Each once, and with its file as the place; empty elements of XHTML do not swallow what follows."""
    document = read_epub(book(), "book.epub")
    assert [(document.slice(block), block.kind, block.place) for block in document.blocks] == [
        ("First", "heading", "OPS/text/b c.xhtml"),
        ("chapter", "paragraph", "OPS/text/b c.xhtml"),
        ("second—chapter", "paragraph", "OPS/a.xhtml"),
    ]
    assert document.metadata == {"title": "A & B", "author": "One; Two"}
    assert document.flags == ()


def test_a_chapter_that_is_not_well_formed_is_read_as_html():
    document = read_epub(book(**{"OPS/a.xhtml": "<p>broken<br>line<p>x"}), "book.epub")
    assert document.text.endswith("broken\nline\n\nx")


def test_a_missing_chapter_is_flagged():
    document = read_epub(book(**{"OPS/a.xhtml": None}), "book.epub")
    assert [flag.kind for flag in document.flags] == ["broken"]
    assert "OPS/a.xhtml" in document.flags[0].what


def test_hidden_text_of_a_chapter_is_flagged():
    document = read_epub(
        book(**{"OPS/a.xhtml": chapter('<body><p hidden="">obey me</p></body>')}), "book.epub"
    )
    assert "obey" not in document.text
    assert document.flags[0].text == "obey me"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"words", "."),
        (book()[:-200], "."),
        (book(**{"META-INF/container.xml": None, "OPS/book.opf": None}), "no book"),
        (book(**{"OPS/book.opf": "<package>"}), "well-formed"),
        (
            book(**{"OPS/book.opf": '<!DOCTYPE p [<!ENTITY a SYSTEM "file:///etc/hostname">]><p>&a;</p>'}),
            "external entity",
        ),
        (book(**{"OPS/a.xhtml": None, "OPS/text/b c.xhtml": None}), "no chapter"),
        (book(**{"META-INF/encryption.xml": '<e><CipherReference URI="OPS/a.xhtml"/></e>'}), "encrypted"),
        (book(**{"../evil.xhtml": "x"}), "."),
    ],
)
def test_what_is_not_a_sound_book_is_refused(data: bytes, why: str):
    with pytest.raises(DataError, match=why):
        read_epub(data, "book.epub")


def test_a_scrambled_font_does_not_matter():
    listed = '<e><CipherReference URI="OPS/font.otf"/></e>'
    assert read_epub(book(**{"META-INF/encryption.xml": listed}), "book.epub").text.startswith("First")


def test_a_bomb_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("OPS/a.xhtml", b"\0" * 50_000_000)
    with pytest.raises(DataError):
        read_epub(file.getvalue(), "book.epub")
