"""Whatever the bytes: a document whose blocks slice to its text, or a DataError."""

from __future__ import annotations

import contextlib
import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import DataError
from glasshouse.files.document import SEPARATOR, Document
from glasshouse.files.epub import read_epub
from glasshouse.files.html import read_html
from glasshouse.files.jats import read_jats
from glasshouse.files.markdown import read_markdown
from glasshouse.files.plain import read_plain
from glasshouse.files.subtitles import read_vtt
from glasshouse.files.table_text import read_csv
from glasshouse.files.uspto import read_uspto
from glasshouse.files.xml import parse_xml

READERS = [read_html, read_markdown, read_plain, read_csv, read_vtt, read_epub, read_jats, read_uspto]

TAGS = [
    "p",
    "div",
    "span",
    "b",
    "h1",
    "h3",
    "ul",
    "ol",
    "li",
    "dl",
    "dt",
    "dd",
    "table",
    "tr",
    "td",
    "th",
    "caption",
    "pre",
    "br",
    "a",
    "style",
    "script",
    "dialog",
    "details",
    "sup",
    "article",
    "body",
    "back",
    "sec",
    "title",
    "fig",
    "label",
    "table-wrap",
    "list",
    "list-item",
    "fn",
    "ref-list",
    "ref",
    "element-citation",
    "name",
    "surname",
    "disp-formula",
    "alternatives",
    "math",
    "tex-math",
    "us-patent-grant",
    "abstract",
    "description",
    "claims",
    "claim",
    "claim-text",
    "tables",
    "tgroup",
    "colspec",
    "row",
    "entry",
    "heading",
]
ATTRIBUTES = [
    "",
    " hidden",
    " style='display:none'",
    ' style="color:#fff;font-size:0"',
    " class=x",
    " colspan=3 rowspan=2",
    " rowspan=70000",
    " start=-3",
    " value=x",
    " namest='1' nameend='9'",
    " morerows='2'",
    " list-type='order'",
]
SIGNS = [
    r"&amp;",
    r"&mdash;",
    r"&x;",
    r"&#0;",
    r"<!--",
    r"-->",
    r"<![CDATA[",
    r"]]>",
    r"<?",
    r"?>",
    r"<!DOCTYPE",
    r"[",
    r"]>",
    r".x{display:none}",
    r"#",
    r"-",
    r"*",
    r"1.",
    r">",
    r"```",
    r"~~~",
    r"|",
    r"|-",
    r"---",
    r"===",
    r"PATN",
    r"ABST",
    r"PAL",
    r"CLMS",
    r"TBL",
    r"NUM",
    r"WEBVTT",
    r"00:01.000",
    r"-->",
    r"00:02.000",
    r"<v",
    r"A>",
    r",",
    r";",
    r'"',
    r"sep=;",
    r"{\an8}",
]
SPACES = ["\n", "\n\n", "\t", "    ", "\r\n", "\f", "\xa0", "\0", "\ufeff", "\u00ad", "\U000e0041", "\ud7ff"]
PIECES = st.one_of(
    st.builds("<{}{}>".format, st.sampled_from(TAGS), st.sampled_from(ATTRIBUTES)),
    st.builds("</{}>".format, st.sampled_from(TAGS)),
    st.builds("<{}/>".format, st.sampled_from(TAGS)),
    st.sampled_from([*SIGNS, *SPACES]),
    st.text(max_size=8),
)
MARKUP = st.lists(PIECES, max_size=60).map("".join)


def check(document: Document) -> None:
    texts = [document.slice(block) for block in document.blocks]
    assert SEPARATOR.join(texts) == document.text
    assert all(text and text == text.strip() for text in texts)
    document.text.encode("utf-8")


def read(reader, data: bytes) -> None:
    with contextlib.suppress(DataError):
        check(reader(data, "x"))


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=300))
def test_any_bytes(reader, data: bytes):
    read(reader, data)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(source=MARKUP, encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]))
def test_any_markup(reader, source: str, encoding: str):
    for text in (
        source,
        f"<article><body>{source}</body></article>",
        f"WEBVTT\n\n{source}",
        f"PATN\n{source}",
    ):
        read(reader, text.encode(encoding, errors="ignore"))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(source=MARKUP)
def test_xml_is_read_or_refused(source: str):
    for text in (source, f"<!DOCTYPE a [{source}]><a/>", f"<a>{source}</a>"):
        with contextlib.suppress(DataError):
            parse_xml(text.encode(), "x")


@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=30))
def test_no_word_of_a_page_is_lost(words: list[str]):
    """Whatever elements stand around the words, in their order."""
    tags = ["p", "li", "b", "td", "h2", "pre", "dd"]
    source = "".join(f"<{tags[i % 7]}>{word}</{tags[i % 7]}> " for i, word in enumerate(words))
    assert re.findall(r"[a-z]+", read_html(source.encode(), "x").text) == words


UNITS = [
    (
        read_html,
        "<div><h2>Head</h2><p>Some <b>bold</b> words.<ul><li>a<li>b</ul><table><tr><td>1<td>2</table></div>",
    ),
    (
        read_markdown,
        "# Head\n\nSome **bold** <sub>words</sub>.\n\n- a\n  - b\n\n|a|b|\n|-|-|\n|1|2|\n\n```\nx\n```\n\n",
    ),
    (read_plain, "Some words.\nMore words.\n\n"),
    (read_csv, "a,b,c\n"),
    (read_vtt, "00:01.000 --> 00:02.000\n<v A>Hello\n\n"),
    (read_jats, "<sec><title>T</title><p>a <italic>b</italic><fig><label>F</label></fig></p></sec>"),
    (read_uspto, "<heading>H</heading><p>a <b>b</b></p>"),
]
AROUND = {
    read_jats: ("<article><body>", "</body></article>"),
    read_uspto: ("<us-patent-grant><description>", "</description></us-patent-grant>"),
    read_vtt: ("WEBVTT\n\n", ""),
}


def calls(reader, source: str) -> int:
    """How many functions are called to read it: a measure of time that no other process can disturb."""
    count = 0

    def tick(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    data = source.encode()
    sys.setprofile(tick)
    try:
        reader(data, "x")
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(("reader", "unit"), UNITS, ids=[reader.__name__ for reader, _ in UNITS])
def test_work_grows_as_the_file_does(reader, unit: str):
    before, after = AROUND.get(reader, ("", ""))
    reader(f"{before}{unit}{after}".encode(), "x")  # imports what it needs
    once, twice = (calls(reader, before + unit * count + after) for count in (500, 1000))
    assert twice < 2.1 * once + 100
