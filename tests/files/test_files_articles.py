"""Articles (JATS) and patents: small sources whose blocks are known, and hostile ones."""

from __future__ import annotations

import pytest

from glasshouse.core.errors import DataError
from glasshouse.files.document import Document
from glasshouse.files.jats import read_jats
from glasshouse.files.uspto import read_uspto


def blocks(document: Document) -> list[tuple[str, int | None, str]]:
    return [(block.kind, block.level, document.slice(block)) for block in document.blocks]


def article(body: str, back: str = "") -> list[tuple[str, int | None, str]]:
    source = f"<article><body>{body}</body><back>{back}</back></article>"
    return blocks(read_jats(source.encode(), "a.nxml"))


def test_parts_inside_a_paragraph_come_in_their_order():
    """Figures, lists, formulas and footnotes; a formula once, though it is given in three forms."""
    assert article(
        "<sec><label>2</label><title>T<xref><sup>1</sup></xref></title><p>a <italic>b</italic>"
        "<fn><label>*</label><p>note</p></fn> c:"
        "<disp-formula><label>(1)</label><alternatives><graphic/><tex-math>x^2</tex-math>"
        "<math><msup><mi>x</mi><mn>2</mn></msup></math></alternatives></disp-formula>"
        "where <inline-formula><tex-math>\\begin{document}$y$\\end{document}</tex-math></inline-formula> is"
        "<list list-type='order'><list-item><p>one</p><list><list-item><p>deep</p></list-item>"
        "</list></list-item>"
        "<list-item><label>b)</label><p>two</p></list-item></list>end</p>"
        "<fig><label>Fig 1</label><caption><title>C.</title><p>d</p></caption><graphic/></fig>"
        "<code>x\n  y</code></sec>"
    ) == [
        ("heading", 2, "2 T1"),
        ("paragraph", None, "a b c:"),
        ("paragraph", None, "(1) x2"),
        ("paragraph", None, "where y is"),
        ("list_item", 1, "1. one"),
        ("list_item", 2, "deep"),
        ("list_item", 1, "b) two"),
        ("paragraph", None, "end"),
        ("note", None, "* note"),
        ("caption", None, "Fig 1 C. d"),
        ("code", None, "x\n  y"),
    ]


def test_tables_and_references():
    assert article(
        "<table-wrap><label>Table 1</label><caption><p>C</p></caption><alternatives><graphic/><table>"
        "<tr><th rowspan='2'>A</th><th colspan='2'>B</th></tr><tr><td>1</td><td>2</td></tr></table>"
        "</alternatives>"
        "<table-wrap-foot><fn><label>a</label><p>foot</p></fn></table-wrap-foot></table-wrap>",
        "<ref-list><title>References</title><ref><label>1</label><mixed-citation><name><surname>A</surname>"
        "<given-names>B</given-names></name>. <source>S</source>.</mixed-citation></ref>"
        "<ref><element-citation><person-group><name><surname>A</surname><given-names>B</given-names>"
        "</name><etal/>"
        "</person-group><article-title>T</article-title><source>S</source><year>2001</year><fpage>1</fpage>"
        "<lpage>9</lpage></element-citation></ref></ref-list>",
    ) == [
        ("caption", None, "Table 1 C"),
        ("table", None, "A | B\n | 1 | 2"),
        ("note", None, "a foot"),
        ("heading", 2, "References"),
        ("list_item", 1, "1. A B. S."),
        ("list_item", 1, "A B (2001). T. S. 1–9"),
    ]


def test_patents_of_2002_to_2004():
    source = (
        "<PATDOC><SDOBI><B100><B110><DNUM><PDAT>06789</PDAT></DNUM></B110><B140><DATE><PDAT>20020101"
        "</PDAT></DATE>"
        "</B140></B100><B500><B540><STEXT><PDAT>Title</PDAT></STEXT></B540></B500><B700><B720><B721>"
        "<PARTY-US><NAM>"
        "<FNM><PDAT>Ann</PDAT></FNM><SNM><STEXT><PDAT>Lee</PDAT></STEXT></SNM></NAM></PARTY-US>"
        "</B721></B720></B700>"
        "</SDOBI><SDOAB><BTEXT><PARA><PTEXT><PDAT>Abs</PDAT></PTEXT></PARA></BTEXT></SDOAB><SDODE>"
        "<BTEXT><H LVL='1'>"
        "<STEXT><PDAT>FIELD</PDAT></STEXT></H><PARA><PTEXT><PDAT>H</PDAT><SB><PDAT>2</PDAT></SB>"
        "<PDAT>O</PDAT></PTEXT>"
        "</PARA></BTEXT></SDODE><SDOCL><H><STEXT><PDAT>What is claimed:</PDAT></STEXT></H><CL><CLM>"
        "<PARA><PTEXT>"
        "<PDAT>1. A</PDAT></PTEXT></PARA><CLMSTEP><PTEXT><PDAT>step</PDAT></PTEXT></CLMSTEP></CLM>"
        "</CL></SDOCL></PATDOC>"
    )
    document = read_uspto(source.encode(), "p.xml")
    assert blocks(document) == [
        ("heading", 1, "Title"),
        ("paragraph", None, "Ann Lee"),
        ("heading", 2, "Abstract"),
        ("paragraph", None, "Abs"),
        ("heading", 2, "FIELD"),
        ("paragraph", None, "H2O"),
        ("heading", 2, "Claims"),
        ("heading", 2, "What is claimed:"),
        ("list_item", 1, "1. A\nstep"),
    ]
    assert document.metadata == {"number": "06789", "date": "20020101", "title": "Title", "author": "Ann Lee"}


def test_tables_of_patents_have_named_columns():
    source = (
        "<us-patent-grant><description><p>see<tables><table><tgroup><colspec colname='1'/>"
        "<colspec colname='2'/>"
        "<colspec colname='3'/><tbody><row><entry namest='1' nameend='2'>wide</entry><entry>c</entry></row>"
        "<row><entry morerows='1'>tall</entry><entry>b</entry><entry>c</entry></row><row><entry>d"
        "</entry></row>"
        "</tbody></tgroup></table></tables>after</p></description></us-patent-grant>"
    )
    assert blocks(read_uspto(source.encode(), "p.xml")) == [
        ("paragraph", None, "see"),
        ("table", None, "wide |  | c\ntall | b | c\n | d"),
        ("paragraph", None, "after"),
    ]


@pytest.mark.parametrize("reader", [read_jats, read_uspto])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"<html/>", "not a"),
        (b"<article/>", "no text|not a"),
        (b"<us-patent-grant/>", "no text|not an article"),
        (b"<article><body>" + b"<sec>" * 100_000, "deep|depth"),
        (b"<article>" + b"<sec>" * 200 + b"</sec>" * 200 + b"</article>", "deep"),
        (
            b'<!DOCTYPE article [<!ENTITY a "lolol lolol lolol"><!ENTITY b "&a;&a;">]><article>&b;</article>',
            "entity",
        ),
        (b"PATN\nTTL", "."),
        (b"\x00\xff", "."),
    ],
)
def test_what_is_not_an_article_or_a_patent_is_refused(reader, data: bytes, why: str):
    with pytest.raises(DataError, match=why):
        reader(data, "a.xml")


@pytest.mark.parametrize(
    "tag", ["sec", "p", "list", "list-item", "disp-quote", "boxed-text", "fig", "claim-text", "ul", "table"]
)
def test_sources_as_deep_as_allowed_do_not_exhaust_the_stack(tag: str):
    inner = f"<{tag}>" * 120 + "word" + f"</{tag}>" * 120
    for reader, source in (
        (read_jats, f"<article><body><p>x</p>{inner}</body></article>"),
        (read_uspto, f"<us-patent-grant><description><p>x</p>{inner}</description></us-patent-grant>"),
        (
            read_uspto,
            f"<us-patent-grant><abstract>x</abstract><claims><claim>y{inner}</claim></claims></us-patent-grant>",
        ),
    ):
        assert reader(source.encode(), "a.xml").text
