"""Real files of markup and text: their words arrive, and blocks slice to their text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.files.words import fixture_file, hashed, share_found

from glasshouse.files.document import SEPARATOR, Document
from glasshouse.files.epub import read_epub
from glasshouse.files.html import read_html
from glasshouse.files.jats import read_jats
from glasshouse.files.markdown import read_markdown
from glasshouse.files.subtitles import read_vtt
from glasshouse.files.table_text import read_csv
from glasshouse.files.uspto import read_uspto

Reader = Callable[[bytes, str], Document]

FILES: list[tuple[Reader, str, str]] = [
    *(
        (read_csv, "csv", f"csv-{kind}.csv")
        for kind in ("comma", "semicolon", "inconsistent-header", "too-many-columns")
    ),
    *((read_html, "html", f"example_0{number}.html") for number in (1, 2, 3, 4)),
    *((read_html, "html", f"table_0{number}.html") for number in (1, 2, 3)),
    (read_html, "html", "formatting.html"),
    (read_html, "html", "html_code_snippets.html"),
    (read_html, "html", "html_description_list.html"),
    (read_html, "html", "html_rich_table_cells.html"),
    (read_html, "html", "hyperlink_03.html"),
    (read_html, "html", "wiki_duck.html"),
    (read_epub, "epub", "epub_purvis_poetry.epub"),
    *((read_markdown, "md", f"{name}.md") for name in ("blocks", "duck", "mixed", "nested", "wiki")),
    (read_vtt, "webvtt", "webvtt_example_01.vtt"),
    (read_vtt, "webvtt", "webvtt_example_03.vtt"),
    (read_jats, "jats", "elife-56337.nxml"),
    (read_jats, "jats", "pntd.0008301.nxml"),
    (read_uspto, "uspto", "ipa20180000016.xml"),
    (read_uspto, "uspto", "pa20010031492.xml"),
    (read_uspto, "uspto", "pftaps057006474.txt"),
]


def load(reader: Reader, folder: str, name: str) -> Document:
    return reader(fixture_file("fixtures", folder, name).read_bytes(), name)


def check_blocks(document: Document) -> None:
    """Blocks and the separators between them are the whole text, and no block is blank or untrimmed."""
    texts = [document.slice(block) for block in document.blocks]
    assert SEPARATOR.join(texts) == document.text
    assert all(text and text == text.strip() for text in texts)


@pytest.mark.parametrize(("reader", "folder", "name"), FILES, ids=[name for _, _, name in FILES])
def test_the_words_of_a_real_file_arrive(reader: Reader, folder: str, name: str):
    """0.95 is promised; the lists hold what a browser shows, or the source without its marks."""
    document = load(reader, folder, name)
    assert share_found(name, document.text) >= 0.98
    check_blocks(document)


def test_hardly_a_word_is_added_to_a_web_page():
    """The browser shows 4,477 words; the numbers of the ordered list of 50 references come on top."""
    document = load(read_html, "html", "wiki_duck.html")
    assert hashed(document.text).total() <= 4_477 + 60
    headings = [
        document.slice(block) for block in document.blocks if block.kind == "heading" and block.level == 2
    ]
    assert headings[:4] == ["Contents", "Etymology", "Taxonomy", "Morphology"]
    assert document.metadata["title"] == "Duck - Wikipedia"


def test_a_merged_cell_comes_once():
    document = load(read_html, "html", "example_04.html")
    (table,) = (document.slice(block) for block in document.blocks if block.kind == "table")
    assert table.split("\n") == [
        "Header 1 | Header 2 & 3 (colspan)",
        "Row 1 & 2, Col 1 (rowspan) | Row 1, Col 2 | Row 1, Col 3",
        " | Row 2, Col 2 & 3 (colspan)",
        "Row 3, Col 1 | Row 3, Col 2 | Row 3, Col 3",
    ]


def test_a_hidden_block_of_a_real_page_is_flagged():
    document = load(read_html, "html", "html_code_snippets.html")
    (flag,) = document.flags
    assert (flag.kind, flag.text) == ("hidden_text", "$ docling-tools")
    assert "$ docling-tools models download-hf-repo" in document.text


def test_articles_have_their_sections():
    document = load(read_jats, "jats", "elife-56337.nxml")
    headings = {document.slice(block): block.level for block in document.blocks if block.kind == "heading"}
    assert next(iter(headings.items())) == (document.metadata["title"], 1)
    assert document.metadata["title"].startswith("KRAB-zinc finger protein gene expansion")
    assert headings["Abstract"] == headings["Introduction"] == headings["References"] == 2
    assert headings["ChIP-seq analysis"] == 3
    assert document.metadata["doi"] == "10.7554/eLife.56337"
    assert document.metadata["date"] == "2020-06-01"
    assert document.metadata["author"].startswith("Gernot Wolf; Alberto de Iaco")
    kinds = [block.kind for block in document.blocks]
    assert kinds.count("table") == 2
    assert kinds.count("caption") == 11 + 2 + 6  # figures, tables, files beside the article
    other = load(read_jats, "jats", "pntd.0008301.nxml")
    references = [other.slice(block) for block in other.blocks[-53:]]
    assert all(text.startswith(f"{number}. ") for number, text in enumerate(references, start=1))


def test_patents_have_their_claims():
    """Three generations of one format: 11, 17 and 20 claims."""
    for name, count, first in (
        ("ipa20180000016.xml", 11, "1. A light emitting device comprising:\na light emitting element"),
        ("pa20010031492.xml", 17, "1. A method of making a non-viable preparation"),
        ("pftaps057006474.txt", 20, "1. A labeled complex for detecting a subject compound"),
    ):
        document = load(read_uspto, "uspto", name)
        claims = [document.slice(b) for b in document.blocks if b.kind == "list_item" and b.level == 1]
        assert len(claims) == count
        assert claims[0].startswith(first)
        assert [int(claim.partition(".")[0]) for claim in claims] == list(range(1, count + 1))
        assert all(document.metadata[key] for key in ("title", "author", "number", "date"))


def test_chapters_of_a_book_say_where_they_stand():
    document = load(read_epub, "epub", "epub_purvis_poetry.epub")
    places = list(dict.fromkeys(block.place for block in document.blocks))
    assert places == [
        f"epub/text/{name}.xhtml" for name in ("titlepage", "imprint", "poetry", "colophon", "uncopyright")
    ]
    verse = document.text.index("His woes and his sorrows")
    assert document.text[verse - 1] == "\n"
    assert document.metadata["author"] == "Sarah Louisa Forten Purvis"


def test_cues_keep_times_and_speakers():
    document = load(read_vtt, "webvtt", "webvtt_example_01.vtt")
    first = document.blocks[0]
    assert (document.slice(first), first.place) == (
        "Roger Bingham: We are in New York City",
        "00:11.000 --> 00:13.000",
    )
    assert document.slice(document.blocks[11]) == "Neil deGrasse Tyson: Laughs"
    assert "-->" not in document.text
    assert "World Wide Web Consortium" in document.metadata["note"]
