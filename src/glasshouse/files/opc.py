"""The parts of an Office file (.docx, .pptx, .xlsx) and what they point at: Open Packaging Conventions."""

from __future__ import annotations

import posixpath
import re
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote

from glasshouse.core.errors import DataError
from glasshouse.files.archive import MAX_UNPACKED_BYTES, open_archive, read_member
from glasshouse.files.xml import parse_xml

if TYPE_CHECKING:
    from lxml import etree  # type: ignore[attr-defined]

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")
"""The strict variant of ISO/IEC 29500 differs in its namespaces; readers know the usual ones."""

MAX_READ_BYTES = 2 * MAX_UNPACKED_BYTES
"""Of all parts together, each as often as it is read: many slides may point at the same large part."""

_RELATIONSHIPS = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"

_METADATA = {
    "title": "title",
    "creator": "author",
    "created": "date",
    "modified": "modified",
    "subject": "subject",
    "keywords": "keywords",
    "language": "language",
}
"""Names in docProps/core.xml, and ours."""


class Package:
    """An Office file whose archive was checked. Part names have no slash before them: "word/document.xml"."""

    def __init__(self, data: bytes, name: str) -> None:
        """Raises DataError, see `open_archive`."""
        self.archive, self.name = open_archive(data, name), name
        self._parts = {part.lower(): part for part in self.archive.namelist()}  # their case does not count
        self._left = MAX_READ_BYTES
        self._targets: dict[str, dict[str, tuple[str, str]]] = {}
        if "[content_types].xml" not in self._parts:
            raise DataError(
                "a ZIP archive, but no Office file", where=name, fix="check what kind of file it is"
            )

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._parts

    def bytes(self, part: str) -> bytes:
        """Raises DataError where there is no such part, or when too much has been read."""
        data = read_member(self.archive, self._parts.get(part.lower(), part), self.name)
        self._left -= len(data)
        if self._left < 0:
            what = f"its parts point at each other so often that {MAX_READ_BYTES >> 20} MiB are not enough"
            raise DataError(what, where=self.name, fix="leave the file out")
        return data

    def open(self, part: str) -> IO[bytes]:
        """A part that is read piece by piece; raises DataError where there is no such part."""
        if part not in self:
            raise DataError(f'the part "{part}" is missing', where=self.name, fix="copy the file again")
        return self.archive.open(self._parts[part.lower()])

    def xml(self, part: str) -> etree._Element:
        """The root of a part; raises DataError for a missing or broken one and for entity bombs."""
        data = _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/", self.bytes(part))
        return parse_xml(data, f"{self.name}: {part}")

    def related(self, part: str, kind: str) -> list[str]:
        """The parts that `part` ("" for the package) points at by relationships whose type ends in `kind`."""
        return [
            target for found, target in self._relations(part).values() if found == kind and target in self
        ]

    def target(self, part: str, relation: str | None) -> str | None:
        """The part behind a relationship's id; None where there is none, or it leads out of the file."""
        _, target = self._relations(part).get(relation or "", ("", ""))
        return target if target in self else None

    def main(self, kind: str) -> tuple[str, etree._Element]:
        """The part that everything hangs on, and its root; raises DataError where that is no <kind>."""
        for part in self.related("", "officeDocument"):
            root = self.xml(part)
            if str(root.tag).rpartition("}")[2] == kind:
                return part, root
        raise DataError(
            f"an Office file without the part <{kind}>", where=self.name, fix="check what kind of file it is"
        )

    def metadata(self) -> dict[str, str]:
        """Title, author, dates, as far as the file has them."""
        found: dict[str, str] = {}
        for part in self.related("", "core-properties"):
            try:
                root = self.xml(part)
            except DataError:
                continue  # nothing of the text
            for element in root:
                key = _METADATA.get(str(element.tag).rpartition("}")[2])
                if key and element.text and element.text.strip():
                    found[key] = element.text.strip()
        return found

    def _relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Of each relationship's id: the last word of its type, and the part it leads to."""
        if part not in self._targets:
            folder, file = posixpath.split(part)
            path = posixpath.join(folder, "_rels", file + ".rels")
            found: dict[str, tuple[str, str]] = {}
            for element in self.xml(path).iter(_RELATIONSHIPS) if path in self else ():
                if element.get("TargetMode") == "External":
                    continue
                target = posixpath.normpath(posixpath.join("/", folder, unquote(element.get("Target", ""))))
                kind = element.get("Type", "").rpartition("/")[2]
                found[element.get("Id", "")] = (kind, target.lstrip("/"))
            self._targets[part] = found
        return self._targets[part]
