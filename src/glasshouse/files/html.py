"""HTML as a browser shows it: blocks in reading order, white space collapsed, hidden text left out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.charset import decode
from glasshouse.files.document import Document, Flag, Kind
from glasshouse.files.grid import BETWEEN, Grid
from glasshouse.files.hidden import Element, Look, Styles
from glasshouse.files.invisible import visible
from glasshouse.files.xml import local_name, parse_xml, span

if TYPE_CHECKING:
    import lxml.etree

MAX_BYTES = 100_000_000
MAX_TAGS = 5_000_000
"""Each costs about 100 bytes when parsed; a long page has 50,000."""

MAX_ATTRIBUTES = 500
"""Of one tag: the parser compares each with each."""

MAX_HIDDEN = 10_000
"""Characters of hidden text that a flag repeats."""

_NOT_TEXT = frozenset(
    "head script style template noscript iframe object embed audio video canvas svg datalist rp "  # noqa: SIM905
    "select noembed noframes applet annotation annotation-xml desc metadata".split()
)
_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset "  # noqa: SIM905
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol "
    "optgroup p pre search section summary table tbody td tfoot th thead title tr ul".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "dl", "dir", "menu"})
_CELLS = frozenset({"td", "th"})
_SPACE = re.compile(r"[ \t\n\r\f]{2,}|[\t\n\r\f]")  # what is not a single space already
_DECLARED = re.compile(
    rb"""<meta\b[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml\b[^>]{0,200}?encoding\s*=\s*["']([\w.-]+)""",
    re.IGNORECASE,
)
# As the standard reads tags: a quotation mark counts only after "=".
_TAG = re.compile(r"<[a-zA-Z](?:[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')?+)*+")
_META = {
    "author": "author",
    "dc.creator": "author",
    "dcterms.creator": "author",
    "article:author": "author",
    "description": "description",
    "og:description": "description",
    "keywords": "keywords",
    "date": "date",
    "dc.date": "date",
    "dcterms.date": "date",
    "article:published_time": "date",
    "og:title": "title",
}


def read_html(data: bytes, name: str) -> Document:
    """A web page, the whole of it: navigation and footers too.

    Blocks are headings with their level, paragraphs, list items with their depth (those of ordered lists
    begin with the number that a browser shows), tables, code and captions. Text that a reader of the page
    does not see is left out and flagged. Scripts do not run, and nothing is fetched. Broken HTML is read as
    far as it goes. Raises DataError for an empty file and for one beyond the limits of this file.
    """
    if len(data) > MAX_BYTES:
        raise DataError(
            f"the page has {len(data):,} bytes, at most {MAX_BYTES:,} are read",
            where=name,
            fix="split the file",
        )
    if not data.strip(b" \t\r\n\f\0"):
        raise DataError("the file is empty", where=name, fix="leave it out")
    declared = _DECLARED.search(data[:4096])
    label = (declared[1] or declared[2]).decode("ascii", errors="replace") if declared else None
    builder = Builder()
    page = write_html(decode(data, label), builder, name)
    flags = list(page.flags)
    if not builder.characters:
        flags.append(Flag("no_text", "The page shows no text."))
    return builder.document(name, "html", metadata=page.metadata, flags=tuple(flags))


@dataclass
class Page:
    """What a page says beside its text."""

    metadata: dict[str, str]
    flags: tuple[Flag, ...]


def write_html(
    text: str, builder: Builder, name: str, *, place: str | None = None, xml: bool = False
) -> Page:
    """Put the blocks of a page, or of a part of one, into `builder`; `xml`: as XHTML where it is well-formed.

    Raises DataError for more than MAX_TAGS tags.
    """
    if text.count("<") > MAX_TAGS:
        raise DataError(f"the page has more than {MAX_TAGS:,} tags", where=name, fix="split the file")
    text, smuggled = visible(text)
    root, cut = _parse(text, name, xml)
    if root is None:
        return Page({}, ())
    styles = Styles([sheet for sheet in _sheets(root) if sheet])
    walk = _Walk(builder, styles, place, _layout_tables(root))
    walk.run(root)
    if smuggled:
        walk.hide(smuggled)
    flags = []
    hidden = " ".join("".join(walk.hidden).split())
    if re.search(r"\w", hidden):
        flags.append(
            Flag(
                "hidden_text",
                f"The page holds text that it does not show ({name}).",
                text=hidden[:MAX_HIDDEN],
            )
        )
    if not styles.complete:
        flags.append(
            Flag("broken", "The page has too many style rules to say for sure which of its text is shown.")
        )
    if cut:
        flags.append(
            Flag("cut", "Elements lie too deep inside each other; what comes after them is not read.")
        )
    return Page(walk.metadata, tuple(flags))


def _parse(text: str, name: str, xml: bool) -> tuple[lxml.etree._Element | None, bool]:
    """The tree, and whether the parser stopped before the end."""
    import lxml.etree
    import lxml.html

    if xml:
        try:
            return parse_xml(text.encode("utf-8", errors="replace"), name), False
        except DataError:
            pass  # many a book is not well-formed; browsers read on, and so do we
    text = _bounded_tags(text)
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        root = lxml.html.document_fromstring(text.encode("utf-8", errors="replace"), parser=parser)
    except (lxml.etree.ParserError, lxml.etree.XMLSyntaxError):
        return None, False  # nothing but comments
    return root, any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log)


def _bounded_tags(text: str) -> str:
    """The page without the attributes of tags that have too many of them."""
    parts: list[str] = []
    kept = 0
    for found in _TAG.finditer(text):
        if found.end() - found.start() > MAX_ATTRIBUTES:
            tag = found[0]
            if sum(map(tag.count, " \t\n\r\f/=")) > 2 * MAX_ATTRIBUTES:
                bare = re.match(r"<[a-zA-Z][\w:-]*", tag)
                if bare is not None and _attributes(tag) > MAX_ATTRIBUTES:
                    parts += [text[kept : found.start()], bare[0]]
                    kept = found.end()
    return "".join([*parts, text[kept:]]) if parts else text


def _attributes(tag: str) -> int:
    """At most how many attributes a tag has: its words outside quoted values."""
    bare = re.sub(r"=\s*+(?:\"[^\"]*+\"|'[^']*+')", "=x ", tag)
    return len(re.split(r"[\s/]+", bare))


def _sheets(root: lxml.etree._Element) -> list[str]:
    sheets = []
    for element in root.iter("{*}style"):
        media = (element.get("media") or "").lower()
        if "print" not in media and "speech" not in media:
            sheets.append(element.text or "")
    return sheets


def _layout_tables(root: lxml.etree._Element) -> set[lxml.etree._Element]:
    """Tables that only place things on the page: their cells hold headings, or one cell holds everything."""
    import lxml.etree

    layout: set[lxml.etree._Element] = set()
    open_tables: list[_TableSigns] = []
    for event, element in lxml.etree.iterwalk(root, events=("start", "end")):
        tag = local_name(element)
        if event == "start":
            if tag == "table":
                if open_tables:
                    open_tables[-1].nested = True
                open_tables.append(_TableSigns(element.get("role") in ("presentation", "none")))
            elif open_tables:
                signs = open_tables[-1]
                if tag in _CELLS:
                    signs.cells += 1
                    signs.header = signs.header or tag == "th"
                elif tag in ("caption", "thead"):
                    signs.header = True
                elif tag in _HEADINGS:
                    signs.headings = True
        elif tag == "table":
            signs = open_tables.pop()
            if signs.presentation or (
                not signs.header and (signs.nested or signs.headings or signs.cells <= 1)
            ):
                layout.add(element)
    return layout


@dataclass
class _TableSigns:
    presentation: bool
    header: bool = False
    nested: bool = False
    headings: bool = False
    cells: int = 0


@dataclass
class _List:
    ordered: bool
    next: int = 1
    step: int = 1
    style: str = "1"


@dataclass
class _Walk:
    """Goes through the tree once, without recursion, and lets text become blocks."""

    builder: Builder
    styles: Styles
    place: str | None
    layout: set[lxml.etree._Element]
    metadata: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    _hidden_length: int = 0
    _text: list[str] = field(default_factory=list)
    _space: bool = True  # whether the text so far ends in white space, or is empty
    _looks: list[Look] = field(default_factory=lambda: [Look()])
    _above: list[Element] = field(default_factory=list)
    _kinds: list[tuple[Kind, int | None]] = field(default_factory=lambda: [("paragraph", None)])
    _lists: list[_List] = field(default_factory=list)
    _number: str = ""  # of the list item whose text comes next
    _tables: list[Grid | None] = field(default_factory=list)  # None: a table for layout
    _cells: list[list[str] | None] = field(
        default_factory=lambda: [None]
    )  # where text goes; None: to the page

    def run(self, root: lxml.etree._Element) -> None:
        import lxml.etree

        walker = lxml.etree.iterwalk(root, events=("start", "end"))
        for event, element in walker:
            tag = local_name(element)
            if event == "start":
                if tag in _NOT_TEXT:
                    if tag == "head":
                        self._head(element)
                    walker.skip_subtree()
                    if tag == "svg":
                        self._drawing(element)
                    continue
                attributes = element.attrib
                named = Element.of(tag, attributes)
                look = self.styles.look(named, self._looks[-1], self._above)
                if tag == "dialog" and "open" not in attributes:
                    look = Look(gone=True)
                self._looks.append(look)
                self._above.append(named)
                self._start(tag, element)
                self._add(element.text)
            else:
                if tag not in _NOT_TEXT:
                    self._end(tag, element)
                    self._looks.pop()
                    self._above.pop()
                self._add(element.tail)
        self._flush()

    def hide(self, text: str) -> None:
        if self._hidden_length < MAX_HIDDEN:
            self.hidden.append(text + " ")
            self._hidden_length += len(text)

    def _drawing(self, element: lxml.etree._Element) -> None:
        """The words of a picture made of lines (SVG), each on its own."""
        if self._looks[-1].hidden:
            return
        for part in element.iter("{*}text"):
            self._add(" " + " ".join("".join(part.itertext()).split()) + " ")

    def _head(self, head: lxml.etree._Element) -> None:
        for element in head.iter("{*}title", "{*}meta"):
            if local_name(element) == "title":
                title = " ".join("".join(element.itertext()).split())
                if title:
                    self.metadata["title"] = title
                continue
            key = (element.get("name") or element.get("property") or "").lower()
            content = " ".join((element.get("content") or "").split())
            if key in _META and content:
                self.metadata.setdefault(_META[key], content)
        root = head.getparent()
        language = root.get("lang") if root is not None else None
        if language:
            self.metadata["language"] = language

    def _add(self, text: str | None) -> None:
        if not text:
            return
        look = self._looks[-1]
        if look.hidden:
            self.hide(text)
            return
        text = text.replace("\xa0", " ") if look.preformatted else self._collapsed(text)
        if text:
            self._text.append(text)
            self._space = text[-1] in " \n"

    def _collapsed(self, text: str) -> str:
        text = _SPACE.sub(" ", text)
        if self._space:
            text = text.lstrip(" ")
        return text.replace("\xa0", " ")

    def _flush(self) -> None:
        """What was gathered becomes a block of the innermost kind, or a part of a cell."""
        if not self._text:
            return
        text = "".join(self._text)
        self._text, self._space = [], True
        kind, level = self._kinds[-1]
        if kind == "code":
            lines = text.replace("\r\n", "\n").split("\n")
            text = _dedented([line.rstrip() for line in lines])
        else:
            text = "\n".join(line.strip() for line in text.split("\n")).strip()
        if not text:
            return
        if self._number:
            text, self._number = self._number + text, ""
        cell = self._cells[-1]
        if cell is not None:
            cell.append(" ".join(text.split()))
        else:
            self.builder.add(text, kind, level=level, place=self.place)

    def _start(self, tag: str, element: lxml.etree._Element) -> None:
        if tag == "br":
            if not self._looks[-1].hidden:
                self._text.append("\n")
                self._space = True
            return
        if tag not in _BLOCKS:
            return
        self._flush()
        kind, level = self._kinds[-1]
        if tag in _HEADINGS:
            kind, level = "heading", _HEADINGS[tag]
        elif tag == "pre":
            kind = "code"
        elif tag in ("caption", "figcaption"):
            kind, level = "caption", None
        elif tag in ("li", "dt", "dd"):
            kind, level = "list_item", max(len(self._lists), 1)
            self._number = self._next_number(tag, element)
        elif tag == "aside" and _is_note(element):
            kind, level = "note", None
        elif tag in _LISTS:
            self._lists.append(_list(tag, element))
        elif tag == "table":
            self._start_table(element)
        elif self._tables and self._tables[-1] is not None:
            if tag == "tr":
                self._tables[-1].row()
            elif tag in _CELLS:
                self._cells.append([])
        self._kinds.append((kind, level))

    def _end(self, tag: str, element: lxml.etree._Element) -> None:
        if tag not in _BLOCKS:
            return
        self._flush()
        self._kinds.pop()
        if tag in ("li", "dt", "dd"):
            self._number = ""
        elif tag in _LISTS:
            self._lists.pop()
        elif tag == "table":
            self._end_table()
        elif tag in _CELLS and self._tables and (grid := self._tables[-1]) is not None:
            text = " ".join(self._cells.pop() or [])
            grid.cell(text, span(element.get("colspan")), span(element.get("rowspan")))

    def _next_number(self, tag: str, element: lxml.etree._Element) -> str:
        """How a browser begins a list item: "3. " in an ordered list."""
        if tag != "li" or not self._lists or not self._lists[-1].ordered:
            return ""
        items = self._lists[-1]
        own = _integer(element.get("value"))
        number = items.next if own is None else own
        items.next = number + items.step
        label = _label(number, element.get("type") or items.style)
        return f"{label}. " if label and not self._looks[-1].hidden else ""

    def _start_table(self, element: lxml.etree._Element) -> None:
        # In a cell of a data table, a table for layout would break the row.
        inside_cell = self._cells[-1] is not None
        self._tables.append(None if element in self.layout and not inside_cell else Grid())
        if self._tables[-1] is not None:
            self._cells.append(self._cells[-1])  # of a caption, and of text that stands between the cells

    def _end_table(self) -> None:
        grid = self._tables.pop()
        if grid is None:
            return
        self._cells.pop()
        text = grid.text()
        cell = self._cells[-1]
        if cell is not None:
            if text:
                cell.append(text.replace(BETWEEN, ", ").replace("\n", "; "))
        else:
            self.builder.add(text, "table", place=self.place)


def _dedented(lines: list[str]) -> str:
    """Code without the indentation that all of its lines share."""
    filled = [line for line in lines if line.strip()]
    if not filled:
        return ""
    shared = min(len(line) - len(line.lstrip(" ")) for line in filled)
    return "\n".join(line[shared:] for line in lines).strip("\n")


def _is_note(element: lxml.etree._Element) -> bool:
    names = " ".join(
        value
        for key, value in element.attrib.items()
        if key in ("role", "epub:type") or key.endswith("}type")
    )
    return any(word in names for word in ("footnote", "endnote", "rearnote", "doc-note"))


def _list(tag: str, element: lxml.etree._Element) -> _List:
    if tag != "ol":
        return _List(False)
    style = element.get("type") or "1"
    if re.search(r"list-style(?:-type)?\s*:\s*[^;]*\bnone\b", element.get("style") or ""):
        style = "none"
    start = _integer(element.get("start"))
    if "reversed" in element.attrib:
        count = sum(1 for child in element if local_name(child) == "li")
        return _List(True, count if start is None else start, -1, style)
    return _List(True, 1 if start is None else start, 1, style)


def _label(number: int, style: str) -> str:
    if style == "none":
        return ""
    if style in ("a", "A") and number > 0:
        letters = ""
        while number:
            number, letter = divmod(number - 1, 26)
            letters = chr(ord("a") + letter) + letters
        return letters if style == "a" else letters.upper()
    if style in ("i", "I") and 0 < number < 4000:
        roman = ""
        for value, sign in _ROMAN:
            roman += sign * (number // value)
            number %= value
        return roman if style == "i" else roman.upper()
    return str(number)


_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl")),
    *((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)


def _integer(text: str | None) -> int | None:
    found = re.match(r"\s*([+-]?\d{1,9})", text, re.ASCII) if text else None
    return None if found is None else int(found[1])
