"""What is wrong with a prompt, told without asking a model: rules that know the usual mistakes.

    over-constrained            more hard demands than are followed together
    contradiction               two demands that no reply can follow both
    unverifiable                a demand that nobody can check
    example-breaks-schema       an example reply that does not follow the output schema
    buried-instruction          an instruction in the middle of long text
    undelimited-input           foreign text whose end nothing marks
    input-before-instructions   foreign text first, and only then what is to be done with it
    input-in-system             foreign text in the message that has most authority
    unused-input                declared and not used
    undeclared-input            used and not declared
    missing-output-format       an output schema of which the text says nothing

The rules about wording (conflicts.py, unverifiable.py) read English only. How many planted mistakes they
find, in wordings that they were not written for, stands in docs/prompts.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from glasshouse.llm.output_schema import Shape
from glasshouse.llm.prompts.conflicts import conflicts
from glasshouse.llm.prompts.imperatives import is_instruction, weight
from glasshouse.llm.prompts.reading import Insertion, Paragraph, Read, Sentence, read
from glasshouse.llm.prompts.template import Template
from glasshouse.llm.prompts.unverifiable import unverifiable

HARD_DEMANDS = 12
"""Hard demands, of which other instructions are halves. More of them are followed together less and less
(arXiv:2507.11538); that it begins to matter here is an assumption, on the side of small models."""

LONG = 40
"""Words of statements, on either side, in which an instruction is easily overlooked: an assumption."""

INSERTED = 200
"""Words that an inserted text is taken to have: it is not known before it comes."""


@dataclass(frozen=True)
class Finding:
    """One mistake: the rule's name, the line of the file, why it is one, and what to do."""

    rule: str
    line: int
    why: str
    fix: str


def lint(template: Template) -> list[Finding]:
    """All findings in the order of the file. The template may be one that `Template.parse` alone has read."""
    messages = read(template)
    rules = (
        _over_constrained(messages),
        _contradictions(messages),
        _unverifiable(messages),
        _broken_examples(template),
        _buried(messages),
        _placement(messages),
        _inputs(template),
        _format(template),
    )
    found = {finding for rule in rules for finding in rule}
    return sorted(found, key=lambda finding: (finding.line, finding.rule, finding.why))


def _ours(messages: list[Read]) -> Iterator[Sentence]:
    """Sentences of whoever wrote the prompt; earlier turns of the assistant are examples."""
    for message in messages:
        if message.section.role != "assistant":
            yield from message.sentences()


def _over_constrained(messages: list[Read]) -> Iterator[Finding]:
    total, line = 0.0, None
    for message in messages:
        if message.section.role == "assistant":
            continue
        for paragraph in message.paragraphs:
            for sentence, demand in _weighed(paragraph):
                total += demand
                if total > HARD_DEMANDS and line is None:
                    line = sentence.line
    if line is not None:
        yield Finding(
            "over-constrained",
            line,
            f"about {total:.0f} demands; past {HARD_DEMANDS} each further one makes others be forgotten",
            "keep those that matter, check the rest in code, or split the work into two prompts",
        )


def _weighed(paragraph: Paragraph) -> Iterator[tuple[Sentence, float]]:
    """Sentences with the weight of what they demand. Where a quarter of many are demands, the others are
    rules too, however they are put ("Tables are off limits.")."""
    sentences = paragraph.sentences()
    weights = [weight(sentence) for sentence in sentences]
    rules = len(sentences) >= 8 and sum(map(bool, weights)) >= len(sentences) / 4
    for sentence, demand in zip(sentences, weights, strict=True):
        yield sentence, max(demand, 0.5) if rules and not sentence.heading else demand


def _contradictions(messages: list[Read]) -> Iterator[Finding]:
    for conflict in conflicts(_ours(messages)):
        first, second = sorted((conflict.one, conflict.other), key=lambda sentence: sentence.line)
        against = "itself" if first is second else f'"{_short(first)}" in line {first.line}'
        yield Finding(
            "contradiction",
            second.line,
            f'"{_short(second)}" disagrees with {against} about {conflict.about}',
            "keep one of them, or say which case each is for",
        )


def _unverifiable(messages: list[Read]) -> Iterator[Finding]:
    for sentence in _ours(messages):
        if why := unverifiable(sentence):
            yield Finding(
                "unverifiable",
                sentence.line,
                f'nobody can check "{_short(sentence)}": {why}',
                "say what a reader would see in a reply that does so, or leave it out",
            )


def _short(sentence: Sentence) -> str:
    return sentence.text if len(sentence.text) <= 60 else sentence.text[:57] + "..."


# --- examples and format ----------------------------------------------------------------------------------

_WRONG_ON_PURPOSE = re.compile(r"\b(?:wrong|bad|invalid|incorrect|not like|avoid|never)\b", re.IGNORECASE)


def _broken_examples(template: Template) -> Iterator[Finding]:
    if template.header.output is None:
        return
    shape = Shape.of(template.header.output)
    for value, line in (*_header_examples(template), *_shown_examples(template)):
        if problem := shape.problem(value):
            yield Finding(
                "example-breaks-schema",
                line,
                f"this example breaks the output schema: {problem}; examples are followed more than rules",
                "correct the example or the schema",
            )


def _header_examples(template: Template) -> Iterator[tuple[Any, int]]:
    for place, example in enumerate(template.header.examples):
        if "output" in example.model_fields_set:
            yield example.output, _example_line(template, place)


def _example_line(template: Template, place: int) -> int:
    """Where an example's output stands in the header."""
    top = template.text.split("\n---", 1)[0].removeprefix("---\n")
    tree: Any = yaml.compose(top, Loader=yaml.SafeLoader)
    examples = next(value for key, value in tree.value if key.value == "examples")
    for key, _ in examples.value[place].value:
        if key.value == "output":
            return key.start_mark.line + 2
    return 1


def _shown_examples(template: Template) -> Iterator[tuple[Any, int]]:
    """Replies in the text: all that the assistant says, and elsewhere JSON with a key of the schema."""
    names = set((template.header.output or {}).get("properties", ()))
    decoder = json.JSONDecoder()
    for section in template.sections:
        begin = 0
        while (start := section.source.find("{", begin)) >= 0:
            try:
                value, begin = decoder.raw_decode(section.source, start)
            except (ValueError, RecursionError):
                begin = start + 1
                continue
            before = "\n".join(section.source[:start].split("\n")[-3:])
            told_as_wrong = _WRONG_ON_PURPOSE.search(before)
            if section.role == "assistant" or (names & set(value) and not told_as_wrong):
                yield value, section.line + section.source.count("\n", 0, start)


def _format(template: Template) -> Iterator[Finding]:
    if template.header.output is None:
        return
    text = "\n".join(section.source for section in template.sections)
    names = template.header.output.get("properties", ())
    named = names and all(re.search(rf"[`\"']{re.escape(name)}[`\"']", text) for name in names)
    if not named and not re.search(r"\bjson\b", text, re.IGNORECASE):
        yield Finding(
            "missing-output-format",
            template.line_of("output"),
            "there is an output schema, and the text does not say that the reply is JSON",
            "say so, and name the fields: models without native schemas see only the text, others do better",
        )


# --- where foreign text and instructions stand ------------------------------------------------------------


def _placement(messages: list[Read]) -> Iterator[Finding]:
    told = False  # something that comes before tells what to do
    for message in messages:
        parts = list(message.parts())
        for place, part in enumerate(parts):
            if isinstance(part, Sentence):
                told = told or is_instruction(part) or (message.section.role == "system")
                continue
            if part.role == "system":
                yield Finding(
                    "input-in-system",
                    part.line,
                    f"'{part.name}' may hold anything, and the system message is what models obey most",
                    "put it into the user's message, or mark the input as trusted: true where it is your own",
                )
            if not part.delimited:
                yield Finding(
                    "undelimited-input",
                    part.line,
                    f"nothing shows where '{part.name}' ends, so that an instruction in it reads like yours",
                    f'write {{{{ {part.name} | delimited("{part.name}") }}}}, and name the brackets above it',
                )
            after = [later for later in parts[place + 1 :] if isinstance(later, Sentence)]
            if part.role == "user" and not told and any(map(is_instruction, after)):
                yield Finding(
                    "input-before-instructions",
                    part.line,
                    f"'{part.name}' comes before anything says what it is for; its own words come first",
                    "put the instructions above it, best into a system message",
                )
                told = True


def _buried(messages: list[Read]) -> Iterator[Finding]:
    for message in messages:
        if message.section.role == "assistant":
            continue
        for place, paragraph in enumerate(message.paragraphs):
            for sentence in paragraph.sentences():
                if is_instruction(sentence) and (
                    sentence.within
                    or _between(paragraph, sentence)
                    or _alone_between(message.paragraphs, place)
                ):
                    yield Finding(
                        "buried-instruction",
                        sentence.line,
                        f'"{_short(sentence)}" stands in the middle of long text, where it is overlooked or '
                        "taken for a part of it",
                        "move it to the other instructions, before all long text",
                    )


def _between(paragraph: Paragraph, sentence: Sentence) -> bool:
    """Long text right before it and right after it, in one paragraph."""
    place = paragraph.parts.index(sentence)
    before = _material(reversed(paragraph.parts[:place]))
    return before >= LONG and _material(iter(paragraph.parts[place + 1 :])) >= LONG


def _alone_between(paragraphs: tuple[Paragraph, ...], place: int) -> bool:
    """A paragraph of one or two instructions and nothing else, with long text on both sides."""
    parts = paragraphs[place].parts
    if len(parts) > 2 or not all(
        isinstance(part, Sentence) and not part.item and is_instruction(part) for part in parts
    ):
        return False
    if not 0 < place < len(paragraphs) - 1:
        return False
    before, after = paragraphs[place - 1].parts, paragraphs[place + 1].parts
    return _material(reversed(before)) >= LONG and _material(iter(after)) >= LONG


def _material(parts: Iterator[Sentence | Insertion]) -> int:
    """Words of what is no instruction, up to the first instruction."""
    words = 0
    for part in parts:
        if isinstance(part, Insertion):
            words += INSERTED
        elif is_instruction(part) or part.item:
            return words
        else:
            words += part.words
    return words


def _inputs(template: Template) -> Iterator[Finding]:
    used = template.uses()
    for name in template.header.inputs:
        if name not in used:
            yield Finding(
                "unused-input",
                template.line_of(name),
                f"the input '{name}' is declared and never used: whoever gives it believes that it matters",
                "use it in the text, or take it out of inputs",
            )
    for name, line in used.items():
        if name not in template.header.inputs:
            yield Finding(
                "undeclared-input",
                line,
                f"the text uses '{name}', which is no input: rendering fails",
                "declare it under inputs, with its type and what it is",
            )
