"""XML of strangers: parsed without fetching, without expanding entities, within bounds."""

from __future__ import annotations

import re
from html.entities import html5
from typing import TYPE_CHECKING, NoReturn

from glasshouse.core.errors import DataError
from glasshouse.files.charset import codec, marked

if TYPE_CHECKING:
    import lxml.etree

MAX_BYTES = 100_000_000
"""Of one XML file. A book of 1,000 pages has about 5 million."""

MAX_MARKS = 6_000_000
"""Tags and attributes of one file, counted by their "<" and "=": each costs about 130 bytes when parsed."""

MAX_DEPTH = 256
"""Elements inside each other. Real files stay under 50; readers may recurse."""

MAX_ENTITY = 16
"""Characters that an entity declared in the file may stand for: enough for a sign, too few for a bomb."""

_FIX = "save the file again with the program that made it"
_NAME = r"[A-Za-z_:][\w:.-]*"
_PROLOG = re.compile(r"<!--|<\?|<!DOCTYPE\b|<")
_SUBSET = re.compile(r"""<!--|<\?|"|'|\[|\]|>""")
_ENTITY = re.compile(
    rf"""<!ENTITY\s+(?P<parameter>%\s+)?(?P<name>{_NAME})\s+
         (?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'
           |(?:SYSTEM|PUBLIC\s+(?:"[^"]*"|'[^']*'))\s*(?:"[^"]*"|'[^']*')\s*(?P<unparsed>NDATA\b)?)""",
    re.VERBOSE,
)
_REFERENCE = re.compile(rf"<!--|<!\[CDATA\[|<\?|&({_NAME});")
_NUMBER = re.compile(r"&#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}));")
_CLOSERS = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>"}
_DECLARATION = re.compile(r"\s*<\?xml\s[^>]*?\?>")
_ENCODING = re.compile(rb"""^\s*<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_OWN = frozenset({"amp", "lt", "gt", "quot", "apos"})


def parse_xml(
    data: bytes, name: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH
) -> lxml.etree._Element:
    """The root element of an XML file, its comments and processing instructions left out.

    Nothing is fetched: an external DTD is ignored, and the named signs it would declare (`&mdash;`) come from
    the table of HTML; a name that only the DTD knows stays as it is written. Raises DataError for what is not
    well-formed, for more than `max_bytes` bytes, for elements deeper than `max_depth`, and for a DTD that
    declares entities of text (what entity bombs and reads of local files are made of).
    """
    import lxml.etree

    if len(data) > max_bytes:
        raise DataError(
            f"the XML has {len(data):,} bytes, at most {max_bytes:,} are read",
            where=name,
            fix="split the file",
        )
    text = _decode(data, name)
    if not text.strip():
        raise DataError("the XML is empty", where=name, fix=_FIX)
    if text.count("<") + text.count("=") > MAX_MARKS:
        raise DataError(f"the XML has more than {MAX_MARKS:,} tags", where=name, fix="split the file")
    if declaration := _DECLARATION.match(text):  # it may name another encoding than the one we hand on
        text = text[declaration.end() :]
    entities, external, text = _without_doctype(text, name)
    text = _resolve(text, entities, external)
    parser = lxml.etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = lxml.etree.fromstring(text.encode("utf-8"), parser)
    except lxml.etree.XMLSyntaxError as error:
        raise DataError(f"not well-formed XML: {error.msg}", where=name, fix=_FIX) from None
    except UnicodeEncodeError:
        raise DataError("the XML holds half a surrogate pair", where=name, fix=_FIX) from None
    if root is None:
        raise DataError("the XML has no element", where=name, fix=_FIX)
    _check_depth(root, max_depth, name)
    return root


def local_name(element: lxml.etree._Element) -> str:
    """The name of an element without its namespace."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def span(text: str | None) -> int:
    """How many rows or columns a cell covers, from an attribute that may be missing or wrong."""
    found = re.match(r"\s*\+?(\d{1,6})", text, re.ASCII) if text else None
    return 1 if found is None else max(int(found[1]), 1)


def _check_depth(root: lxml.etree._Element, most: int, name: str) -> None:
    import lxml.etree

    depth = 0
    for event, _ in lxml.etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > most:
            raise DataError(
                f"the XML has elements more than {most} deep", where=name, fix="leave the file out"
            )


def _decode(data: bytes, name: str) -> str:
    if found := marked(data):
        encoding, length = found
        data = data[length:]
    elif data[:4] == b"<\0?\0":
        encoding = "utf-16-le"
    elif data[:4] == b"\0<\0?":
        encoding = "utf-16-be"
    else:
        declared = _ENCODING.match(data[:1000])
        label = declared[1].decode() if declared else "utf-8"
        encoding = codec(label)
        if encoding is None:
            raise DataError(f"the XML is in the unknown encoding {label!r}", where=name, fix=_FIX)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"the XML is not {encoding} (byte {error.start:,})", where=name, fix=_FIX) from None


def _without_doctype(text: str, name: str) -> tuple[dict[str, str], bool, str]:
    """The entities that a DOCTYPE declares, whether it names an external DTD, and the text without it."""
    at = 0
    while found := _PROLOG.search(text, at):
        if found[0] == "<":
            return {}, False, text
        if found[0] != "<!DOCTYPE":
            at = text.find(_CLOSERS[found[0]], found.end())
            if at < 0:
                return {}, False, text  # the parser says what is wrong
            continue
        end, subset = _doctype(text, found.end(), name)
        head = text[found.end() : subset[0] if subset else end]
        entities = _declared(text[subset[0] : subset[1]], name) if subset else {}
        external = re.search(r"\b(?:SYSTEM|PUBLIC)\b", head) is not None
        lines = "\n" * text.count("\n", found.start(), end)  # so that a message names the right line
        return entities, external, text[: found.start()] + lines + text[end:]
    return {}, False, text


def _doctype(text: str, at: int, name: str) -> tuple[int, tuple[int, int] | None]:
    """Where a DOCTYPE ends that was opened before `at`, and from where to where its own declarations go."""
    subset = None
    start = None
    inside = False
    while found := _SUBSET.search(text, at):
        mark, at = found[0], found.end()
        if mark in ("<!--", "<?", '"', "'"):
            close = _CLOSERS.get(mark, mark)
            at = text.find(close, at)
            if at < 0:
                break
            at += len(close)
        elif mark == "[" and start is None:
            start, inside = at, True
        elif mark == "]" and start is not None and inside:
            subset, inside = (start, found.start()), False
        elif mark == ">" and not inside:
            return at, subset
    raise DataError("the DOCTYPE of the XML has no end", where=name, fix=_FIX)


def _declared(subset: str, name: str) -> dict[str, str]:
    """The entities of a DTD inside a file; raises DataError for one that is more than a sign."""

    def refuse(what: str) -> NoReturn:
        raise DataError(
            f"the XML declares {what}; such entities are not read",
            where=name,
            fix="leave the file out, or save it without a DTD",
        )

    entities: dict[str, str] = {}
    at = 0
    while (at := subset.find("<!", at)) >= 0:
        if subset.startswith("<!--", at):
            end = subset.find("-->", at)
            at = end if end >= 0 else len(subset)
            continue
        if not subset.startswith("<!ENTITY", at):
            at += 2
            continue
        found = _ENTITY.match(subset, at)
        if found is None:
            refuse("an entity in a form that is not XML")
        at = found.end()
        value = found["double"] if found["double"] is not None else found["single"]
        if found["unparsed"]:
            continue  # a picture beside the file, named and never read
        if value is None:
            refuse(f"the external entity {found['name'][:40]!r}")
        if found["parameter"]:
            refuse(f"the parameter entity {found['name'][:40]!r}")
        sign = _NUMBER.sub(_character, _NUMBER.sub(_character, value))  # "&#38;#91;" is how a DTD writes "["
        if len(sign) > MAX_ENTITY or re.search(r"[&<%]", value.replace("&#", "")) or "\0" in sign:
            refuse(f"the entity {found['name'][:40]!r} of more than a few plain characters")
        entities.setdefault(found["name"], sign)
    return entities


def _character(reference: re.Match[str]) -> str:
    number = int(reference[1], 16) if reference[1] else int(reference[2])
    return chr(number) if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000 else "\0"


def _resolve(text: str, entities: dict[str, str], external: bool) -> str:
    """The text with its named entities as characters; comments and CDATA stay as they are."""
    if "&" not in text:
        return text
    parts: list[str] = []
    kept = at = 0
    while found := _REFERENCE.search(text, at):
        at = found.end()
        if not found[1]:
            at = text.find(_CLOSERS[found[0]], at)
            if at < 0:
                break
            continue
        if found[1] in _OWN:
            continue
        sign = entities.get(found[1]) or html5.get(found[1] + ";")
        if sign is None:
            if not external:
                continue  # the parser says that it is unknown
            sign = found[0]  # declared in a DTD that is not here
        parts += [text[kept : found.start()], "".join(f"&#{ord(c)};" if c in "&<>\"'" else c for c in sign)]
        kept = at
    return "".join([*parts, text[kept:]])
