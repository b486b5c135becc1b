"""PDF files: their visible text in reading order, with pages and boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document, Flag
from glasshouse.files.line_breaks import keeps_hyphen, last_half
from glasshouse.files.page_layout import Line, lines_of
from glasshouse.files.paragraphs import Body, Paragraph, goes_on, paragraphs_of, set_levels
from glasshouse.files.pdf_visibility import visible
from glasshouse.files.pdf_words import Word, words_on
from glasshouse.files.running_lines import running_lines

if TYPE_CHECKING:
    import pypdfium2

MAX_PAGES = 5_000
MAX_CHARACTERS = 10_000_000
"""Of all pages together: about 4,000 pages of a book."""
MAX_PAGE_CHARACTERS = 1_000_000
"""Of one page: a full page of a newspaper has about 30,000."""
MAX_HIDDEN = 20_000
"""Characters of hidden text that are told."""
MAX_ANNOTATIONS = 10_000
"""Of a page, that are looked at."""
UNDECODED = 0.3
"""Share of a page's letters without a code that makes the page unreadable."""

_METADATA = {
    "Title": "title",
    "Author": "author",
    "Subject": "subject",
    "Keywords": "keywords",
    "CreationDate": "date",
}
_FIRST_WORD = re.compile(r"\w+[^\w\s]*\s*")


def read_pdf(data: bytes, name: str) -> Document:
    """The text of a PDF file as blocks with page (from 1) and box (points).

    Words broken by a hyphen at the end of a line are whole; lines that run along the top and foot of pages
    are "note" blocks that do not stand in the middle of a sentence. Text that a reader of the page cannot see
    is left out and told in a flag. Raises DataError for a file that is encrypted, broken or without any text.
    """
    document = _open(data, name)
    try:
        pages = len(document)
        if pages == 0:
            raise DataError(
                "this PDF has no page", where=name, fix="save it again with the program that made it"
            )
        reading = _Reading()
        for number in range(1, min(pages, MAX_PAGES) + 1):
            if reading.characters >= MAX_CHARACTERS:
                break
            reading.page(document, number)
        metadata = _metadata(document)
    finally:
        document.close()
    flags = _flags(reading, data, pages)
    if not any(reading.lines):
        raise DataError(_why_empty(reading), where=name, fix=_empty_fix(reading))
    builder = Builder()
    for number, paragraph in _blocks(reading.lines):
        place = paragraph.place if isinstance(paragraph, _Running) else None
        builder.add(
            paragraph.text,
            paragraph.kind,
            page=number,
            level=paragraph.level,
            box=_rounded(paragraph.box),
            place=place,
        )
    return builder.document(name, "pdf", pages=pages, metadata=metadata, flags=flags)


def _open(data: bytes, name: str) -> pypdfium2.PdfDocument:
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if code == pdfium.FPDF_ERR_PASSWORD:
            raise DataError(
                "this PDF is encrypted and opens only with a password",
                where=name,
                fix="save a copy without the password (print it to a PDF) and read that",
            ) from None
        if code == pdfium.FPDF_ERR_SECURITY:
            raise DataError(
                "this PDF is encrypted in a way that cannot be read here",
                where=name,
                fix="save a copy without protection",
            ) from None
        what = "this PDF is cut off: its end is missing" if _cut_off(data) else "this PDF is broken"
        raise DataError(what, where=name, fix="copy or download the file again") from None


def _cut_off(data: bytes) -> bool:
    """Whether the mark that ends every PDF file is missing."""
    return b"%%EOF" not in data[-2_048:]


@dataclass
class _Reading:
    """What was found so far, page by page."""

    lines: list[list[Line]] = field(default_factory=list)
    characters: int = 0
    hidden: list[tuple[int, str]] = field(default_factory=list)  # page, words
    without_text: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    undecoded: list[int] = field(default_factory=list)
    cut: bool = False  # the text went on

    def page(self, document: pypdfium2.PdfDocument, number: int) -> None:
        import pypdfium2

        try:
            page = document[number - 1]
            if _has_added_words(page) and _flatten(page):
                page.close()
                page = document[number - 1]
            try:
                self._read(page, number)
            finally:
                page.close()
        except pypdfium2.PdfiumError:
            self.broken.append(number)
            self.lines.append([])

    def _read(self, page: pypdfium2.PdfPage, number: int) -> None:
        words, more = words_on(page, min(MAX_PAGE_CHARACTERS, MAX_CHARACTERS - self.characters))
        self.cut |= more
        seen = visible(page, words)
        hidden = [word.text for word, is_seen in zip(words, seen, strict=True) if not is_seen]
        shown = [word for word, is_seen in zip(words, seen, strict=True) if is_seen]
        self.characters += sum(len(word.text) for word in words)
        if hidden:
            self.hidden.append((number, " ".join(hidden)))
        if _is_undecoded(shown):
            self.undecoded.append(number)
        if not shown and _has_content(page):
            self.without_text.append(number)
        self.lines.append(lines_of(shown))


def _has_added_words(page: pypdfium2.PdfPage) -> bool:
    """Whether a viewer put form fields, boxes with text or stamps on a page."""
    import pypdfium2.raw as pdfium

    kinds = (pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP)
    for place in range(min(pdfium.FPDFPage_GetAnnotCount(page), MAX_ANNOTATIONS)):
        annotation = pdfium.FPDFPage_GetAnnot(page, place)
        if annotation:
            kind = pdfium.FPDFAnnot_GetSubtype(annotation)
            pdfium.FPDFPage_CloseAnnot(annotation)
            if kind in kinds:
                return True
    return False


def _flatten(page: pypdfium2.PdfPage) -> bool:
    """Make what a viewer added a part of the page itself, in memory; whether anything changed."""
    import pypdfium2.raw as pdfium

    return pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY) == pdfium.FLATTEN_SUCCESS


def _is_undecoded(words: list[Word]) -> bool:
    letters = sum(len(word.text) for word in words)
    return sum(word.undecoded for word in words) > UNDECODED * max(letters, 1)


def _has_content(page: pypdfium2.PdfPage) -> bool:
    """Whether anything is painted on a page: one without is blank, not a scan."""
    import pypdfium2.raw as pdfium

    kinds = (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_SHADING)
    return any(True for _ in page.get_objects(filter=kinds, max_depth=5))


def _metadata(document: pypdfium2.PdfDocument) -> dict[str, str]:
    return {
        ours: value
        for theirs, ours in _METADATA.items()
        if (value := document.get_metadata_value(theirs).strip())
    }


# Flags


def _flags(reading: _Reading, data: bytes, pages: int) -> tuple[Flag, ...]:
    flags: list[Flag] = []
    if reading.hidden:
        words = "\n".join(text for _, text in reading.hidden)
        numbers = tuple(number for number, _ in reading.hidden)
        what = f"text that a reader does not see stands on {_pages(numbers)}; it was left out"
        flags.append(Flag("hidden_text", what, numbers, words[:MAX_HIDDEN]))
    if reading.without_text:
        numbers = tuple(reading.without_text)
        flags.append(Flag("no_text", f"no text on {_pages(numbers)}: pictures or scans", numbers))
    if reading.cut or len(reading.lines) < pages:
        what = f"read {len(reading.lines):,} of {pages:,} pages and {reading.characters:,} characters"
        flags.append(Flag("cut", f"{what}: the most that is read of one file"))
    broken = tuple(reading.broken)
    if broken:
        flags.append(Flag("broken", f"{_pages(broken)} cannot be read", broken))
    if reading.undecoded:
        numbers = tuple(reading.undecoded)
        flags.append(
            Flag("broken", f"the file does not say which letters stand on {_pages(numbers)}", numbers)
        )
    if _cut_off(data):
        flags.append(
            Flag("broken", "the file is cut off: its end is missing, and perhaps pages or text of it")
        )
    return tuple(flags)


def _pages(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else "")
    return f"page{'s' if len(numbers) > 1 else ''} {shown}"


def _why_empty(reading: _Reading) -> str:
    if reading.hidden:
        return "this PDF has no visible text, only hidden text"
    if reading.without_text:
        return "this PDF has no text: its pages are pictures, as of a scan"
    if reading.broken:
        return "no page of this PDF can be read"
    return "this PDF has no text: its pages are blank"


def _empty_fix(reading: _Reading) -> str:
    if reading.without_text:
        return "let a program for text recognition (OCR) add the text, then read its PDF"
    if reading.broken:
        return "copy or download the file again"
    return "look at the file in a viewer"


# Blocks


@dataclass
class _Running(Paragraph):
    place: str = ""


def _blocks(pages: list[list[Line]]) -> Iterator[tuple[int, Paragraph]]:
    """The paragraphs of all pages; lines that run along edges wait until a sentence is over."""
    running = running_lines(pages)
    inner = [
        [line for place, line in enumerate(lines) if place not in edges]
        for lines, edges in zip(pages, running, strict=True)
    ]
    body = Body.of(line for lines in inner for line in lines)
    known = _vocabulary(inner)
    pages_of_paragraphs = [paragraphs_of(lines, body, known) for lines in inner]
    set_levels(paragraph for paragraphs in pages_of_paragraphs for paragraph in paragraphs)
    _join_across_pages(pages_of_paragraphs, known)
    waiting: list[tuple[int, Paragraph]] = []
    before: Paragraph | None = None
    for number, (lines, edges, paragraphs) in enumerate(
        zip(pages, running, pages_of_paragraphs, strict=True), 1
    ):
        middle = (
            (max(line.box[3] for line in lines) + min(line.box[1] for line in lines)) / 2 if lines else 0.0
        )
        edge = [_running(lines[place], middle) for place in sorted(edges)]
        waiting += [(number, line) for line in edge if line.place == "page header"]
        for paragraph in paragraphs:
            if before is None or not goes_on(before, paragraph):
                yield from waiting
                waiting = []
            yield number, paragraph
            before = paragraph
        waiting += [(number, line) for line in edge if line.place == "page footer"]
    yield from waiting


def _running(line: Line, middle: float) -> _Running:
    place = "page header" if line.box[1] > middle else "page footer"
    return _Running("note", line.text, line.box, line.size, line.bold, line.region, place=place)


def _vocabulary(pages: list[list[Line]]) -> Any:
    """Whether a word, also one with a hyphen inside, stands within a line of the document."""
    words: set[str] = set()
    for lines in pages:
        for line in lines:
            found = re.findall(r"\w+(?:-\w+)*", line.text.lower())
            # The first and the last of a line may be halves.
            words.update(found[1:-1])
    return words.__contains__


def _join_across_pages(pages: list[list[Paragraph]], known: Any) -> None:
    """Move the second half of a word that a page break broke to its first half."""
    before: Paragraph | None = None
    for paragraphs in pages:
        if not paragraphs:
            continue
        after = paragraphs[0]
        if before is not None and goes_on(before, after):
            broken, tail = last_half(before.text), _FIRST_WORD.match(after.text)
            if broken and tail and tail.end() < len(after.text):
                keep = keeps_hyphen(broken, tail[0].strip(), known)
                before.text = (before.text if keep else before.text[:-1]) + tail[0].strip()
                after.text = after.text[tail.end() :]
                # What goes on is told by its first letter, which may now be any.
        before = paragraphs[-1]


def _rounded(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, bottom, right, top = (round(side, 2) for side in box)
    return left, bottom, right, top
