"""Patents of the United States: applications and grants in XML (since 2001) and in the text form before."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document, Kind
from glasshouse.files.grid import Grid
from glasshouse.files.plain import plain_text
from glasshouse.files.xml import local_name, parse_xml

if TYPE_CHECKING:
    import lxml.etree

MAX_DEPTH = 128
"""Elements inside each other; patents stay under 40."""

# Each generation of the XML names the same things differently; the names do not clash.
_ROOTS = ("us-patent-application", "us-patent-grant", "patent-application-publication", "PATDOC")
_TITLES = ("invention-title", "title-of-invention")
_ABSTRACTS = frozenset({"abstract", "subdoc-abstract", "SDOAB"})
_DESCRIPTIONS = frozenset({"description", "subdoc-description", "SDODE"})
_CLAIMS = frozenset({"claims", "subdoc-claims", "SDOCL"})
_HEADINGS = frozenset({"heading", "H"})
_PARAGRAPHS = frozenset({"p", "paragraph", "PARA", "us-claim-statement", "CLMSTEP-LEAD"})
_TABLES = frozenset({"table", "TABLE"})
_TABLE_HOLDERS = frozenset({"tables", "table-cwu", "TABLE-CWU", "table", "TABLE"})
_NO_TEXT = frozenset(
    "img image EMI chemistry chemistry-cwu CHEMCWU mathematica-file chemdraw-file mol-file CHEM-US "  # noqa: SIM905
    "MATH-EMI".split()
)


def read_uspto(data: bytes, name: str) -> Document:
    """A patent: title, inventors, abstract, description and claims.

    Each claim is one block, a step of it a line. Numbers, dates and assignees go into the metadata. A text
    file may hold several patents. Raises DataError for what is not a patent and, of XML, see `parse_xml`.
    """
    if re.match(rb"\s*(?:\xef\xbb\xbf)?\s*(?:HHHHHT|PATN)", data[:200]):
        return _read_text(data, name)
    root = parse_xml(data, name, max_depth=MAX_DEPTH)
    if local_name(root) not in _ROOTS:
        raise DataError(
            f"the XML is <{local_name(root)[:40]}>, not a patent", where=name, fix="check the file's format"
        )
    writer = _Writer()
    metadata = _metadata(root)
    writer.add(metadata.get("title", ""), "heading", 1)
    writer.add(metadata.get("author", ""))
    writer.parts(root)
    if not writer.builder.characters:
        raise DataError("the patent has no text", where=name, fix="check that the download is whole")
    return writer.builder.document(name, "uspto", metadata=metadata)


def _metadata(root: lxml.etree._Element) -> dict[str, str]:
    found: dict[str, str] = {}

    def put(key: str, words: str) -> None:
        if words:
            found.setdefault(key, words)

    inventors, assignees = [], []
    for element in root.iter():
        tag = local_name(element)
        if tag in _DESCRIPTIONS:
            break
        if tag in _TITLES or tag == "B540":
            put("title", _text(element))
        elif tag in ("inventor", "first-named-inventor", "B721") and local_name(element.getparent()) != "x":
            inventors.append(_person(element))
        elif tag in ("assignee", "B731"):
            assignees.append(_organization(element))
        elif tag in ("publication-reference", "document-id", "B100") and "number" not in found:
            parts = {local_name(child): _text(child) for child in element.iter()}
            put("number", parts.get("doc-number") or parts.get("B110") or "")
            put("date", parts.get("date") or parts.get("document-date") or parts.get("B140") or "")
    put("author", "; ".join(filter(None, inventors)))
    put("assignee", "; ".join(filter(None, assignees)))
    return found


def _person(element: lxml.etree._Element) -> str:
    parts = {local_name(child): _text(child) for child in element.iter()}
    given = parts.get("first-name") or parts.get("given-name") or parts.get("FNM") or ""
    family = parts.get("last-name") or parts.get("family-name") or parts.get("SNM") or ""
    return f"{given} {family}".strip()


def _organization(element: lxml.etree._Element) -> str:
    parts = {local_name(child): _text(child) for child in element.iter()}
    return parts.get("orgname") or parts.get("organization-name") or parts.get("ONM") or _person(element)


def _text(element: lxml.etree._Element) -> str:
    """The words inside an element, white space collapsed."""
    parts: list[str] = []
    _gather(element, parts)
    return " ".join("".join(parts).split())


def _gather(element: lxml.etree._Element, parts: list[str]) -> None:
    parts.append(element.text or "")
    for child in element:
        tag = local_name(child)
        if tag in ("br", "BR"):
            parts.append("\n")
        elif tag not in _NO_TEXT:
            _gather(child, parts)
        parts.append(child.tail or "")


class _Writer:
    """Puts the parts of a patent into blocks."""

    def __init__(self) -> None:
        self.builder = Builder()

    def add(self, text: str, kind: Kind = "paragraph", level: int | None = None) -> None:
        self.builder.add(text, kind, level=level)

    def parts(self, root: lxml.etree._Element) -> None:
        for part in root:
            tag = local_name(part)
            if tag in _ABSTRACTS:
                self.add("Abstract", "heading", 2)
                self._description(part)
            elif tag in _DESCRIPTIONS:
                self._description(part)
            elif tag == "us-claim-statement":
                self.add("Claims", "heading", 2)
                self.add(_text(part))
            elif tag in _CLAIMS:
                if not any(local_name(other) == "us-claim-statement" for other in root):
                    self.add("Claims", "heading", 2)
                self._claims(part)

    def _description(self, part: lxml.etree._Element) -> None:
        for child in part:
            tag = local_name(child)
            if tag in _HEADINGS:
                level = re.match(r"[1-4]\Z", child.get("level") or child.get("lvl") or "", re.ASCII)
                self.add(_text(child), "heading", 1 + int(level[0]) if level else 2)
            elif tag in _PARAGRAPHS:
                self._paragraph(child)
            elif tag in _TABLE_HOLDERS:
                self._table_holder(child)
            elif tag in ("ul", "ol", "UL", "OL"):
                self._list(child, 1)
            elif tag not in _NO_TEXT and tag != "drawings":
                if len(child):
                    self._description(child)
                else:
                    self.add(_text(child))

    def _paragraph(self, paragraph: lxml.etree._Element) -> None:
        """Text, and the tables and lists that stand inside it, in their order."""
        parts: list[str] = []
        self._inline(paragraph, parts)
        self._flush(parts)

    def _flush(self, parts: list[str]) -> None:
        self.add(_lines("".join(parts)))
        parts.clear()

    def _inline(self, element: lxml.etree._Element, parts: list[str]) -> None:
        parts.append(_folded(element.text))
        for child in element:
            tag = local_name(child)
            if tag in _TABLE_HOLDERS:
                self._flush(parts)
                self._table_holder(child)
            elif tag in ("ul", "ol", "UL", "OL"):
                self._flush(parts)
                self._list(child, 1)
            elif tag in ("br", "BR"):
                parts.append("\n")
            elif tag in ("maths", "math-cwu", "MATH-US"):
                parts.append(f" {_text(child)} ")
            elif tag not in _NO_TEXT:
                self._inline(child, parts)
            parts.append(_folded(child.tail))

    def _list(self, items: lxml.etree._Element, depth: int) -> None:
        ordered = local_name(items).lower() == "ol"
        number = 0
        for item in items:
            if local_name(item).lower() != "li":
                self._description(items) if local_name(item) in _PARAGRAPHS else None
                continue
            number += 1
            parts = [item.text or ""]
            nested = []
            for child in item:
                if local_name(child).lower() in ("ul", "ol"):
                    nested.append(child)
                elif local_name(child) not in _NO_TEXT:
                    _gather(child, parts)
                parts.append(child.tail or "")
            words = " ".join("".join(parts).split())
            self.add(f"{number}. {words}" if ordered and words else words, "list_item", depth)
            for child in nested:
                self._list(child, depth + 1)

    def _table_holder(self, holder: lxml.etree._Element) -> None:
        for table in holder.iter():
            inside = any(local_name(outer) in _TABLES for outer in table.iterancestors())
            if local_name(table) in _TABLES and not inside:
                self.add(_table(table), "table")

    def _claims(self, claims: lxml.etree._Element) -> None:
        for claim in claims:
            tag = local_name(claim)
            if tag in ("claim", "CLM"):
                parts: list[str] = []
                self._claim(claim, parts)
                self.add(_lines("".join(parts)), "list_item", 1)
            elif tag in _HEADINGS:
                self.add(_text(claim), "heading", 2)
            elif tag == "CL":  # the list of all claims
                self._claims(claim)
            elif tag not in _NO_TEXT:
                self.add(_text(claim))

    def _claim(self, element: lxml.etree._Element, parts: list[str]) -> None:
        """The text of a claim; a step of it begins a line."""
        parts.append(_folded(element.text))
        for child in element:
            tag = local_name(child)
            inside_reference = local_name(element) in ("dependent-claim-reference", "claim-ref", "CLREF")
            if tag in ("claim-text", "CLMSTEP", "PARA", "br", "BR") and not inside_reference:
                parts.append("\n")
            if tag not in _NO_TEXT:
                self._claim(child, parts)
            if tag in ("claim-text", "CLMSTEP") and not inside_reference:
                parts.append("\n")
            parts.append(_folded(child.tail))


def _folded(text: str | None) -> str:
    """White space of the source, where it is no line of the page."""
    return re.sub(r"[ \t\r\n]+", " ", text) if text else ""


def _lines(text: str) -> str:
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))


def _table(table: lxml.etree._Element) -> str:
    """A CALS table: groups of rows, each with its own columns."""
    texts = []
    groups = [group for group in table.iter() if local_name(group).lower() == "tgroup"] or [table]
    for group in groups:
        columns: dict[str, int] = {}
        grid = Grid()
        for element in group.iter():
            tag = local_name(element).lower()
            if tag == "colspec":
                columns.setdefault(element.get("colname") or element.get("COLNAME") or "", len(columns))
            elif tag in ("row", "tr"):
                grid.row()
            elif tag in ("entry", "td", "th"):
                first, last = (_column(element, key, columns) for key in ("namest", "nameend"))
                width = last - first + 1 if first is not None and last is not None else 1
                more = element.get("morerows") or element.get("MOREROWS") or "0"
                grid.cell(_text(element), width, int(more) + 1 if re.fullmatch(r"[0-9]{1,5}", more) else 1)
        texts.append(grid.text())
    return "\n".join(filter(None, texts))


def _column(entry: lxml.etree._Element, key: str, columns: dict[str, int]) -> int | None:
    return columns.get(entry.get(key) or entry.get(key.upper()) or "")


# -- the text form of 1976 to 2001

_RECORD = re.compile(r"([A-Z]{2}[A-Z0-9]{1,2})(?: +(.*))?\Z")
_SECTIONS = {
    "ABST": "Abstract",
    "PARN": "",
    "BSUM": "",
    "DRWD": "",
    "DETD": "",
    "CLMS": "Claims",
    "DCLM": "Claims",
    "GOVT": "",
    "OREF": "Other references",
}


def _read_text(data: bytes, name: str) -> Document:
    text, flags = plain_text(data, name)
    writer = _TextWriter()
    lines = text.replace("\f", "\n").split("\n")
    open_record: list[str] | None = None
    for line in lines:
        found = _RECORD.match(line.rstrip()) if line[:1].isalpha() else None
        if found:
            if open_record is not None:
                writer.record(open_record[0], open_record[1:])
            open_record = [found[1], found[2] or ""]
        elif open_record is not None:
            open_record.append(line)
    if open_record is not None:
        writer.record(open_record[0], open_record[1:])
    writer.finish()
    if not writer.builder.characters:
        raise DataError("the patent has no text", where=name, fix="check that the download is whole")
    return writer.builder.document(name, "uspto", metadata=writer.metadata, flags=flags)


class _TextWriter:
    """Records of the text form: a code of three or four letters, its text, and lines that go on."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.metadata: dict[str, str] = {}
        self._section = ""
        self._people: list[str] = []
        self._assignees: list[str] = []

    def record(self, code: str, lines: list[str]) -> None:
        words = html.unescape(" ".join(" ".join(lines).split()))
        if len(code) == 4 and not words and code != "TBL3":
            self._open(code)
        elif code == "TTL":
            self.metadata.setdefault("title", words)
            self.builder.add(words, "heading", level=1)
        elif self._section == "" and code in ("WKU", "ISD"):
            self.metadata.setdefault("number" if code == "WKU" else "date", words)
        elif code == "NAM" and self._section == "INVT":
            family, _, given = words.partition(";")
            self._people.append(f"{given.strip()} {family.strip()}".strip())
        elif code == "NAM" and self._section == "ASSG":
            self._assignees.append(words)
        elif self._section in _SECTIONS:
            self._write(code, words, lines)

    def _open(self, code: str) -> None:
        if code == "PATN":
            self.finish()
        if code in _SECTIONS:
            self._put_people()
            if _SECTIONS[code]:
                self.builder.add(_SECTIONS[code], "heading", level=2)
        self._section = "" if code == "PATN" else code

    def _write(self, code: str, words: str, lines: list[str]) -> None:
        if code == "PAC":
            self.builder.add(words, "heading", level=2)
        elif code.startswith("TBL"):
            rows = (html.unescape(line).rstrip() for line in lines)
            self.builder.add("\n".join(row for row in rows if re.search(r"\w(?<!_)", row)), "table")
        elif code == "NUM":
            pass  # the claim repeats it
        elif self._section in ("CLMS", "DCLM") and code != "STM":
            self.builder.add(words, "list_item", level=1 if code == "PAR" else 2)
        elif self._section == "OREF":
            self.builder.add(words, "note")
        else:
            self.builder.add(words)

    def _put_people(self) -> None:
        if self._people:
            people = "; ".join(self._people)
            self.metadata.setdefault("author", people)
            self.builder.add(people)
            self._people = []
        if self._assignees:
            self.metadata.setdefault("assignee", "; ".join(self._assignees))
            self._assignees = []

    def finish(self) -> None:
        self._put_people()
