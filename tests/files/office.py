"""Office files put together part by part, for what the usual writers cannot or would not write."""

from __future__ import annotations

import io
import zipfile

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_NAMES = {
    "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "r": OFFICE,
    "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
    "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    "v": "urn:schemas-microsoft-com:vml",
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
    "p": "http://schemas.openxmlformats.org/presentationml/2006/main",
}
NAMES = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in _NAMES.items())
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def packed(parts: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return buffer.getvalue()


def relations(targets: dict[str, tuple[str, str]]) -> str:
    """By id: the last word of the type, and the target."""
    rows = "".join(
        f'<Relationship Id="{id}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for id, (kind, target) in targets.items()
    )
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{space}">{rows}</Relationships>'


def package(main: str, parts: dict[str, str | bytes]) -> bytes:
    return packed(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": relations({"r1": ("officeDocument", main)}),
            **parts,
        }
    )


def word(body: str, *, head: str = "", document: str | None = None, **others: str) -> bytes:
    """A Word file; `others` are its other parts by name: styles, numbering, footnotes, comments, ..."""
    parts: dict[str, str | bytes] = {
        "word/document.xml": document or f"<w:document {NAMES}>{head}<w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": relations(
            {name: (name.rstrip("0123456789"), f"{name}.xml") for name in others}
        ),
    }
    for name, content in others.items():
        root = {"numbering": "numbering", "header": "hdr", "footer": "ftr"}.get(
            name.rstrip("0123456789"), name
        )
        prefix = "c" if name == "chart" else "w"
        root = "chartSpace" if name == "chart" else root
        parts[f"word/{name}.xml"] = f"<{prefix}:{root} {NAMES}>{content}</{prefix}:{root}>"
    return package("word/document.xml", parts)


def excel(
    sheets: dict[str, str], *, styles: str = "", strings: str = "", states: dict[str, str] | None = None
) -> bytes:
    """An Excel file: by the name of each sheet what stands in its <worksheet>."""
    head = "".join(
        f'<sheet name="{name}" sheetId="{n}" r:id="s{n}" state="{(states or {}).get(name, "visible")}"/>'
        for n, name in enumerate(sheets, 1)
    )
    targets = {f"s{n}": ("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)}
    targets |= {"st": ("styles", "styles.xml"), "ss": ("sharedStrings", "sharedStrings.xml")}
    parts: dict[str, str | bytes] = {
        "xl/workbook.xml": f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>{head}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(targets),
        "xl/styles.xml": f'<styleSheet xmlns="{SHEET}">{styles}</styleSheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{SHEET}">{strings}</sst>',
    }
    for n, content in enumerate(sheets.values(), 1):
        parts[f"xl/worksheets/sheet{n}.xml"] = f'<worksheet xmlns="{SHEET}">{content}</worksheet>'
    return package("xl/workbook.xml", parts)
