"""A template as the linter reads it: paragraphs of sentences, and the places where inputs are put in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from jinja2 import nodes

from glasshouse.llm.prompts.template import Role, Section, Template

_EXPRESSION = re.compile(r"\{\{-?(.*?)-?\}\}", re.DOTALL)
_STATEMENT = re.compile(r"\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_NAME = re.compile(r"(?<![.\w'\"])[A-Za-z_]\w*")
_FENCE = re.compile(r"^\s*(```|~~~|\"\"\"|''')")
_OPEN = re.compile(r"<([A-Za-z][\w-]*)(?:\s[^<>]*)?>")
_MARK = re.compile(r"^\s*(?:[-*•]\s+|\(?\d{1,2}[.)]\s+)")
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(]?[A-Z{<])")
_HEADING = re.compile(r"^\s*(?:#+\s.*|[^.!?]{1,60}:\s*)$")


@dataclass(frozen=True)
class Sentence:
    """`line`: of the file. `item`: stands in a list. `within`: brackets that also hold an input."""

    text: str
    line: int
    item: bool = False
    within: str | None = None

    @property
    def heading(self) -> bool:
        return bool(_HEADING.match(self.text))

    @property
    def words(self) -> int:
        return len(self.text.split())


@dataclass(frozen=True)
class Insertion:
    """Where an input goes. `delimited`: brackets, a fence or a filter tell where it begins and ends."""

    name: str
    line: int
    delimited: bool
    role: Role


@dataclass
class Paragraph:
    """What stands between blank lines, in its order."""

    parts: list[Sentence | Insertion] = field(default_factory=list)

    def sentences(self) -> list[Sentence]:
        return [part for part in self.parts if isinstance(part, Sentence)]


@dataclass(frozen=True)
class Read:
    """One message."""

    section: Section
    paragraphs: tuple[Paragraph, ...]

    def parts(self) -> Iterator[Sentence | Insertion]:
        for paragraph in self.paragraphs:
            yield from paragraph.parts

    def sentences(self) -> Iterator[Sentence]:
        return (part for part in self.parts() if isinstance(part, Sentence))

    def insertions(self) -> Iterator[Insertion]:
        return (part for part in self.parts() if isinstance(part, Insertion))


def read(template: Template) -> list[Read]:
    """Every message of a template. Inputs that cannot hold foreign text (numbers, choices, those marked as
    trusted) are words of their sentences, not insertions."""
    foreign = {
        name
        for name, wanted in template.header.inputs.items()
        if wanted.type in ("string", "array", "object") and not wanted.choices and not wanted.trusted
    }
    return [
        _read(section, _aliases(tree, foreign))
        for section, tree in zip(template.sections, template.trees, strict=True)
    ]


def _aliases(tree: nodes.Template, foreign: set[str]) -> dict[str, str]:
    """Names in the text that stand for an input: the input's own, and those of loops over it."""
    aliases = {name: name for name in foreign}
    for loop in tree.find_all((nodes.For, nodes.Assign)):
        source = loop.iter if isinstance(loop, nodes.For) else loop.node
        names = [source, *source.find_all(nodes.Name)]
        known = [
            aliases[name.name] for name in names if isinstance(name, nodes.Name) and name.name in aliases
        ]
        targets = [loop.target, *loop.target.find_all(nodes.Name)]
        for target in targets:
            if known and isinstance(target, nodes.Name):
                aliases[target.name] = known[0]
    return aliases


def _read(section: Section, aliases: dict[str, str]) -> Read:
    source = _STATEMENT.sub(lambda found: "\n" * found[0].count("\n"), section.source)
    lines = source.split("\n")
    blocks = _blocks(lines, aliases)
    alone = not _EXPRESSION.sub("", source).strip()  # the message is inputs and nothing else
    paragraphs: list[Paragraph] = [Paragraph()]
    for number, line in enumerate(lines):
        if not line.strip():
            paragraphs.append(Paragraph())
            continue
        block = blocks[number]
        parts = list(_parts(line, section, number, block, aliases, alone))
        before = paragraphs[-1].parts
        if parts and before and _goes_on(before[-1], parts[0], line):
            first = before[-1]
            assert isinstance(first, Sentence)
            assert isinstance(parts[0], Sentence)
            before[-1] = Sentence(f"{first.text} {parts[0].text}", first.line, first.item, first.within)
            parts = parts[1:]
        before += parts
    return Read(section, tuple(paragraph for paragraph in paragraphs if paragraph.parts))


def _goes_on(last: Sentence | Insertion, first: Sentence | Insertion, line: str) -> bool:
    """Whether a line continues the sentence of the line before it."""
    if isinstance(last, Insertion) or isinstance(first, Insertion) or _MARK.match(line):
        return False
    return last.text[-1] not in ".!?:;\"'`>)" and not last.heading and first.text[0].islower()


def _parts(
    line: str, section: Section, number: int, block: str | None, aliases: dict[str, str], alone: bool
) -> Iterator[Sentence | Insertion]:
    at, within = section.line + number, block
    if _FENCE.match(line):
        return
    kept, end, found = "", 0, []
    for expression in _EXPRESSION.finditer(line):
        names = [aliases[name] for name in _NAME.findall(expression[1]) if name in aliases]
        filtered = re.search(r"\|\s*(delimited|tojson)\b", expression[1])
        around = _OPEN.search(line[: expression.start()])
        closed = around and f"</{around[1]}" in line[expression.end() :]
        sure = bool(filtered or closed or block or alone)
        found += [Insertion(name, at, sure, section.role) for name in dict.fromkeys(names)]
        # an insertion ends what was said before it; any other value is a word of its sentence
        kept += line[end : expression.start()] + ("\0" if names else " X ")
        end = expression.end()
    kept += line[end:]
    item = bool(_MARK.match(kept))
    text = re.sub(r"</?[A-Za-z][\w-]*(\s[^<>]*)?>", " ", _MARK.sub("", kept))
    pieces = text.split("\0")
    for place, piece in enumerate(pieces):
        for sentence in _END.split(piece):
            if re.search(r"\w", sentence):
                yield Sentence(" ".join(sentence.split()), at, item, within)
        if place < len(pieces) - 1 and found:
            yield found.pop(0)
    yield from found


def _blocks(lines: list[str], aliases: dict[str, str]) -> list[str | None]:
    """For each line, the brackets it stands in that hold an input too: a fence or an XML tag."""
    spans: list[tuple[int, int, str]] = []
    opened: int | None = None
    for number, line in enumerate(lines):
        if found := _FENCE.match(line):
            if opened is None:
                opened = number
            else:
                spans.append((opened, number, found[1]))
                opened = None
        for tag in _OPEN.findall(line):
            closing = next((i for i in range(number, len(lines)) if f"</{tag}" in lines[i]), None)
            if closing is not None and closing > number:
                spans.append((number, closing, f"<{tag}>"))
    result: list[str | None] = [None] * len(lines)
    for start, end, name in spans:
        inside = "\n".join(lines[start : end + 1])
        names = {name for found in _EXPRESSION.findall(inside) for name in _NAME.findall(found)}
        if names & aliases.keys():
            for number in range(start, end + 1):
                result[number] = name
    return result
