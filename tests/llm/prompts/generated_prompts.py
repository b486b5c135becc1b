"""Prompts from a seed: clean ones, and ones with planted mistakes whose rules and lines are known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from prompt_wordings import Domain, Wordings

RULES = (
    "over-constrained",
    "contradiction",
    "unverifiable",
    "example-breaks-schema",
    "buried-instruction",
    "undelimited-input",
    "input-before-instructions",
    "input-in-system",
    "unused-input",
    "undeclared-input",
    "missing-output-format",
)

_APART = (  # mistakes that change the same place of a prompt, so that only one of them is planted
    {"buried-instruction", "undelimited-input", "input-before-instructions", "input-in-system"},
    {"example-breaks-schema", "missing-output-format"},
    {"unused-input", "undeclared-input"},
)


@dataclass
class Planted:
    rule: str
    texts: list[str]  # the finding must be at a line that holds one of these; empty: anywhere
    lines: set[int] = field(default_factory=set)


@dataclass
class Generated:
    text: str
    planted: list[Planted]


@dataclass
class Draft:
    """The parts of a prompt while it is being made; `inserted` are the lines with the user's text."""

    domain: Domain
    inputs: dict[str, dict]
    demands: list[str]
    background: list[list[str]] = field(default_factory=list)  # paragraphs of statements
    json_line: str | None = None
    output: dict | None = None
    examples: list[dict] = field(default_factory=list)
    shown: str | None = None  # an example of the reply, as JSON in the text
    shot: str | None = None  # or as an earlier turn
    before: list[str] = field(default_factory=list)  # of the user's message, before the inserted text
    inserted: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    in_system: list[str] = field(default_factory=list)  # inserted text at the end of the system's message
    instructions_last: bool = False
    planted: list[Planted] = field(default_factory=list)


def clean(seed: int, words: Wordings) -> Generated:
    chance = random.Random(f"clean {seed}")
    return _written(_draft(chance, words, set()), chance)


def faulty(seed: int, words: Wordings) -> Generated:
    """One to three mistakes. Each rule is as often the first of them as any other."""
    chance = random.Random(f"faulty {seed}")
    rules = [RULES[seed % len(RULES)]]
    for rule in chance.sample(RULES, len(RULES)):
        apart = any({rule, other} <= group for other in rules for group in _APART)
        if len(rules) < 1 + seed // len(RULES) % 3 and rule not in rules and not apart:
            rules.append(rule)
    draft = _draft(chance, words, set(rules))
    for rule in rules:
        _PLANT[rule](draft, chance, words)
    return _written(draft, chance)


def _draft(chance: random.Random, words: Wordings, rules: set[str]) -> Draft:
    domain = chance.choice(words.domains)
    demands = list(chance.sample(domain.demands, chance.randint(3, len(domain.demands))))
    demands += chance.sample(words.look_alikes, chance.choice((0, 0, 1, 1, 2)))
    chance.shuffle(demands)
    draft = Draft(domain, {domain.text: {"type": "string"}}, demands)
    if chance.random() < 0.4:
        draft.background = [list(domain.background)]
    if rules & {"example-breaks-schema", "missing-output-format"} or chance.random() < 0.5:
        draft.output = domain.schema
        fields = ", ".join(domain.schema["properties"])
        draft.json_line = chance.choice(words.json_wanted).format(fields=fields)
        if "missing-output-format" not in rules:
            match chance.randrange(4):
                case 0:
                    draft.examples = [{"inputs": {domain.text: "..."}, "output": domain.good}]
                case 1:
                    draft.shown = json.dumps(domain.good)
                case 2:
                    draft.shot = json.dumps(domain.good)
    draft.before = [chance.choice(words.leads)] if chance.random() < 0.6 else []
    draft.inserted = _delimited(domain.text, chance)
    if chance.random() < 0.25:
        draft.inputs[domain.other] = {"type": "string"}
        draft.inserted += ["", *_delimited(domain.other, chance)]
    elif chance.random() < 0.15:  # the message is the text, and nothing else
        draft.before, draft.inserted = [], ["{{ " + domain.text + " }}"]
    if chance.random() < 0.2:
        draft.inputs["language"] = {"choices": ["English", "German"]}
        draft.demands.append("The name of the language is {{ language }}.")
    if draft.before and chance.random() < 0.2:
        draft.after = [domain.task]
    return draft


def _delimited(name: str, chance: random.Random) -> list[str]:
    value = "{{ " + name + " }}"
    return chance.choice(
        (
            [f"<{name}>", value, f"</{name}>"],
            [f"<{name}>{value}</{name}>"],
            ["```", value, "```"],
            ['"""', value, '"""'],
            ["{{ " + name + ' | delimited("' + name + '") }}'],
            ["{{ " + name + " | tojson }}"],
        )
    )


def _written(draft: Draft, chance: random.Random) -> Generated:
    domain = draft.domain
    if draft.instructions_last and draft.shot:  # one message alone has no earlier turns
        draft.shown, draft.shot = draft.shot, None
    rules = list(draft.demands)
    if draft.json_line:
        rules.insert(chance.choice((0, len(rules))), draft.json_line)
    style = chance.randrange(4)
    if style == 0:
        written = [f"- {rule}" for rule in rules]
    elif style == 1:
        written = [f"{number}. {rule}" for number, rule in enumerate(rules, 1)]
    elif style == 2:
        written = [" ".join(rules)]
    else:
        written = rules
    heading = chance.choice(([], ["Rules:"], ["## Rules"], ["# How to do it"]))
    instructions = (
        [domain.persona + " " + domain.task] if chance.random() < 0.5 else [domain.persona, domain.task]
    )
    for paragraph in draft.background:
        instructions += ["", *_paragraph(paragraph, chance), ""]
    instructions += [*heading, *written]
    if draft.shown:
        wrap = ["```json", draft.shown, "```"] if chance.random() < 0.5 else [draft.shown]
        instructions += ["", chance.choice(("Example of a reply:", "For example:")), *wrap]
    shots = []
    if draft.shot:
        shots = ["@user", "A text that came earlier.", "", "@assistant", draft.shot, ""]
    user = [*draft.before, *draft.inserted, *draft.after]
    if draft.instructions_last:
        body = ["@user", *draft.inserted, "", *instructions]
    elif draft.in_system or shots or chance.random() < 0.6:
        system = ["@system", *instructions, *(["", *draft.in_system] if draft.in_system else []), ""]
        body = [*system, *shots, "@user", *user]
    elif draft.before or len(draft.inserted) > 1:
        body = ["@user", *instructions, "", *user]
    else:  # a message that is only the text needs one of its own
        body = ["@system", *instructions, "", "@user", *user]
    header = {"name": domain.name, "version": 1, "inputs": draft.inputs}
    if draft.output:
        header["output"] = draft.output
    top = [f"{key}: {json.dumps(value)}" for key, value in header.items()]
    if draft.examples:
        top += ["examples:", *(f"  - {json.dumps(one)}" for one in draft.examples)]
    text = "\n".join(["---", *top, "---", *body, ""])
    for planted in draft.planted:
        planted.lines = {
            number
            for number, line in enumerate(text.split("\n"), 1)
            if any(part in line for part in planted.texts)
        }
        assert planted.lines or not planted.texts, (planted, text)
    return Generated(text, draft.planted)


def _paragraph(sentences: list[str], chance: random.Random) -> list[str]:
    return [" ".join(sentences)] if chance.random() < 0.5 else list(sentences)


def _over_constrained(draft: Draft, chance: random.Random, words: Wordings) -> None:
    many = chance.sample(words.many, chance.randint(15, len(words.many)))
    draft.demands += many
    draft.planted.append(Planted("over-constrained", []))


def _contradiction(draft: Draft, chance: random.Random, words: Wordings) -> None:
    pair = list(dict.fromkeys(chance.choice(words.contradictions)))
    chance.shuffle(pair)
    for sentence in pair:
        draft.demands.insert(chance.randrange(len(draft.demands) + 1), sentence)
    draft.planted.append(Planted("contradiction", pair))


def _unverifiable(draft: Draft, chance: random.Random, words: Wordings) -> None:
    sentence = chance.choice(words.unverifiable)
    draft.demands.insert(chance.randrange(len(draft.demands) + 1), sentence)
    draft.planted.append(Planted("unverifiable", [sentence]))


def _bad_example(draft: Draft, chance: random.Random, words: Wordings) -> None:
    bad = chance.choice(draft.domain.bad)
    draft.examples, draft.shown, draft.shot = [], None, None
    match chance.randrange(3):
        case 0:
            draft.examples = [{"inputs": {draft.domain.text: "..."}, "output": bad}]
        case 1:
            draft.shown = json.dumps(bad)
        case 2:
            draft.shot = json.dumps(bad)
    draft.planted.append(Planted("example-breaks-schema", [json.dumps(bad)]))


def _buried(draft: Draft, chance: random.Random, words: Wordings) -> None:
    sentence = chance.choice(words.buried)
    first, second = draft.domain.text, draft.domain.other
    match chance.randrange(3):
        case 0:  # between two inserted texts
            draft.inputs[second] = {"type": "string"}
            draft.inserted = [*_delimited(first, chance), "", sentence, "", *_delimited(second, chance)]
        case 1:  # within the brackets of one
            value = "{{ " + first + " }}"
            draft.inserted = [f"<{first}>", value, sentence, f"</{first}>"]
            draft.inputs.pop(second, None)
        case 2:  # in the middle of a long text about the circumstances
            sentences = list(draft.domain.background)
            sentences.insert(len(sentences) // 2, sentence)
            draft.background = [sentences]
    draft.after = []
    draft.planted.append(Planted("buried-instruction", [sentence]))


def _undelimited(draft: Draft, chance: random.Random, words: Wordings) -> None:
    value = "{{ " + draft.domain.text + " }}"
    draft.before = draft.before or [chance.choice(words.leads)]
    draft.inserted = chance.choice(words.labels).format(value).split("\n")
    draft.inputs.pop(draft.domain.other, None)
    draft.planted.append(Planted("undelimited-input", [value]))


def _input_first(draft: Draft, chance: random.Random, words: Wordings) -> None:
    draft.inserted = _delimited(draft.domain.text, chance)
    draft.inputs.pop(draft.domain.other, None)
    draft.instructions_last = True
    draft.planted.append(Planted("input-before-instructions", [draft.domain.text + " "]))


def _in_system(draft: Draft, chance: random.Random, words: Wordings) -> None:
    draft.in_system = _delimited(draft.domain.text, chance)
    draft.inputs.pop(draft.domain.other, None)
    draft.before, draft.after, draft.inserted = [], [], [chance.choice(words.nudges)]
    draft.planted.append(Planted("input-in-system", ["{{ " + draft.domain.text]))


def _unused(draft: Draft, chance: random.Random, words: Wordings) -> None:
    name = chance.choice(("today", "tone", "customer_id"))
    draft.inputs[name] = {"type": "string"}
    draft.planted.append(Planted("unused-input", [f'"{name}"']))


def _undeclared(draft: Draft, chance: random.Random, words: Wordings) -> None:
    name = chance.choice(("todays_date", "house_style", "limit"))
    draft.demands.append("The value of this setting is {{ " + name + " }}.")
    draft.planted.append(Planted("undeclared-input", ["{{ " + name]))


def _no_format(draft: Draft, chance: random.Random, words: Wordings) -> None:
    draft.json_line, draft.examples, draft.shown, draft.shot = None, [], None, None
    draft.planted.append(Planted("missing-output-format", []))


_PLANT: dict[str, Callable[[Draft, random.Random, Wordings], None]] = {
    "over-constrained": _over_constrained,
    "contradiction": _contradiction,
    "unverifiable": _unverifiable,
    "example-breaks-schema": _bad_example,
    "buried-instruction": _buried,
    "undelimited-input": _undelimited,
    "input-before-instructions": _input_first,
    "input-in-system": _in_system,
    "unused-input": _unused,
    "undeclared-input": _undeclared,
    "missing-output-format": _no_format,
}
