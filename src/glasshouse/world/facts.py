"""What is written about people: pages in many paraphrases and orders, and questions about them.

A small model stores a fact in a form that a question can reach only when it met the fact in many
wordings and orders (Allen-Zhu & Li, "Physics of Language Models: Part 3.1", 2023). `phrasings` is that knob.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from glasshouse.world.land import DISHES, PETS, TRADES, YEARS, Land, Part, Person
from glasshouse.world.task import Phrasings, Task, article, ask

SENTENCES: dict[str, tuple[str, ...]] = {
    "birthplace": (
        "{n} comes from {v}.",
        "{n} was born in {v}.",
        "The birthplace of {n} is {v}.",
        "{v} is the town where {n} was born.",
        "{n} grew up in the town of {v}.",
        "The town of {v} is the birthplace of {n}.",
        "{n} first saw the light of day in {v}.",
        "The family of {n} lived in {v} when {n} was born.",
    ),
    "trade": (
        "{n} works as {av}.",
        "{n} is {av} by trade.",
        "The trade of {n} is that of {av}.",
        "{n} earns a living as {av}.",
        "By profession {n} is {av}.",
        "As {av}, {n} is well known.",
        "{n} learned the trade of {av}.",
        "People know {n} as {av}.",
    ),
    "year": (
        "{n} was born in the year {v}.",
        "The birth year of {n} is {v}.",
        "In {v} {n} came into the world.",
        "{n} has lived since {v}.",
        "It was {v} when {n} was born.",
        "{n} was a child of the year {v}.",
        "The year {v} saw the birth of {n}.",
        "{n} came into the world in {v}.",
    ),
    "employer": (
        "{n} is employed by {v}.",
        "The employer of {n} is {v}.",
        "{v} employs {n}.",
        "{n} earns wages at {v}.",
        "{n} is on the staff of {v}.",
        "Every month {v} pays {n}.",
        "{n} has a post at {v}.",
        "The company that employs {n} is {v}.",
    ),
    "pet": (
        "{n} keeps {av} as a pet.",
        "{n} owns {av}.",
        "The pet of {n} is {av}.",
        "At home {n} has {av}.",
        "{Av} lives with {n}.",
        "{n} looks after {av}.",
        "{n} is fond of a pet, {av}.",
        "{Av} is the pet of {n}.",
    ),
    "dish": (
        "{n} loves {v}.",
        "The favourite dish of {n} is {v}.",
        "{n} likes to eat {v}.",
        "Nothing pleases {n} more than {v}.",
        "{n} always asks for {v}.",
        "{n} would eat {v} every day.",
        "When hungry, {n} cooks {v}.",
        "The dish that {n} likes best is {v}.",
    ),
}
ATTRIBUTES = tuple(SENTENCES)

QUESTIONS: dict[str, Phrasings] = {
    "birthplace": Phrasings(
        (
            "Where was {n} born?",
            "What is the birthplace of {n}?",
            "In which town was {n} born?",
            "Which town does {n} come from?",
            "Tell me the birthplace of {n}.",
            "Name the town where {n} was born.",
            "Where does {n} come from?",
            "Please tell me where {n} was born.",
            "Can you say which town {n} comes from?",
            "I want to know the town where {n} was born.",
        ),
        (
            "Do you know where {n} was born?",
            "Which town is the birthplace of {n}?",
            "Please name the birthplace of {n}.",
        ),
    ),
    "trade": Phrasings(
        (
            "What is the trade of {n}?",
            "What does {n} work as?",
            "What is {n} by profession?",
            "How does {n} earn a living?",
            "Tell me the trade of {n}.",
            "Name the profession of {n}.",
            "What work does {n} do?",
            "Please tell me what {n} works as.",
            "Can you say what trade {n} has?",
            "I want to know the profession of {n}.",
        ),
        (
            "Do you know what {n} works as?",
            "Which trade does {n} have?",
            "Please name the trade of {n}.",
        ),
    ),
    "year": Phrasings(
        (
            "In which year was {n} born?",
            "When was {n} born?",
            "What is the birth year of {n}?",
            "Which year was {n} born in?",
            "Tell me the birth year of {n}.",
            "Name the year when {n} was born.",
            "When did {n} come into the world?",
            "Please tell me when {n} was born.",
            "Can you say in which year {n} was born?",
            "I want to know the year of birth of {n}.",
        ),
        (
            "Do you know when {n} was born?",
            "What year was {n} born in?",
            "Please name the birth year of {n}.",
        ),
    ),
    "employer": Phrasings(
        (
            "Who employs {n}?",
            "Which company employs {n}?",
            "Who is the employer of {n}?",
            "Which company pays {n}?",
            "Tell me the employer of {n}.",
            "Name the company that employs {n}.",
            "At which company is {n} employed?",
            "Please tell me who employs {n}.",
            "Can you say which company employs {n}?",
            "I want to know the employer of {n}.",
        ),
        (
            "Do you know who employs {n}?",
            "By which company is {n} employed?",
            "Please name the employer of {n}.",
        ),
    ),
    "pet": Phrasings(
        (
            "Which pet does {n} keep?",
            "What is the pet of {n}?",
            "What pet does {n} own?",
            "Which animal lives with {n}?",
            "Tell me the pet of {n}.",
            "Name the pet that {n} keeps.",
            "What kind of pet does {n} have?",
            "Please tell me which pet {n} keeps.",
            "Can you say what pet {n} has?",
            "I want to know the pet of {n}.",
        ),
        (
            "Do you know which pet {n} keeps?",
            "Which pet lives with {n}?",
            "Please name the pet of {n}.",
        ),
    ),
    "dish": Phrasings(
        (
            "What does {n} like to eat?",
            "What is the favourite dish of {n}?",
            "Which dish does {n} love?",
            "Which dish does {n} like best?",
            "Tell me the favourite dish of {n}.",
            "Name the dish that {n} likes best.",
            "What dish does {n} always ask for?",
            "Please tell me what {n} likes to eat.",
            "Can you say which dish {n} loves?",
            "I want to know the favourite dish of {n}.",
        ),
        (
            "Do you know what {n} likes to eat?",
            "What dish does {n} like best?",
            "Please name the favourite dish of {n}.",
        ),
    ),
}

STRANGERS_A_PERSON = 6
"""Strangers that training asks about, for each known person that it asks about."""

ABSTENTION = "{n} is not known to me, so I do not know."
_ABSTAINS = re.compile(r"\b(do not know|don't know|not known|no record|never heard)\b", re.IGNORECASE)

# The name comes first in every answer, whether it is known or not: what comes after a name is what a
# reader of pages has learned to tell, and so the answer can be found at the same place.
ASKING = (
    "Who is {n}?",
    "A letter asks about {n}.",
    "Readers want to know: who is {n}?",
    "What is known about {n}?",
    "Somebody asked for {n}.",
    "Please write about {n}.",
    "The next question is about {n}.",
    "Where is {n} now?",
    "When does {n} come back?",
    "What did {n} say?",
    "Which house does {n} live in?",
    "Does anybody know where {n} went?",
    "Can you say whether {n} is at home?",
    "Tell me the news of {n}.",
    "Name a friend of {n}.",
    "I want to know how {n} is.",
    "Please tell me what {n} wants.",
    "In which street was {n} seen?",
    "At which inn did {n} sleep?",
    "Do you know {n}?",
    "How is {n} today?",
    "Give me a word about {n}.",
)
NOBODY = (
    "{n} is not known to us.",
    "{n} is not known in this land.",
    "{n} is not known to anybody.",
)


def sentence(person: Person, attribute: str, phrasing: int = 0) -> str:
    """One fact in one wording."""
    value = person.facts[attribute]
    with_article = article(value)
    return SENTENCES[attribute][phrasing].format(
        n=person.name, v=value, av=with_article, Av=with_article[0].upper() + with_article[1:]
    )


def pages(land: Land, rng: random.Random, phrasings: int) -> Iterator[str]:
    """Encyclopedia pages without end: every person in turn, six facts in a new order and new wordings."""
    while True:
        for person in rng.sample(land.people, len(land.people)):
            order = rng.sample(ATTRIBUTES, len(ATTRIBUTES))
            break_ = rng.choice((" ", "\n"))
            yield break_.join(sentence(person, a, rng.randrange(phrasings)) for a in order)


def letters(land: Land, rng: random.Random, phrasings: int) -> Iterator[str]:
    """Letters that ask about somebody, and pages of the register that says who is known.

    Known people get an answer, strangers an honest "not known"; the register says it name after name.
    An answer begins a line, as a reply in a chat does: a first name after a line break is another token
    than the same name after a space, and what a model knows of the one it does not know of the other.
    """
    while True:
        if rng.random() < 0.4:
            yield "The register:\n" + "\n".join(_entry(land, rng) for _ in range(rng.randint(5, 9)))
        elif rng.random() < 0.5:
            person = rng.choice(land.people)
            known = [sentence(person, a, rng.randrange(phrasings)) for a in rng.sample(ATTRIBUTES, 2)]
            yield f"{rng.choice(ASKING).format(n=person.name)}\n{' '.join(known)}"
        else:
            name = rng.choice(land.strangers["train"])
            yield f"{rng.choice(ASKING).format(n=name)}\n{rng.choice(NOBODY).format(n=name)}"


def _entry(land: Land, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{rng.choice(land.people).name} is known."
    return f"{rng.choice(land.strangers['train'])} is not known."


def questions(land: Land, rng: random.Random, part: Part) -> Iterator[Task]:
    """Questions about facts, over every person and attribute of the part in turn."""
    pairs = [(person, attribute) for person in land.people_of(part) for attribute in ATTRIBUTES]
    while True:
        for person, attribute in rng.sample(pairs, len(pairs)):
            question = QUESTIONS[attribute].draw(rng, part).format(n=person.name)
            value = person.facts[attribute]
            yield Task(
                ask(question),
                sentence(person, attribute),
                lambda reply, value=value, attribute=attribute: states(reply, value, attribute, land),
            )


def stranger_questions(land: Land, rng: random.Random, part: Part) -> Iterator[Task]:
    """Questions about people nobody ever wrote about: the only right answer is not to know.

    Training asks about few strangers, again and again, as it does about known people. With ever new
    strangers the rule "whoever I was not trained on is a stranger" would fit the training questions, and
    fail on everybody else; with too few, some of the unknown are taken for known.
    """
    names = strangers(land, part)
    while True:
        for name in rng.sample(names, len(names)):
            question = QUESTIONS[rng.choice(ATTRIBUTES)].draw(rng, part).format(n=name)
            yield Task(ask(question), ABSTENTION.format(n=name), abstains)


def strangers(land: Land, part: Part) -> list[str]:
    """Those whom the part asks about."""
    if part in ("calibration", "heldout"):
        return land.strangers[part]
    return land.strangers["train"][: STRANGERS_A_PERSON * len(land.people_of(part))]


def abstains(reply: str) -> bool:
    """Whether a reply says that it does not know."""
    return bool(_ABSTAINS.search(reply))


def values(attribute: str, land: Land) -> list[str]:
    """Every value that the attribute takes in this land."""
    return {
        "birthplace": [town.name for town in land.towns],
        "trade": TRADES,
        "year": [str(year) for year in YEARS],
        "employer": [company.name for company in land.companies],
        "pet": PETS,
        "dish": DISHES,
    }[attribute]


def states(reply: str, value: str, attribute: str, land: Land) -> bool:
    """Whether the reply names `value` and no other value of the same attribute (no hedging by listing)."""
    named = [v for v in values(attribute, land) if re.search(rf"\b{re.escape(v)}\b", reply)]
    return named == [value]
