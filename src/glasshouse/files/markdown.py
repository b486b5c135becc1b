"""Markdown: its structure becomes blocks, the words inside a block stay as the source has them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from glasshouse.files.builder import Builder
from glasshouse.files.document import Document, Flag, Kind
from glasshouse.files.grid import BETWEEN
from glasshouse.files.html import MAX_HIDDEN, write_html
from glasshouse.files.plain import plain_text

_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*([^`]*)\Z")
_HEADING = re.compile(r"(#{1,6})(?:[ \t]+(.*))?\Z")
_UNDERLINE = re.compile(r"(=+|-+)[ \t]*\Z")
_RULE = re.compile(r"(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})\Z")
_ITEM = re.compile(r"([-*+]|\d{1,9}[.)])(?=[ \t]|\Z)([ \t]*)")
_QUOTE = re.compile(r" {0,3}>[ \t]?")
_TABLE_RULE = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\Z")
_CELL_END = re.compile(r"(?<!\\)\|")
_HTML = re.compile(
    r"<(?:(?P<raw>script|pre|style|textarea)(?=[\s>]|\Z)|(?P<comment>!--)|(?P<other>[?!])|/?(?P<tag>[a-zA-Z][\w-]*)(?=[\s/>]|\Z))",
    re.IGNORECASE,
)
_HTML_BLOCKS = frozenset(
    "address article aside base blockquote body caption center col colgroup dd details dialog dir div "  # noqa: SIM905
    "dl dt fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html "
    "iframe legend li link main menu nav noframes ol optgroup option p param search section summary table "
    "tbody td template tfoot th thead title tr track ul".split()
)
_ALONE = re.compile(r"</?[a-zA-Z][^<>]*>[ \t]*\Z")
_INLINE = re.compile(
    r"`[^`]*`|<!--.*?(?:-->|\Z)|</?(?:a|abbr|b|bdi|bdo|big|br|cite|code|data|del|dfn|em|font|i|img|ins|kbd|mark|q|"
    r"rp|rt|ruby|s|samp|small|span|strike|strong|sub|sup|time|tt|u|var|wbr)\b[^<>]*>",
    re.IGNORECASE | re.DOTALL,
)
_STYLED = re.compile(r"\s(?:style|hidden|color|class)\b", re.IGNORECASE)
_VOID = frozenset({"area", "br", "col", "hr", "img", "input", "link", "meta", "wbr"})
_META = re.compile(r"([A-Za-z][\w -]{0,40}):[ \t]+(\S.*)\Z")


def read_markdown(data: bytes, name: str) -> Document:
    """A Markdown file.

    The signs that make a block (`#`, `-`, `>`, fences, the bars around a table) are not text, the numbers of
    ordered lists are; signs inside a line (`**`, links) stay, so that a quote of the source is a quote of the
    text. HTML in it is read as HTML. Front matter goes into the metadata. Raises DataError as for plain text.
    """
    text, flags = plain_text(data, name)
    reader = _Reader(name)
    reader.read(text.replace("\f", "\n").split("\n"))
    flags = (*flags, *reader.flags)
    if hidden := " ".join("".join(reader.hidden).split()):
        flags = (
            *flags,
            Flag("hidden_text", "The page holds text that it does not show.", text=hidden[:MAX_HIDDEN]),
        )
    return reader.builder.document(name, "markdown", metadata=reader.metadata, flags=flags)


@dataclass
class _Reader:
    name: str
    builder: Builder = field(default_factory=Builder)
    metadata: dict[str, str] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)  # of the open paragraph or item
    _kind: Kind = "paragraph"
    _level: int | None = None
    _indents: list[int] = field(default_factory=list)  # where the text of each open list item begins
    _hidden_until: str | None = None  # the tag that closes an element which is not shown

    def read(self, lines: list[str]) -> None:
        at = self._front_matter(lines)
        blank = True
        depth = 0  # of quotes
        while at < len(lines):
            line, inner = _unquoted(lines[at])
            goes_on = inner < depth and self._lines and not blank and line.strip()  # of a quote, without mark
            if inner != depth and not goes_on:
                self._close()
                self._indents.clear()
                depth = inner
            expanded = line.expandtabs(4)
            stripped = expanded.lstrip(" ")
            indent = len(expanded) - len(stripped)
            stripped = stripped.rstrip()
            if not stripped:
                self._close()
                blank = True
                at += 1
                continue
            if blank:  # the text of an item goes on only where it is indented as far
                while self._indents and indent < self._indents[-1] and not _ITEM.match(stripped):
                    self._indents.pop()
            base = self._indents[-1] if self._indents else 0
            if (
                blank
                and indent >= base + 4
                and not self._lines
                and not (self._indents and _ITEM.match(stripped))
            ):
                at = self._indented_code(lines, at, base + 4, depth)
                continue
            at = self._block(lines, at, depth, stripped, indent)
            blank = False
        self._close()

    def _block(self, lines: list[str], at: int, depth: int, line: str, indent: int) -> int:
        """Reads what begins in the line at `at`; returns where to go on."""
        if fence := _FENCE.match(line):
            self._close()
            return self._fenced(lines, at, depth, fence[1], indent)
        if heading := _HEADING.match(line):
            self._close()
            self._indents.clear()
            self._put(_without_closing(heading[2] or ""), "heading", len(heading[1]))
            return at + 1
        if self._lines and self._kind == "paragraph" and (under := _UNDERLINE.match(line)):
            self._kind, self._level = "heading", 1 if under[1][0] == "=" else 2
            self._close()
            return at + 1
        if _RULE.match(line):
            self._close()
            return at + 1
        if item := _ITEM.match(line):
            self._item(line, indent, item)
            return at + 1
        if "|" in line and at + 1 < len(lines):
            following = _unquoted(lines[at + 1])[0].strip()
            if _TABLE_RULE.match(following) and len(_cells(following)) == len(_cells(line)):
                self._close()
                return self._table(lines, at, depth)
        if (found := _HTML.match(line)) and self._is_html_block(line, found):
            self._close()
            return self._html(lines, at, depth, found)
        if not self._lines:
            if self._indents:
                self._kind, self._level = "list_item", len(self._indents)
            else:
                self._kind, self._level = "paragraph", None
        self._lines.append(line)
        return at + 1

    def _front_matter(self, lines: list[str]) -> int:
        if lines[0].rstrip() != "---":
            return 0
        for at, line in enumerate(lines[1:200], start=1):
            if line.rstrip() in ("---", "..."):
                for entry in lines[1:at]:
                    if found := _META.match(entry.rstrip()):
                        self.metadata.setdefault(found[1].strip().lower(), found[2].strip("\"' ")[:1000])
                return at + 1
        return 0

    def _item(self, line: str, indent: int, item: re.Match[str]) -> None:
        self._close()
        while self._indents and indent < self._indents[-1]:
            self._indents.pop()
        spaces = len(item[2])
        self._indents.append(indent + len(item[1]) + (spaces if 1 <= spaces <= 4 else 1))
        self._kind, self._level = "list_item", len(self._indents)
        text = line[item.end() :]
        if heading := _HEADING.match(text):
            self._put(_without_closing(heading[2] or ""), "heading", len(heading[1]))
        elif text:
            self._lines.append(f"{item[1]} {text}" if item[1][0].isdigit() else text)

    def _indented_code(self, lines: list[str], at: int, indent: int, depth: int) -> int:
        code = []
        while at < len(lines):
            line, inner = _unquoted(lines[at])
            line = line.expandtabs(4)
            if inner != depth or (line.strip() and len(line) - len(line.lstrip(" ")) < indent):
                break
            code.append(line[indent:].rstrip())
            at += 1
        self._put("\n".join(code).strip("\n"), "code")
        return at

    def _fenced(self, lines: list[str], at: int, depth: int, fence: str, indent: int) -> int:
        code = []
        closing = re.compile(rf" *{re.escape(fence[0])}{{{len(fence)},}}[ \t]*\Z")
        at += 1
        while at < len(lines):
            line = _without_quotes(lines[at], depth)
            at += 1
            if line is None:
                at -= 1  # the quote ends, and its code with it
                break
            if closing.match(line.expandtabs(4)):
                break
            code.append(line[min(indent, len(line) - len(line.lstrip(" "))) :].rstrip())
        self._put("\n".join(code).strip("\n"), "code")
        return at

    def _table(self, lines: list[str], at: int, depth: int) -> int:
        rows = [_cells(_unquoted(lines[at])[0].strip())]
        at += 2
        while at < len(lines):
            line, inner = _unquoted(lines[at])
            if inner != depth or "|" not in line:
                break
            rows.append(_cells(line.strip()))
            at += 1
        self._put("\n".join(BETWEEN.join(map(self._shown, row)) for row in rows if any(row)), "table")
        return at

    def _is_html_block(self, line: str, found: re.Match[str]) -> bool:
        tag = (found["tag"] or "").lower()
        if not tag or tag in _HTML_BLOCKS:
            return True
        return not self._lines and _ALONE.match(line) is not None

    def _html(self, lines: list[str], at: int, depth: int, found: re.Match[str]) -> int:
        """HTML up to its end: what closes comments and raw text, an empty line for all else."""
        if found["raw"]:
            end = re.compile(rf"</{found['raw']}\s*>", re.IGNORECASE)
        elif found["comment"]:
            end = re.compile("-->")
        else:
            end = re.compile(">") if found["other"] else None
        block = []
        while at < len(lines):
            line = _without_quotes(lines[at], depth)
            if line is None or (end is None and not line.strip()):
                break
            block.append(line)
            at += 1
            if end is not None and end.search(line):
                break
        self._write_html("\n".join(block))
        return at

    def _write_html(self, html: str) -> None:
        if self._hidden_until is not None:
            before, closing, html = _partition(html, self._hidden_until)
            self.hidden.append(before + " ")
            if not closing:
                return
            self._hidden_until = None
        page = write_html(html, self.builder, self.name)
        self._take_flags(page.flags)
        self._hidden_until = self._left_open(html)

    def _left_open(self, html: str) -> str | None:
        """The tag of an element that is not shown and stays open after its block: it holds what follows."""
        if not _STYLED.search(html):
            return None
        closed = {found[1].lower(): found.start() for found in re.finditer(r"</([a-zA-Z][\w-]*)", html)}
        for found in itertools.islice(re.finditer(r"<([a-zA-Z][\w-]*)\s[^<>]*>", html), 1000):
            tag = found[1].lower()
            if tag in _VOID or closed.get(tag, -1) > found.start() or not _STYLED.search(found[0]):
                continue
            probe = write_html(f"{found[0]}word</{tag}>", Builder(), self.name)
            if any(flag.kind == "hidden_text" for flag in probe.flags):
                return tag
        return None

    def _take_flags(self, flags: tuple[Flag, ...]) -> None:
        for flag in flags:
            if flag.kind == "hidden_text":
                self.hidden.append(flag.text + " ")
            elif flag not in self.flags:
                self.flags.append(flag)

    def _close(self) -> None:
        """The open paragraph or item ends."""
        if self._lines:
            text = "\n".join(self._lines)
            self._lines = []
            self._put(self._shown(text), self._kind, self._level)

    def _put(self, text: str, kind: Kind, level: int | None = None) -> None:
        if self._hidden_until is not None:
            self.hidden.append(text + " ")
        else:
            self.builder.add(text, kind, level=level)

    def _shown(self, text: str) -> str:
        """A text without its HTML tags and what they hide; code spans stay."""
        if "<" not in text:
            return text
        if any(_STYLED.search(found[0]) for found in _INLINE.finditer(text) if found[0][:1] == "<"):
            part = Builder()
            self._take_flags(write_html(text, part, self.name).flags)
            return part.document("", "").text
        return _INLINE.sub(_without_tag, text)


def _without_closing(heading: str) -> str:
    """A heading without the `##` that may stand at its end."""
    bare = heading.rstrip().rstrip("#")
    return bare if not bare or bare[-1] in " \t" else heading


def _without_tag(found: re.Match[str]) -> str:
    if found[0][0] == "`":
        return found[0]
    return "\n" if found[0][:3].lower() == "<br" else ""


def _partition(html: str, tag: str) -> tuple[str, bool, str]:
    found = re.search(rf"</{re.escape(tag)}\s*>", html, re.IGNORECASE)
    return (html, False, "") if found is None else (html[: found.start()], True, html[found.end() :])


def _unquoted(line: str) -> tuple[str, int]:
    """A line without the marks of quotes, and how many it had."""
    at = depth = 0
    while found := _QUOTE.match(line, at):
        at, depth = found.end(), depth + 1
    return line[at:], depth


def _without_quotes(line: str, depth: int) -> str | None:
    """A line without `depth` marks of quotes; None where it has fewer."""
    at = 0
    for _ in range(depth):
        found = _QUOTE.match(line, at)
        if found is None:
            return None
        at = found.end()
    return line[at:]


def _cells(line: str) -> list[str]:
    """The cells of a row; a bar inside a cell is written `\\|`."""
    line = line.strip().removeprefix("|")
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    return [" ".join(cell.replace("\\|", "|").split()) for cell in _CELL_END.split(line)]
