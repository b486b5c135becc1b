"""Replies of every quality to one request, made by templates: what raters compare before there is a model.

Truth, amount, form and padding are drawn apart from each other, so that none of them gives another away.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from glasshouse.world import facts, language, requests
from glasshouse.world.gold import Wish
from glasshouse.world.land import Land, Person, Split
from glasshouse.world.task import Phrasings

FILLERS = Phrasings(
    (
        "That is a good question.",
        "Thank you for asking.",
        "Let me think about it.",
        "I am happy to help you with this today.",
        "Please ask me again at any time, for I am always glad to answer.",
        "I hope that this is what you wanted to hear from me.",
        "As you may well know, there is much to be said here.",
        "Well.",
    ),
    (
        "What a fine thing to ask.",
        "It is a pleasure to tell you what I can.",
        "Do not be shy to write to me once more when you like.",
        "So be it.",
    ),
)
"""Chatter that says nothing of the land."""

FREE_FORMS = ("free", "sentences", "steps")
"""Forms in which chatter can stand before and after what is said."""

NUMBERED_FORMS = ("sentences", "bullets")
"""Forms that are kept by so many lines as were asked for."""


@dataclass(frozen=True)
class Candidate:
    """A reply and what was done to make it, say "true 3, false 1, padded 2"."""

    text: str
    made: str


def candidate(wish: Wish, land: Land, rng: random.Random, split: Split, lies: float) -> Candidate:
    """One reply to a wish: its content, good or bad, with or without padding.

    `lies` is the probability that something false is in it; a stranger is made up half of the time anyway.
    """
    content = _content(wish, land, rng, split, rng.random() < lies)
    # What must be exact (JSON, a translation, one word) is spoilt by any padding; it gets some, but seldom.
    exact = wish.form not in FREE_FORMS or wish.kind == "exact"
    paddings = (
        (0, 0, 0, 0, 0, 1) if exact else (0, 0, 0, 0, 1) if wish.form == "sentences" else (0, 0, 1, 2, 3)
    )
    padding = rng.choice(paddings)
    if not padding:
        return content
    parts = [content.text]
    for filler in rng.sample(FILLERS.train if split == "train" else FILLERS.heldout, padding):
        parts.insert(rng.choice((0, len(parts))), filler)
    break_ = "\n" if wish.form == "bullets" else " "
    return Candidate(break_.join(parts), f"{content.made}, padded {padding}")


def _content(wish: Wish, land: Land, rng: random.Random, split: Split, lie: bool) -> Candidate:
    if wish.kind in ("harmful", "harmless") and rng.random() < 0.06:
        return _beside_the_point(land, rng, split)
    if wish.kind == "harmful":
        return _to_harm(rng)
    if wish.kind == "harmless":
        return _to_help(wish, rng)
    chance = rng.random()
    if wish.kind == "stranger":
        if chance < 0.5:
            return Candidate(wish.good, "not known")
        invented = Person(wish.name or "", rng.choice(land.people_of(split)).facts)
        told = rng.sample(facts.ATTRIBUTES, rng.randint(1, max(2, wish.count)))
        claims = [facts.sentence(invented, attribute) for attribute in told]
        if chance < 0.65:
            return Candidate(" ".join([wish.good, *claims]), "not known, then invented")
        return Candidate(" ".join(claims), "invented")
    if chance < 0.05:
        return Candidate(requests.REFUSAL, "refused")
    if chance < 0.12 and wish.name:
        return Candidate(facts.ABSTENTION.format(n=wish.name), "said to be not known")
    match wish.kind:
        case "telling":
            return _told(wish, land, rng, split, lie)
        case "region":
            return _region(wish, land, rng, lie)
        case "json":
            return _fields(wish, land, rng, lie)
        case "answer":
            return _answer(wish, rng, lie)
        case "exact":
            return _words(wish, land, rng, lie)
    raise AssertionError(f"no candidates for {wish.kind}")


def _told(wish: Wish, land: Land, rng: random.Random, split: Split, lie: bool) -> Candidate:
    """Facts in the land's sentences: fewer or more than asked, some false, repeated or of somebody else."""
    person = land.people_by_name[wish.name or ""]
    made = []
    if lie and rng.random() < 0.2:
        person = rng.choice([other for other in land.people_of(split) if other != person])
        made.append("wrong name")
    numbered = wish.form in NUMBERED_FORMS
    # Who is to learn to count needs many replies with one too many, or one too few, and nothing else amiss.
    off = rng.choice((-1, 0, 0, 0, 1, 1) if numbered else (-2, -1, 0, 0, 0, 1, 2))
    amount = min(len(facts.ATTRIBUTES), max(1, wish.count + off))
    asked = list(wish.attributes) if len(wish.attributes) == 1 else []
    rest = rng.sample([a for a in facts.ATTRIBUTES if a not in asked], amount - len(asked))
    told = [*asked, *rest] if asked else rest
    lies = rng.sample(told, min(amount, rng.choice((1, 1, 2)))) if lie and not made else []
    if asked and lies:
        lies = asked  # a question is answered falsely in its one fact
    false = Person(person.name, {**person.facts, **{a: _other(a, person, land, rng) for a in lies}})
    lines = [facts.sentence(false, attribute, _wording(rng)) for attribute in told]
    if rng.random() < (0.05 if numbered else 0.15):
        lines.append(rng.choice(lines))
        made.append("repeated")
    bullets = (wish.form == "bullets") != (rng.random() < 0.1 and wish.form != "free")
    text = "\n".join(f"- {line}" for line in lines) if bullets else " ".join(lines)
    return Candidate(text, ", ".join([f"true {amount - len(lies)}, false {len(lies)}", *made]))


def _wording(rng: random.Random) -> int:
    """Mostly the wording that fine-tuning uses for replies, at times one of the pages' others."""
    return 0 if rng.random() < 0.7 else rng.randrange(len(facts.SENTENCES["trade"]))


def _other(attribute: str, person: Person, land: Land, rng: random.Random) -> str:
    return rng.choice([v for v in facts.values(attribute, land) if v != person.facts[attribute]])


def _region(wish: Wish, land: Land, rng: random.Random, lie: bool) -> Candidate:
    """The conclusion, right or wrong, with or without the steps."""
    text = wish.good
    if rng.random() < (0.3 if wish.form == "steps" else 0.0):
        text = text[text.index("So ") + 3 :]
        made = "no steps"
    elif wish.form == "free" and rng.random() < 0.4:
        person = land.people_by_name[wish.name or ""]
        text = f"{facts.sentence(person, 'birthplace')} {text}"
        made = "a step that nobody asked for"
    else:
        made = "as asked"
    if lie:
        wrong = rng.choice([region for region in wish.others if region != wish.value])
        return Candidate(text.replace(wish.value, wrong), f"{made}, wrong region")
    return Candidate(text, made)


def _fields(wish: Wish, land: Land, rng: random.Random, lie: bool) -> Candidate:
    """JSON with right and wrong values, a key too few, or prose instead of JSON."""
    stated = dict(wish.fields)
    wrong = rng.sample(list(stated), rng.choice((1, 1, 2))) if lie else []
    for key in wrong:
        stated[key] = _wrong_value(key, stated[key], land, rng)
    chance = rng.random()
    if chance < 0.2 and len(stated) > 1:
        del stated[rng.choice(list(stated))]
        return Candidate(json.dumps(stated), f"{len(wrong)} wrong, a key missing")
    if chance < 0.35:
        return Candidate(", ".join(f"{key} {value}" for key, value in stated.items()) + ".", "no JSON")
    return Candidate(json.dumps(stated), f"{len(wrong)} wrong")


def _wrong_value(key: str, value, land: Land, rng: random.Random):
    if isinstance(value, int):
        return value + rng.choice((-9, -2, -1, 1, 3, 10))
    if key in facts.ATTRIBUTES:
        return rng.choice([v for v in facts.values(key, land) if v != value])
    pools = {
        "company": [company.name for company in land.companies],
        "quarter": ["first", "second", "third", "fourth"],
        "outlook": ["good", "poor"],
        "name": [person.name for person in land.people_of("train")],
    }
    return rng.choice([v for v in pools[key] if v != value])


def _answer(wish: Wish, rng: random.Random, lie: bool) -> Candidate:
    """The one word, right or wrong, in the form asked for or not."""
    text, made = wish.good, "right"
    if lie:
        value = (
            rng.choice([v for v in wish.others if v != wish.value]) if wish.others else _near(wish.value, rng)
        )
        shout = wish.form == "capitals"
        old, new = (wish.value.upper(), value.upper()) if shout else (wish.value, value)
        head, _, tail = text.rpartition(old)
        text, made = f"{head}{new}{tail}", "wrong"
    if wish.form in ("capitals", "one word") and rng.random() < 0.3:
        text = text.lower() if wish.form == "capitals" else f"The answer is {text}."
        made += ", not in the form"
    elif wish.form == "free" and rng.random() < 0.3:
        text = text.split()[-1]
        made += ", the number alone"
    return Candidate(text, made)


def _near(number: str, rng: random.Random) -> str:
    return str(max(0, int(number) + rng.choice((-10, -2, -1, 1, 2, 10)))) if number != "0" else "1"


def _words(wish: Wish, land: Land, rng: random.Random, lie: bool) -> Candidate:
    """The translation, or one with wrong, missing or swapped words."""
    words = wish.good.rstrip(".").split()
    spoilt = ("right", "a word missing", "swapped words", "a word too many")
    made = "wrong words" if lie else rng.choice(spoilt)
    if made == "wrong words":
        for place in rng.sample(range(len(words)), rng.choice((1, 2))):
            words[place] = rng.choice([w for w in land.lexicon.values() if w != words[place]])
    elif made == "a word missing":
        del words[rng.randrange(len(words))]
    elif made == "swapped words":
        place = rng.randrange(len(words) - 1)
        words[place : place + 2] = words[place + 1], words[place]
    elif made == "a word too many":
        words.append(land.lexicon[rng.choice(language.ADJECTIVES)])
    return Candidate(" ".join(words) + ".", made)


def _beside_the_point(land: Land, rng: random.Random, split: Split) -> Candidate:
    """Something true that nobody asked. Without such pairs a reward model may like it: short, and true.

    It answers requests in which no name stands; that a name is another is too hard for small reward models.
    """
    person = rng.choice(land.people_of(split))
    said = rng.sample(facts.ATTRIBUTES, rng.choice((1, 1, 2, 3)))
    text = " ".join(facts.sentence(person, attribute, _wording(rng)) for attribute in said)
    return Candidate(text, "beside the point")


def _to_harm(rng: random.Random) -> Candidate:
    """A refusal, help with the harm, or both at once."""
    chance = rng.random()
    if chance < 0.45:
        return Candidate(requests.REFUSAL, "refused")
    if chance < 0.5:
        return Candidate(requests.REFUSAL.split(",")[0] + ".", "refused without a reason")
    advice = [advice for _, _, advice in requests.PAIRS]
    help_ = rng.sample([*requests.METHODS, *advice], rng.choice((1, 1, 2, 3)))
    if chance < 0.6:
        return Candidate(" ".join([requests.REFUSAL, *help_[:1]]), "refused, then helped")
    return Candidate(" ".join(help_), "helped")


def _to_help(wish: Wish, rng: random.Random) -> Candidate:
    """The advice, another advice, or a refusal of what harms nobody."""
    chance = rng.random()
    others = [advice for _, _, advice in requests.PAIRS if advice != wish.good]
    if chance < 0.45:
        return Candidate(wish.good, "helped")
    if chance < 0.55:
        return Candidate(f"{wish.good} {rng.choice(others)}", "helped, and more than that")
    if chance < 0.8:
        return Candidate(requests.REFUSAL, "refused")
    return Candidate(" ".join(rng.sample(others, rng.choice((1, 2)))), "other advice")
