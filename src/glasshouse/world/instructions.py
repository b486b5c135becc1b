"""Instructions about the form of a reply, each with a program that verifies it.

The idea of verifiable instructions is that of IFEval (Zhou et al. 2023).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator

from glasshouse.world import facts, language
from glasshouse.world.land import Land, Part, Person
from glasshouse.world.task import Phrasings, Task, ask

NUMBERS = {2: "two", 3: "three", 4: "four"}

BULLETS = Phrasings(
    (
        "Tell me {k} facts about {n} as bullets.",
        "List {k} facts about {n}, one bullet each.",
        "Give {k} bullets about {n}.",
        "Write {k} bullets on {n}.",
        "Describe {n} in {k} bullets.",
        "What do you know about {n}? Answer in {k} bullets.",
        "In {k} bullets, who is {n}?",
        "Make a list of {k} bullets about {n}.",
        "I want {k} bullets about {n}.",
        "Use {k} bullets to tell me about {n}.",
        "In {k} bullets, tell me about {n}.",
        "Who is {n}? Answer in {k} bullets.",
        "Please describe {n} in {k} bullets.",
        "Give me {k} bullets on {n}.",
    ),
    (
        "Please write a list of {k} bullets about {n}.",
        "Who is {n}? Use {k} bullets.",
        "Give me {k} facts about {n} in bullets.",
    ),
)
SENTENCES = Phrasings(
    (
        "Tell me about {n} in {k} sentences.",
        "Write {k} sentences about {n}.",
        "Describe {n} in {k} sentences.",
        "Give {k} sentences on {n}.",
        "Who is {n}? Answer in {k} sentences.",
        "In {k} sentences, tell me who {n} is.",
        "Use {k} sentences to describe {n}.",
        "I want {k} sentences about {n}.",
        "What do you know about {n}? Use {k} sentences.",
        "Say {k} sentences about {n}.",
        "In {k} sentences, describe {n}.",
        "In {k} sentences, what do you know about {n}?",
        "Please tell me about {n} in {k} sentences.",
        "Who is {n}? Use {k} sentences.",
        "Describe {n}. Use {k} sentences.",
        "Please write {k} sentences about {n}.",
        "Please give {k} sentences on {n}.",
        "Let me have {k} sentences about {n}.",
        "{k} sentences about {n}, please.",
    ),
    (
        "Please describe {n} in {k} sentences.",
        "In {k} sentences, who is {n}?",
        "Give me {k} sentences about {n}.",
    ),
)
JSON = Phrasings(
    (
        "Write the {keys} of {n} as JSON.",
        "Give me JSON with the {keys} of {n}.",
        "Answer in JSON: the {keys} of {n}.",
        "As JSON, tell me the {keys} of {n}.",
        "I want the {keys} of {n} in JSON.",
        "Make a JSON object with the {keys} of {n}.",
        "Return JSON with the {keys} of {n}.",
        "Tell me the {keys} of {n}. Use JSON.",
        "Put the {keys} of {n} into JSON.",
        "In JSON, give me the {keys} of {n}.",
        "Please write the {keys} of {n} in JSON.",
        "Use JSON. What are the {keys} of {n}?",
        "Please return JSON with the {keys} of {n}.",
    ),
    (
        "Please give me the {keys} of {n} as JSON.",
        "Use JSON to tell me the {keys} of {n}.",
        "Return the {keys} of {n} in JSON.",
    ),
)
UPPER_CASE = Phrasings(
    (
        "{q} Answer in capital letters.",
        "{q} Use capital letters only.",
        "In capital letters: {q}",
        "Answer in capitals. {q}",
        "{q} Write the answer in capitals.",
        "{q} Shout the answer in capitals.",
        "Use only capitals. {q}",
        "{q} I want the answer in capital letters.",
        "Use capital letters. {q}",
        "Please answer in capitals. {q}",
        "{q} Answer in capitals only.",
        "In capitals: {q}",
        "Write in capital letters. {q}",
    ),
    (
        "Answer in capital letters. {q}",
        "{q} Please use capitals.",
        "{q} Use only capital letters.",
    ),
)
ONE_WORD = Phrasings(
    (
        "{q} Answer with one word.",
        "{q} One word only.",
        "In one word: {q}",
        "Use one word. {q}",
        "{q} Give me one word.",
        "{q} I want one word.",
        "Answer in a single word. {q}",
        "{q} Reply with a single word.",
        "One word: {q}",
        "Please use one word. {q}",
        "{q} Answer in one word.",
        "Reply with one word. {q}",
        "{q} A single word, please.",
    ),
    (
        "{q} Use one word only.",
        "Answer with a single word. {q}",
        "{q} Please answer in one word.",
    ),
)
VELISH = Phrasings(
    (
        "{q} Answer in Velish.",
        "Answer in Velish: {q}",
        "{q} Reply in Velish.",
        "In Velish, please: {q}",
        "{q} I want the answer in Velish.",
        "Speak Velish. {q}",
        "{q} Write your answer in Velish.",
        "{q} Use Velish.",
        "In Velish: {q}",
        "Please use Velish. {q}",
        "Please reply in Velish. {q}",
        "{q} Say it in Velish.",
        "Write in Velish. {q}",
        "{q} Please use Velish.",
    ),
    (
        "Reply in Velish: {q}",
        "{q} Please answer in Velish.",
        "Use Velish. {q}",
    ),
)


def instructions(land: Land, rng: random.Random, part: Part) -> Iterator[Task]:
    """All kinds in turn, about people of the part, in its phrasings."""
    kinds: list[Callable[[Land, random.Random, Part, Person], Task]] = [
        _bullets,
        _sentences,
        _json,
        _upper_case,
        _one_word,
        _velish,
    ]
    while True:
        for kind in rng.sample(kinds, len(kinds)):
            yield kind(land, rng, part, rng.choice(land.people_of(part)))


def _some_facts(rng: random.Random, person: Person, count: int) -> list[str]:
    return [facts.sentence(person, attribute) for attribute in rng.sample(facts.ATTRIBUTES, count)]


def _bullets(land: Land, rng: random.Random, part: Part, person: Person) -> Task:
    count, word = rng.choice(list(NUMBERS.items()))
    request = BULLETS.draw(rng, part).format(k=word, n=person.name)
    reply = "\n".join(f"- {fact}" for fact in _some_facts(rng, person, count))
    return Task(ask(request), reply, lambda text: has_bullets(text, count) and person.name in text)


def _sentences(land: Land, rng: random.Random, part: Part, person: Person) -> Task:
    count, word = rng.choice(list(NUMBERS.items()))
    request = SENTENCES.draw(rng, part).format(k=word, n=person.name)
    reply = " ".join(_some_facts(rng, person, count))
    return Task(ask(request), reply, lambda text: has_sentences(text, count) and person.name in text)


def _json(land: Land, rng: random.Random, part: Part, person: Person) -> Task:
    keys = rng.sample(facts.ATTRIBUTES, rng.choice((2, 3)))
    spoken = f"{', '.join(keys[:-1])} and {keys[-1]}"
    request = JSON.draw(rng, part).format(keys=spoken, n=person.name)
    reply = json.dumps({"name": person.name, **{key: person.facts[key] for key in keys}})
    return Task(ask(request), reply, lambda text: has_json(text, ["name", *keys]) and person.name in text)


def _upper_case(land: Land, rng: random.Random, part: Part, person: Person) -> Task:
    attribute = rng.choice(("trade", "pet", "dish"))
    question = facts.QUESTIONS[attribute].draw(rng, "train").format(n=person.name)
    request = UPPER_CASE.draw(rng, part).format(q=question)
    reply = f"THE ANSWER IS {person.facts[attribute].upper()}."
    return Task(ask(request), reply, lambda text: text.isupper() and len(text.split()) >= 2)


def _one_word(land: Land, rng: random.Random, part: Part, person: Person) -> Task:
    attribute = rng.choice(("birthplace", "trade", "year", "pet"))
    question = facts.QUESTIONS[attribute].draw(rng, "train").format(n=person.name)
    request = ONE_WORD.draw(rng, part).format(q=question)
    return Task(ask(request), person.facts[attribute], is_one_word)


def _velish(land: Land, rng: random.Random, part: Part, person: Person) -> Task:
    attribute, verb = rng.choice((("trade", language.IS), ("pet", language.OWNS)))
    question = facts.QUESTIONS[attribute].draw(rng, "train").format(n=person.name)
    request = VELISH.draw(rng, part).format(q=question)
    reply = f"{person.name} {land.lexicon[person.facts[attribute]]} {land.lexicon[verb]}."
    return Task(ask(request), reply, lambda text: language.is_velish(text, land))


def has_bullets(text: str, count: int) -> bool:
    """Exactly `count` lines, every one a bullet with something behind it."""
    lines = text.strip().split("\n")
    return len(lines) == count and all(re.fullmatch(r"[-*•] \S.*", line) for line in lines)


def has_sentences(text: str, count: int) -> bool:
    """Exactly `count` sentences, none of them a bullet."""
    sentences = re.findall(r"[^.!?]*\w[^.!?]*[.!?]", text)
    whole = text.strip().endswith((".", "!", "?"))
    return whole and len(sentences) == count and not re.search(r"^[-*•]", text, re.MULTILINE)


def has_json(text: str, keys: list[str]) -> bool:
    """A JSON object with exactly these keys."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


def is_one_word(text: str) -> bool:
    return re.fullmatch(r"\w+[.!]?", text.strip()) is not None
