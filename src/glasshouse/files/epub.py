"""E-books: the chapters of an EPUB in reading order."""

from __future__ import annotations

import posixpath
import re
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import unquote

from glasshouse.core.errors import DataError
from glasshouse.files.archive import open_archive, read_member
from glasshouse.files.builder import Builder
from glasshouse.files.charset import decode
from glasshouse.files.document import Document, Flag
from glasshouse.files.html import MAX_HIDDEN, write_html
from glasshouse.files.xml import local_name, parse_xml

if TYPE_CHECKING:
    import lxml.etree

_FIX = "get the book again from where it came"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_META = {
    "title": "title",
    "creator": "author",
    "date": "date",
    "language": "language",
    "publisher": "publisher",
}


def read_epub(data: bytes, name: str) -> Document:
    """A book: each chapter of its spine is read as a page of HTML, and `place` is the chapter's file.

    Raises DataError for an archive that is broken, encrypted or a bomb (see `open_archive`), for a book with
    digital rights management, and for one without chapters. A chapter that is missing or cannot be read is
    flagged.
    """
    with open_archive(data, name) as archive:
        members = {member.filename for member in archive.infolist()}
        _refuse_encrypted(archive, members, name)
        package_path = _package(archive, members, name)
        package = parse_xml(read_member(archive, package_path, name), f"{name}: {package_path}")
        builder = Builder()
        flags: list[Flag] = []
        hidden = []
        missing = []
        for path in _chapters(package, package_path):
            try:
                if path not in members:
                    raise KeyError(path)
                text = decode(read_member(archive, path, name), _declared(path))
                page = write_html(text, builder, path, place=path, xml=True)
            except (DataError, KeyError) as error:
                missing.append(
                    f"{path}: {error.what if isinstance(error, DataError) else 'not in the archive'}"
                )
                continue
            hidden += [flag.text for flag in page.flags if flag.kind == "hidden_text"]
            flags += [flag for flag in page.flags if flag.kind != "hidden_text" and flag not in flags]
    if missing:
        listed = "; ".join(missing[:5])
        flags.append(Flag("broken", f"{len(missing)} chapters could not be read ({listed})."))
    if hidden:
        words = " ".join(hidden)[:MAX_HIDDEN]
        flags.append(Flag("hidden_text", "The book holds text that it does not show.", text=words))
    if not builder.characters:
        if not missing and not hidden:
            flags.append(Flag("no_text", "The book shows no text; its pages may be pictures."))
        elif missing:
            raise DataError("no chapter of the book can be read", where=name, fix=_FIX)
    return builder.document(name, "epub", metadata=_metadata(package), flags=tuple(flags))


def _declared(path: str) -> str | None:
    return "utf-8" if path.endswith((".xhtml", ".xml")) else None


def _refuse_encrypted(archive: zipfile.ZipFile, members: set[str], name: str) -> None:
    """Fonts may be scrambled; chapters that are cannot be read."""
    if "META-INF/encryption.xml" not in members:
        return
    listed = parse_xml(read_member(archive, "META-INF/encryption.xml", name), name)
    for reference in listed.iter("{*}CipherReference"):
        if re.search(r"\.(?:x?html?|opf|ncx)\Z", reference.get("URI") or "", re.IGNORECASE):
            raise DataError(
                "the book is encrypted", where=name, fix="use a copy without digital rights management"
            )


def _package(archive: zipfile.ZipFile, members: set[str], name: str) -> str:
    """The path of the file that lists the book's parts."""
    if "META-INF/container.xml" in members:
        container = parse_xml(read_member(archive, "META-INF/container.xml", name), name)
        for rootfile in container.iter("{*}rootfile"):
            path = rootfile.get("full-path")
            if path in members:
                return path
    packages = sorted(member for member in members if member.endswith(".opf"))
    if not packages:
        raise DataError("no book in this archive", where=name, fix=_FIX)
    return packages[0]


def _chapters(package: lxml.etree._Element, package_path: str) -> list[str]:
    """The files of the spine, each once."""
    folder = posixpath.dirname(package_path)
    items: dict[str, str] = {}
    for item in package.iter("{*}item"):
        if item.get("media-type", "") in _PAGES or not item.get("media-type"):
            path = unquote((item.get("href") or "").partition("#")[0])
            items[item.get("id", "")] = posixpath.normpath(posixpath.join(folder, path))
    spine = [
        items[found] for entry in package.iter("{*}itemref") if (found := entry.get("idref", "")) in items
    ]
    return list(dict.fromkeys(spine or items.values()))


def _metadata(package: lxml.etree._Element) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for element in package.iter("{http://purl.org/dc/elements/1.1/}*"):
        key = _META.get(local_name(element))
        words = " ".join("".join(element.itertext()).split())
        if key and words:
            found.setdefault(key, []).append(words)
    return {key: "; ".join(words) for key, words in found.items()}
