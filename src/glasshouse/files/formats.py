"""The formats of documents: which reader each has, and how its content tells it from the others."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from glasshouse.core.errors import DataError
from glasshouse.files.charset import decode
from glasshouse.files.document import Document


@dataclass(frozen=True)
class Format:
    name: str
    suffixes: tuple[str, ...]  # in lower case; the first is the usual one
    module: str  # of glasshouse.files
    function: str  # of (data, name) -> Document

    def reader(self) -> Callable[[bytes, str], Document]:
        return getattr(importlib.import_module(f"glasshouse.files.{self.module}"), self.function)


FORMATS = (
    Format("pdf", (".pdf",), "pdf", "read_pdf"),
    Format("docx", (".docx",), "docx", "read_docx"),
    Format("pptx", (".pptx",), "pptx", "read_pptx"),
    Format("xlsx", (".xlsx", ".xlsm"), "xlsx", "read_xlsx"),
    Format("odt", (".odt",), "odf", "read_odf"),
    Format("ods", (".ods",), "odf", "read_odf"),
    Format("odp", (".odp",), "odf", "read_odf"),
    Format("epub", (".epub",), "epub", "read_epub"),
    Format("html", (".html", ".htm", ".xhtml"), "html", "read_html"),
    Format("jats", (".nxml", ".jats", ".xml"), "jats", "read_jats"),
    Format("uspto", (".xml", ".txt"), "uspto", "read_uspto"),
    Format("eml", (".eml",), "mail", "read_mail"),
    Format("vtt", (".vtt", ".srt"), "subtitles", "read_vtt"),
    Format("csv", (".csv", ".tsv"), "table_text", "read_csv"),
    Format("markdown", (".md", ".markdown"), "markdown", "read_markdown"),
    Format("text", (".txt", ".text"), "plain", "read_plain"),
)
"""Every format with its reader. A new one is a line here and, where its content tells it, one below."""

BY_NAME = {format.name: format for format in FORMATS}
SUFFIXES = tuple(dict.fromkeys(suffix for format in FORMATS for suffix in format.suffixes))
"""What folders are searched for."""

_HEAD = 65_536  # bytes in which the beginning of a text or an XML file tells what it is
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_MIMETYPES = {
    b"application/epub+zip": "epub",
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
    b"application/vnd.oasis.opendocument.presentation": "odp",
}
_MEMBERS = {b"word/": "docx", b"ppt/": "pptx", b"xl/": "xlsx", b"META-INF/container.xml": "epub"}
_DIRECTORY_ENTRY = re.compile(rb"PK\x01\x02.{42}(word/|ppt/|xl/|META-INF/container\.xml)", re.DOTALL)
_ROOTS = {
    "html": "html",
    "article": "jats",
    "pmc-articleset": "jats",
    "us-patent-application": "uspto",
    "us-patent-grant": "uspto",
    "patent-application-publication": "uspto",
    "PATDOC": "uspto",
}
_PROLOG = re.compile(
    r"(?:\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>)*", re.DOTALL | re.IGNORECASE
)
_ROOT = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)")
_HTML = re.compile(r"<!doctype\s+html|<(?:html|head|body)[\s>]", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*):[ \t]")
_MAIL = frozenset({"from", "to", "subject", "date"})
_MAIL_ONLY = frozenset({"received", "message-id", "mime-version", "return-path", "delivered-to"})
_FAMILIES = (
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"II*\x00", "a picture (TIFF)"),
    (b"MM\x00*", "a picture (TIFF)"),
    (b"\x1f\x8b", "a file compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"{\\rtf", "a Rich Text file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "a SQLite database"),
)
_READABLE = "give one of these: " + ", ".join(format.name for format in FORMATS)


def format_of(data: bytes, name: str) -> Format:
    """The format of a file: by its content where that tells it, else by the suffix of its name.

    Raises DataError for an empty file, and for content of no format that can be read.
    """
    if not data.strip(b"\x00\t\n\r "):
        raise DataError("the file is empty", where=name, fix="leave it out")
    found = _binary_format(data, name)
    return BY_NAME[found or _text_format(data, name)]


def has_wrong_extension(format: Format, name: str) -> bool:
    """Whether a name promises another format than the content is of; any name may hold plain text."""
    suffix = PurePath(name).suffix.lower()
    if not suffix or suffix in format.suffixes:
        return False
    return suffix in SUFFIXES or format.name != "text"


def _binary_format(data: bytes, name: str) -> str | None:
    if b"%PDF-" in data[:1_024]:
        return "pdf"
    if data.startswith(_ZIP):
        return _zip_format(data, name)
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        from glasshouse.files.archive import open_archive

        open_archive(data, name)  # tells an encrypted Office file from one of before 2007
    for magic, what in _FAMILIES:
        if data.startswith(magic):
            raise DataError(f"this is {what}, not a document that can be read", where=name, fix=_READABLE)
    return None


def _zip_format(data: bytes, name: str) -> str:
    """What an archive holds, told from its first member or its directory; nothing is unpacked."""
    if data[30:38] == b"mimetype":
        size = int.from_bytes(data[22:26], "little")
        start = 38 + int.from_bytes(data[28:30], "little")
        found = _MIMETYPES.get(data[start : start + min(size, 100)].strip())
        if found:
            return found
    entry = _DIRECTORY_ENTRY.search(data)
    if entry:
        return _MEMBERS[entry[1]]
    suffix = PurePath(name).suffix.lower()
    for format in FORMATS:
        if suffix in format.suffixes and format.name in (*_MIMETYPES.values(), *_MEMBERS.values()):
            return format.name  # its reader says what is wrong with it
    raise DataError(
        "this is a ZIP archive, not a document", where=name, fix="unpack it and read what is in it"
    )


def _text_format(data: bytes, name: str) -> str:
    text = decode(data[:_HEAD])
    controls = sum(letter < " " and letter not in "\t\n\r\f\x1b" for letter in text)
    if controls > 0.02 * len(text):
        raise DataError("this is not a document that can be read", where=name, fix=_READABLE)
    suffix = PurePath(name).suffix.lower()
    start = _PROLOG.match(text)
    root = _ROOT.match(text, start.end() if start else 0)
    if root and root[1] in _ROOTS:
        return _ROOTS[root[1]]
    if _HTML.match(text.lstrip()) or (root and _HTML.match(text, root.start())):
        return "html"
    if text.startswith("WEBVTT"):
        return "vtt"
    if re.match(r"(?:HHHHHT.*\n)?PATN\s*\n", text):
        return "uspto"
    if _is_mail(text, suffix):
        return "eml"
    if text.lstrip().startswith("<?xml") and root:
        raise DataError(
            f"this is XML of an unknown kind: its root is <{root[1]}>",
            where=name,
            fix="JATS articles, USPTO patents and XHTML are read; save it as one of them or as text",
        )
    if suffix in BY_NAME["html"].suffixes and _TAG.search(text):
        return "html"
    if suffix in BY_NAME["vtt"].suffixes and "-->" in text:
        return "vtt"
    for format in ("csv", "markdown", "text"):
        if suffix in BY_NAME[format].suffixes:
            return format
    return "text"


def _is_mail(text: str, suffix: str) -> bool:
    """Whether a text begins with headers of an e-mail; without the suffix, with some that only mail has."""
    names = set()
    for line in text.removeprefix("\ufeff").lstrip("\r\n").splitlines()[:200]:
        if not line.strip():
            break
        header = _HEADER.match(line) or re.match(r"([A-Za-z][A-Za-z0-9-]*):$", line)
        if header:
            names.add(header[1].lower())
        elif line[0] not in " \t" and not (line.startswith("From ") and not names):
            return False
    if suffix == ".eml":
        return bool(names & (_MAIL | _MAIL_ONLY))
    return "from" in names and bool(names & _MAIL_ONLY) and len(names & (_MAIL | _MAIL_ONLY)) >= 3
