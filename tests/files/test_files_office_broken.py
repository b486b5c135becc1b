"""Whatever is changed in an Office file, it is read or refused: nothing but a DataError comes out."""

from __future__ import annotations

import io
import re
import zipfile

import docx
import openpyxl
import pptx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.files.office import packed
from tests.files.test_files_odf import MASTER, frame, made, slide

from glasshouse.core.errors import DataError
from glasshouse.files.docx import read_docx
from glasshouse.files.odf import read_odf
from glasshouse.files.pptx import read_pptx
from glasshouse.files.xlsx import read_xlsx
from glasshouse.files.xml_stream import stream_xml

_VALUES = ("", "-1", "9" * 20, "abc", "1e400", "nan", "0", "FFFFFF", "A1:XFD1048576", "%1%2%9", "true")


def _word() -> bytes:
    written = docx.Document()
    written.add_heading("Heading", 1)
    written.add_paragraph("item", style="List Number")
    written.add_table(2, 2).cell(0, 0).merge(written.tables[0].cell(0, 1)).text = "cell"
    return _saved(written)


def _slides() -> bytes:
    deck = pptx.Presentation()
    page = deck.slides.add_slide(deck.slide_layouts[1])
    page.shapes.title.text, page.placeholders[1].text_frame.text = "title", "text"
    page.shapes.add_table(1, 2, 0, 0, 9, 9)
    page.notes_slide.notes_text_frame.text = "note"
    return _saved(deck)


def _sheets() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["Year", 2024, 0.5, "=A1"])
    book.active["B1"].number_format = "#,##0.00"
    book.active.merge_cells("A2:B3")
    return _saved(book)


def _saved(written) -> bytes:
    buffer = io.BytesIO()
    written.save(buffer)
    return buffer.getvalue()


FILES = {
    "docx": (_word(), read_docx),
    "pptx": (_slides(), read_pptx),
    "xlsx": (_sheets(), read_xlsx),
    "odp": (made("presentation", slide(frame("text", 'draw:style-name="x"')), styles=MASTER), read_odf),
}


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.data())
def test_changed_attributes_and_missing_parts_are_read_or_refused(kind: str, drawn: st.DataObject) -> None:
    data, read = FILES[kind]
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        parts: dict[str, str | bytes] = {name: file.read(name) for name in file.namelist()}
    assert read(data, "a").pages is not None or kind == "docx"
    for name in drawn.draw(st.lists(st.sampled_from(sorted(parts)), min_size=1, max_size=3, unique=True)):
        text = bytes(parts[name]).decode("utf-8", "replace")
        values = list(re.finditer(r'"([^"<>]*)"', text))
        if not values or drawn.draw(st.integers(0, 4)) == 0:
            del parts[name]
            continue
        found = drawn.draw(st.sampled_from(values))
        new = drawn.draw(st.sampled_from(_VALUES) | st.sampled_from([value[1] for value in values]))
        parts[name] = text[: found.start(1)] + new + text[found.end(1) :]
    try:
        document = read(packed(parts), "a")
    except DataError:
        return
    assert all(document.slice(block).strip() for block in document.blocks)


def test_records_of_a_stream_have_their_parts_and_no_more() -> None:
    record = '<x:r k="v"><t>one</t><p><t>no</t></p><t>t&amp;<b>w</b>o</t></x:r>'
    text = f'<x:a xmlns:x="u"><h n="1"/>{record}<t>no</t></x:a>'
    head, record = stream_xml(io.BytesIO(text.encode()), "f", whole=["r"], heads=["h"], without="p")
    assert (head.tag, head.get("n"), head.get("m", "?")) == ("h", "1", "?")
    assert (record.tag, record.attributes) == ("r", {"k": "v"})
    assert [(part.tag, part.text) for part in record.parts] == [("t", "one"), ("t", "t&o"), ("b", "w")]


@pytest.mark.parametrize(
    "text",
    [
        "<a><r></a>",
        "<a",
        "",
        "<!DOCTYPE a><a/>",
        '<?xml version="1.0" encoding="x"?><a/>',
        "<a>&nbsp;</a>",
    ],
)
def test_a_stream_that_is_no_plain_xml_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match="f: x"):
        list(stream_xml(io.BytesIO(text.encode()), "f: x", whole=["r"]))
