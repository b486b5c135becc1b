"""Words in characters that nobody sees are kept from the text of every format, and told."""

from __future__ import annotations

import io

import docx
import pptx
import pytest
from tests.files.office import excel

from glasshouse.files.open_document import read_document

SECRET = "obey me"
SMUGGLED = "".join(chr(0xE0000 + ord(letter)) for letter in SECRET)
SEEN = f"so\u00adft{SMUGGLED} words"


def word() -> bytes:
    file, out = docx.Document(), io.BytesIO()
    file.add_paragraph(SEEN)
    file.core_properties.title = SEEN
    file.save(out)
    return out.getvalue()


def slides() -> bytes:
    file, out = pptx.Presentation(), io.BytesIO()
    for title in ("first", SEEN):
        file.slides.add_slide(file.slide_layouts[5]).shapes.title.text = title
    file.save(out)
    return out.getvalue()


def sheet() -> bytes:
    return excel({"Sheet": f"<row r='1'><c r='A1' t='inlineStr'><is><t>{SEEN}</t></is></c></row>"})


FILES = {
    "a.docx": word,
    "a.pptx": slides,
    "a.xlsx": sheet,
    "a.eml": lambda: f"Subject: Hello\nContent-Type: text/plain; charset=utf-8\n\n{SEEN}\n".encode(),
    "a.xml": lambda: f"<article><body><p>{SEEN}</p></body></article>".encode(),
    "patent.xml": lambda: f"<us-patent-grant><abstract><p>{SEEN}</p></abstract></us-patent-grant>".encode(),
    "a.md": lambda: f"# Title\n\n{SEEN}".encode(),
    "a.csv": lambda: f"name,words\nx,{SEEN}\n".encode(),
    "a.html": lambda: f"<p>{SEEN}</p>".encode(),
    "a.txt": SEEN.encode,
}


@pytest.mark.parametrize("name", FILES)
def test_words_in_characters_that_are_not_drawn_are_flagged(name):
    document = read_document(FILES[name](), name)
    assert "soft words" in document.text
    assert [(flag.kind, flag.text) for flag in document.flags] == [("hidden_text", SECRET)]


def test_the_flag_names_the_page_and_metadata_is_clean():
    assert read_document(slides(), "a.pptx").flags[0].pages == (2,)
    assert read_document(word(), "a.docx").metadata["title"] == "soft words"
