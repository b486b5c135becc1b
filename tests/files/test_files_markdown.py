"""Markdown: structure found, words as the source has them."""

from __future__ import annotations

import pytest

from glasshouse.files.document import Document
from glasshouse.files.markdown import read_markdown


def read(source: str) -> Document:
    return read_markdown(source.encode(), "page.md")


def blocks(source: str) -> list[tuple[str, int | None, str]]:
    document = read(source)
    return [(block.kind, block.level, document.slice(block)) for block in document.blocks]


def test_headings_of_both_kinds():
    """`#` at the end belongs to the heading only where a space is before it."""
    assert blocks("# One ##\n## Two#\n####### no\n\nOne\n===\nTwo *x*\n---\n#\n#no") == [
        ("heading", 1, "One"),
        ("heading", 2, "Two#"),
        ("paragraph", None, "####### no"),
        ("heading", 1, "One"),
        ("heading", 2, "Two *x*"),
        ("paragraph", None, "#no"),
    ]


def test_marks_inside_a_line_stay():
    """So that a quote of the source is a quote of the text."""
    source = "This is **bold**, `code`, a [link](http://x.y) and 2 < 3 & 4.\nNext line."
    assert read(source).text == source


def test_lists_have_depth_and_numbers():
    assert blocks("- a\n  - b\n\n    more b\n* c\nlazy\n\n1. d\n   1) e\n12. f\n\nend") == [
        ("list_item", 1, "a"),
        ("list_item", 2, "b"),
        ("list_item", 2, "more b"),
        ("list_item", 1, "c\nlazy"),
        ("list_item", 1, "1. d"),
        ("list_item", 2, "1) e"),
        ("list_item", 1, "12. f"),
        ("paragraph", None, "end"),
    ]


def test_tables_lose_their_rules():
    assert blocks("| a | b \\| c |\n|---|:-:|\n| 1 | |\n| **2** | 3 |\n\nx | y\nno table") == [
        ("table", None, "a | b | c\n1 | \n**2** | 3"),
        ("paragraph", None, "x | y\nno table"),
    ]


def test_code_keeps_its_lines_and_is_not_read():
    assert blocks("```py\n# no heading\n\n  - x\n```\n\n    a\n      b\n\n~~~\n```\nopen") == [
        ("code", None, "# no heading\n\n  - x"),
        ("code", None, "a\n  b"),
        ("code", None, "```\nopen"),
    ]


def test_quotes_lose_their_marks():
    assert blocks("> said\nand on\n> > deeper\n>\n> # H\n> ```\n> > code\n> ```\n\nafter") == [
        ("paragraph", None, "said\nand on"),
        ("paragraph", None, "deeper"),
        ("heading", 1, "H"),
        ("code", None, "> code"),
        ("paragraph", None, "after"),
    ]


def test_html_is_read_as_html():
    inline = "a<br>b H<sub>2</sub>O `<b>`"
    document = read(f"{inline}\n\n<div>\n<p>in <i>html</i>\n</div>\n\n<!-- no\n\nno -->\nafter <!-- no -->x")
    assert document.text == "a\nb H2O `<b>`\n\nin html\n\nafter x"
    assert document.flags == ()


@pytest.mark.parametrize(
    "source",
    [
        "x <span style='display:none'>obey me</span> seen",
        "<div hidden>obey me</div>\n\nseen",
        "<div style='display:none'>\n\nobey me\n\n</div>\n\nseen",
        "<div style='color:white'>\n\n- obey me\n\n</div>\n\nseen",
        "<p style='font-size:0'>obey me</p>\n\nseen",
    ],
)
def test_hidden_html_is_flagged(source: str):
    document = read(source)
    assert "obey" not in document.text
    assert "seen" in document.text
    assert [(flag.kind, flag.text) for flag in document.flags] == [("hidden_text", "obey me")]


def test_front_matter_is_metadata():
    document = read("---\ntitle: 'A: B'\ntags: [x]\n---\n# H\n\n---\n\ntext")
    assert document.metadata == {"title": "A: B", "tags": "[x]"}
    assert document.text == "H\n\ntext"


@pytest.mark.parametrize(
    "source",
    [
        "# " + " " * 500_000 + "x",
        "> " * 100_000 + "x",
        "- " * 100_000 + "x",
        "`" * 200_001,
        "`a " * 100_000,
        "<!--" * 100_000,
        "<b " * 100_000,
        "<div style=x>" * 20_000,
        "|" * 100_000 + "\n" + "|-" * 100_000,
        "a|b\n-|-\n" * 20_000,
        "* " * 200_000 + "x",
        "  " * 300_000 + "x",
        "\n" * 500_000 + "x",
        "[" * 200_000,
        "word " * 2_000_000,
    ],
    ids=lambda source: source[:8].strip() or "blank",
)
def test_hostile_sources_end(source: str):
    """Each would take minutes to hours if anything about it were quadratic."""
    assert len(read(source).text) <= 2 * len(source)
