"""Articles in JATS, the XML of scientific journals (PubMed Central and most publishers)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document, Kind
from glasshouse.files.grid import Grid
from glasshouse.files.xml import local_name, parse_xml, span

if TYPE_CHECKING:
    import lxml.etree

MAX_DEPTH = 128
"""Elements inside each other; articles stay under 40."""

_ROOTS = frozenset({"article", "pmc-articleset", "OAI-PMH", "book", "book-part", "sub-article"})
_NO_TEXT = frozenset(
    "graphic inline-graphic media object-id institution-id contrib-id tex-math processing-meta "  # noqa: SIM905
    "floats-wrap custom-meta-group counts x self-uri".split()
)
# Where two of these follow each other, the XML leaves out the space that a page has between them.
_APART = frozenset(
    "surname given-names prefix suffix institution institution-wrap country addr-line city state "  # noqa: SIM905
    "funding-source award-id principal-award-recipient name string-name collab year month day volume issue "
    "source article-title fpage lpage label email ext-link role degrees def term p title".split()
)
_PARTS = frozenset(
    "fig fig-group table-wrap table-wrap-group table-wrap-foot disp-formula disp-formula-group list "  # noqa: SIM905
    "def-list disp-quote boxed-text supplementary-material code preformat verse-group statement speech "
    "table fn-group array chem-struct-wrap alternatives".split()
)
_HOLDS = _PARTS | {"p", "sec", "title"}  # what makes an unknown element a part with parts
_SECTIONS = frozenset(
    {"sec", "ref-list", "fn-group", "app", "app-group", "glossary", "notes", "bio", "def-list"}
)
_HIGHEST = 6


def read_jats(data: bytes, name: str) -> Document:
    """A journal article: title, authors, abstract, sections, tables, captions, formulas, notes, references.

    Headings have the level of their section (the title 1). A formula is its signs in a row. Keywords,
    journal, date and DOI go into the metadata. Raises DataError for what is not well-formed or not JATS, and
    see `parse_xml`.
    """
    root = parse_xml(data, name, max_depth=MAX_DEPTH)
    if local_name(root) not in _ROOTS:
        raise DataError(
            f"the XML is <{local_name(root)[:40]}>, not an article in JATS",
            where=name,
            fix="check the file's format",
        )
    writer = _Writer()
    articles = [root] if local_name(root) != "pmc-articleset" else list(root)
    metadata: dict[str, str] = {}
    for article in articles:
        if local_name(article) == "OAI-PMH":
            article = next(article.iter("{*}article"), article)
        metadata = metadata or _metadata(article)
        writer.article(article, 1)
    if not writer.builder.characters:
        raise DataError("the article has no text", where=name, fix="check that the download is whole")
    return writer.builder.document(name, "jats", metadata=metadata)


def text_of(element: lxml.etree._Element) -> str:
    """The words inside an element, white space collapsed; pictures, identifiers and TeX sources left out."""
    parts: list[str] = []
    _gather(element, parts)
    return " ".join("".join(parts).split())


def _gather(element: lxml.etree._Element, parts: list[str]) -> None:
    parts.append(element.text or "")
    before = ""
    for child in element:
        tag = local_name(child)
        if tag in _APART and before in _APART:
            parts.append(" ")
        if tag == "alternatives":
            _gather_formula(child, parts)
        elif tag == "tex-math" and local_name(element) in ("inline-formula", "disp-formula"):
            if not any(local_name(other) == "math" for other in element):
                parts.append(_tex(child))
        elif tag == "break":
            parts.append("\n")
        elif tag not in _NO_TEXT:
            _gather(child, parts)
        parts.append(child.tail or "")
        before = "" if (child.tail or "").strip() else tag


def _gather_formula(alternatives: lxml.etree._Element, parts: list[str]) -> None:
    """One of several forms of the same: signs before TeX, TeX before nothing."""
    forms = {local_name(form): form for form in reversed(alternatives)}
    for tag in ("math", "textual-form", "tex-math"):
        if tag in forms:
            if tag == "tex-math":
                parts.append(_tex(forms[tag]))
            else:
                _gather(forms[tag], parts)
            return
    for tag, form in forms.items():
        if tag not in _NO_TEXT:
            _gather(form, parts)
            return


def _tex(element: lxml.etree._Element) -> str:
    """The formula of a TeX source, without the document that publishers put around it."""
    source = "".join(element.itertext())
    inside = re.search(r"\\begin\{document\}(.*)\\end\{document\}", source, re.DOTALL)
    return (inside[1] if inside else source).strip().strip("$")


def _child(element: lxml.etree._Element | None, *path: str) -> lxml.etree._Element | None:
    for tag in path:
        if element is None:
            return None
        element = next((child for child in element if local_name(child) == tag), None)
    return element


def _children(element: lxml.etree._Element, *tags: str) -> list[lxml.etree._Element]:
    return [child for child in element if local_name(child) in tags]


def _authors(meta: lxml.etree._Element) -> list[str]:
    names = []
    for group in _children(meta, "contrib-group"):
        for person in group.iter("{*}contrib"):
            if person.get("contrib-type", "author") == "author" and (words := _name(person)):
                names.append(words)
    return names


def _name(person: lxml.etree._Element) -> str:
    for part in person:
        tag = local_name(part)
        if tag in ("name", "name-alternatives"):
            part = part if tag == "name" else next((p for p in part if local_name(p) == "name"), part)
            given, family = _child(part, "given-names"), _child(part, "surname")
            if given is not None and family is not None:
                suffix = _child(part, "suffix")
                found = [p for p in (given, family, suffix) if p is not None]
                return " ".join(text_of(p) for p in found)
            return text_of(part)
        if tag in ("string-name", "collab", "anonymous"):
            return text_of(part)
    return ""


def _metadata(article: lxml.etree._Element) -> dict[str, str]:
    front = _child(article, "front")
    meta = _child(front, "article-meta")
    if meta is None:
        return {}
    found: dict[str, str] = {}

    def put(key: str, element: lxml.etree._Element | None) -> None:
        if element is not None and (words := text_of(element)):
            found.setdefault(key, words)

    put("title", _child(meta, "title-group", "article-title"))
    if authors := _authors(meta):
        found["author"] = "; ".join(authors)
    put("journal", _child(front, "journal-meta", "journal-title-group", "journal-title"))
    put("journal", _child(front, "journal-meta", "journal-title"))
    for identifier in _children(meta, "article-id"):
        if identifier.get("pub-id-type") in ("doi", "pmid"):
            put(identifier.get("pub-id-type", ""), identifier)
    for date in _children(meta, "pub-date"):
        numbers = [text_of(part) for tag in ("year", "month", "day") for part in _children(date, tag)]
        if numbers and len("-".join(numbers)) > len(found.get("date", "")):
            found["date"] = "-".join(number.zfill(2) for number in numbers)
    words = [text_of(word) for group in _children(meta, "kwd-group") for word in group.iter("{*}kwd")]
    if words:
        found["keywords"] = "; ".join(words)
    put("license", _child(meta, "permissions", "license"))
    return found


class _Writer:
    """Puts the parts of an article into blocks, in the order of the file."""

    def __init__(self) -> None:
        self.builder = Builder()

    def add(self, text: str, kind: Kind = "paragraph", level: int | None = None) -> None:
        self.builder.add(text, kind, level=level)

    def heading(self, text: str, level: int) -> None:
        self.add(text, "heading", min(level, _HIGHEST))

    def article(self, article: lxml.etree._Element, level: int) -> None:
        for part in article:
            tag = local_name(part)
            if tag in ("front", "front-stub"):
                meta = _child(part, "article-meta")
                self._front(part if meta is None else meta, level)
                for notes in _children(part, "notes"):
                    self.part(notes, level + 1)
            elif tag in ("body", "back"):
                self.parts(part, level + 1)
            elif tag in ("sub-article", "response"):
                self.article(part, level + 1)
            elif tag == "floats-group":
                self.parts(part, level + 1)
            elif tag == "article":  # of a set
                self.article(part, level)
            else:
                self.part(part, level + 1)

    def _front(self, meta: lxml.etree._Element, level: int) -> None:
        titles = _child(meta, "title-group")
        if titles is not None:
            for title in titles:
                tag = local_name(title)
                if tag == "article-title":
                    self.heading(text_of(title), level)
                elif tag in ("subtitle", "trans-title-group"):
                    self.add(text_of(title))
        self.add(", ".join(_authors(meta)))
        people = [p for group in _children(meta, "contrib-group") for p in group.iter("{*}contrib")]
        for person in people:
            if person.get("contrib-type", "author") != "author":
                roles = [text_of(role) for role in _children(person, "role")]
                self.add(", ".join(filter(None, [_name(person), *roles])))
        for place in meta.iter("{*}aff"):
            self.add(", ".join(filter(None, _address(place))), "note")
        for notes in _children(meta, "author-notes"):
            for note in notes:
                self.add(text_of(note), "note")
        for abstract in _children(meta, "abstract", "trans-abstract"):
            title = _child(abstract, "title")
            self.heading(text_of(title) if title is not None else "Abstract", level + 1)
            self.parts(abstract, level + 2, skip=("title",))
        for group in _children(meta, "kwd-group"):
            title = _child(group, "title")
            words = [text_of(word) for word in group.iter("{*}kwd")]
            label = text_of(title) if title is not None else "Keywords"
            self.add(f"{label}: {'; '.join(words)}" if words else "")
        for funding in meta.iter("{*}funding-statement"):
            self.add(text_of(funding), "note")

    def parts(self, parent: Iterable[lxml.etree._Element], level: int, skip: tuple[str, ...] = ()) -> None:
        for part in parent:
            if local_name(part) not in skip:
                self.part(part, level)

    def part(self, part: lxml.etree._Element, level: int, depth: int = 1) -> None:
        """One part of a section; `depth` of a list."""
        tag = local_name(part)
        if tag in ("label", "sec-meta", "") or tag in _NO_TEXT:
            return
        if tag in ("title", "subtitle"):
            label = _child(part.getparent(), "label") if tag == "title" else None
            self.heading(_joined(label, part), level)
        elif tag in ("p", "attrib", "disp-quote", "verse-line", "speaker", "ack", "sec", "boxed-text"):
            if tag in ("disp-quote", "ack", "sec", "boxed-text"):
                self._section(part, level)
            else:
                self._paragraph(part, "paragraph", None, level, depth)
        elif tag in ("fig", "supplementary-material", "chem-struct-wrap"):
            self._figure(part, level)
        elif tag == "table-wrap":
            self._figure(part, level, tables=True)
        elif tag in ("table", "array"):
            self.add(_table(part), "table")
        elif tag == "alternatives":
            tables = _children(part, "table")
            for table in tables[:1]:
                self.add(_table(table), "table")
            if not tables:
                parts: list[str] = []
                _gather_formula(part, parts)
                self.add(" ".join("".join(parts).split()))
        elif tag in ("disp-formula", "mathematics"):
            self.add(_joined(_child(part, "label"), part, skip_label=True))
        elif tag in ("code", "preformat"):
            self.add("".join(part.itertext()).strip("\n"), "code")
        elif tag == "list":
            self._list(part, level, depth)
        elif tag == "def-item":
            self.add(": ".join(filter(None, (text_of(child) for child in part))), "list_item", depth)
        elif tag in ("fn", "table-wrap-foot-note", "corresp"):
            self.add(_joined(_child(part, "label"), part, skip_label=True), "note")
        elif tag == "ref":
            self._reference(part)
        elif tag in _SECTIONS or any(local_name(child) in _HOLDS for child in part):
            self._section(part, level)
        else:
            self.add(text_of(part))

    def _section(self, section: lxml.etree._Element, level: int) -> None:
        """A part with parts; those inside a section have headings one level below its own."""
        for part in section:
            inner = local_name(part) in _SECTIONS and local_name(part) != "bio"
            self.part(part, level + 1 if inner else level)

    def _paragraph(
        self,
        paragraph: lxml.etree._Element,
        kind: Kind,
        number: int | None,
        level: int,
        depth: int,
        label: str = "",
    ) -> None:
        """Text, and the figures, tables, lists and formulas that stand inside it, in their order."""
        parts: list[str] = [label, paragraph.text or ""]
        notes = []
        before = ""
        for child in paragraph:
            tag = local_name(child)
            if tag in _PARTS:
                self.add(" ".join("".join(parts).split()), kind, number)
                parts = []
                self.part(child, level, depth + 1 if tag == "list" and kind == "list_item" else depth)
            elif tag == "fn":
                notes.append(child)
            elif tag not in _NO_TEXT:
                if tag in _APART and before in _APART:
                    parts.append(" ")
                inner: list[str] = []
                if tag == "break":
                    inner.append("\n")
                elif tag == "element-citation":
                    inner.append(_citation(child))
                else:
                    _gather(child, inner)
                parts += inner
            parts.append(child.tail or "")
            before = "" if (child.tail or "").strip() else tag
        self.add(" ".join("".join(parts).split()), kind, number)
        for note in notes:
            self.part(note, level)

    def _list(self, items: lxml.etree._Element, level: int, depth: int) -> None:
        ordered = items.get("list-type") in ("order", "ordered", "number")
        number = 0
        for item in items:
            tag = local_name(item)
            if tag == "title":
                self.add(text_of(item))
            if tag != "list-item":
                continue
            number += 1
            label = _child(item, "label")
            mark = f"{text_of(label)} " if label is not None else f"{number}. " if ordered else ""
            for part in item:
                part_tag = local_name(part)
                if part_tag in ("p", "title"):
                    self._paragraph(part, "list_item", depth, level, depth, mark)
                    mark = ""
                elif part_tag != "label":
                    self.part(part, level, depth + 1)

    def _figure(self, figure: lxml.etree._Element, level: int, *, tables: bool = False) -> None:
        """A caption, then what it is about."""
        caption = _child(figure, "caption")
        words = [_child(figure, "label"), *(caption if caption is not None else [])]
        self.add(" ".join(filter(None, (text_of(part) for part in words if part is not None))), "caption")
        for part in figure:
            tag = local_name(part)
            if tag in ("label", "caption"):
                continue
            if tables and tag == "table-wrap-foot":
                for note in part:
                    self.part(note, level) if local_name(note) == "fn" else self.add(text_of(note), "note")
            else:
                self.part(part, level)

    def _reference(self, reference: lxml.etree._Element) -> None:
        label = _child(reference, "label")
        words = []
        for part in reference:
            tag = local_name(part)
            if tag == "citation-alternatives":
                part = next(iter(part), part)
                tag = local_name(part)
            if tag == "element-citation":
                words.append(_citation(part))
            elif tag != "label":
                words.append(text_of(part))
        mark = "" if label is None else text_of(label)
        if mark:
            mark = f"{mark} " if mark.endswith((".", "]", ")")) else f"{mark}. "
        self.add(mark + " ".join(filter(None, words)), "list_item", 1)


def _joined(label: lxml.etree._Element | None, part: lxml.etree._Element, skip_label: bool = False) -> str:
    """The words of a part after those of its label."""
    if skip_label:
        words = " ".join(_part_words(part))
    else:
        words = text_of(part)
    mark = "" if label is None else text_of(label)
    return f"{mark} {words}".strip()


def _part_words(part: lxml.etree._Element) -> Iterable[str]:
    """The words of a part but for its label."""
    pieces: list[str] = [part.text or ""]
    for child in part:
        tag = local_name(child)
        if tag == "alternatives":
            _gather_formula(child, pieces)
        elif tag == "tex-math":
            if not _children(part, "math"):
                pieces.append(_tex(child))
        elif tag != "label" and tag not in _NO_TEXT:
            pieces.append(" " if tag == "p" else "")
            _gather(child, pieces)
        pieces.append(child.tail or "")
    return "".join(pieces).split()


def _address(place: lxml.etree._Element) -> list[str]:
    """The parts of an affiliation; where it is written as one text, that text."""
    if (place.text or "").strip() or any((child.tail or "").strip() for child in place):
        return [text_of(place)]
    label = _child(place, "label")
    words = [text_of(child) for child in place if local_name(child) != "label"]
    if label is not None and words:
        words[0] = f"{text_of(label)} {words[0]}"
    return words


def _citation(citation: lxml.etree._Element) -> str:
    """A reference that is given only as its parts, in the usual order."""
    if (citation.text or "").strip() or any((child.tail or "").strip() for child in citation):
        return text_of(citation)
    by_tag: dict[str, list[str]] = {}
    people: list[str] = []
    for child in citation:
        tag = local_name(child)
        if tag == "person-group":
            people += [text_of(person) for person in child]
        elif tag in ("name", "collab", "string-name", "etal"):
            people.append(text_of(child) or "et al")
        else:
            by_tag.setdefault(tag, []).append(text_of(child))
    pages = "–".join(by_tag.pop("fpage", []) + by_tag.pop("lpage", []))
    year = " ".join(by_tag.pop("year", []))
    first = [", ".join(filter(None, people)), f"({year})" if year else ""]
    order = ("article-title", "chapter-title", "data-title", "part-title", "source", "edition", "volume")
    middle = [", ".join(by_tag.pop(tag)) for tag in order if tag in by_tag]
    rest = [", ".join(words) for words in by_tag.values()]
    return ". ".join(filter(None, [" ".join(filter(None, first)), *middle, pages, *rest]))


def _table(table: lxml.etree._Element) -> str:
    """A table of rows `tr` and cells `td` or `th`, as in HTML."""
    grid = Grid()
    for row in table.iter("{*}tr"):
        if next(row.iterancestors("{*}table", "{*}array"), table) is not table:
            continue  # of a table in a cell, whose text the cell has
        grid.row()
        for cell in row:
            if local_name(cell) in ("td", "th"):
                grid.cell(text_of(cell), span(cell.get("colspan")), span(cell.get("rowspan")))
    return grid.text() or text_of(table)
