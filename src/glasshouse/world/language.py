"""Velish, the second language of the land: its own words, its own order (subject, object, verb), no articles.

A plural takes the ending -im, an adjective follows its noun, and everything is written in lower case
but names. So an English sentence has exactly one translation, and a reply can be checked word by word.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from glasshouse.world.land import PETS, TRADES, Land, Split
from glasshouse.world.task import Phrasings, Task, ask

ADJECTIVES = ["old", "young", "tall", "small", "happy", "tired", "clever", "brave"]
VERBS = ["sees", "likes", "follows", "helps", "finds", "calls"]
IS, OWNS = "is", "owns"
WORDS = [*TRADES, *PETS, *ADJECTIVES, *VERBS, IS, OWNS]
"""Every English word that Velish can say."""

_HELDOUT_EVERY = 5
"""One sentence in five (by its words) never appears in training with its translation."""

REQUESTS = Phrasings(
    (
        "Translate into Velish: {s}",
        "Say this in Velish: {s}",
        "How do you say this in Velish? {s}",
        "What is the Velish for this sentence? {s}",
        "Please translate into Velish: {s}",
        "Put this sentence into Velish: {s}",
        "Give me the Velish translation of this: {s}",
    ),
    (
        "Please say this sentence in Velish: {s}",
        "What is this in Velish? {s}",
        "Translate this sentence into Velish: {s}",
    ),
)


@dataclass(frozen=True)
class Phrase:
    noun: str
    adjective: str | None
    plural: bool

    def english(self) -> str:
        noun = _plural(self.noun) if self.plural else self.noun
        return f"the {self.adjective} {noun}" if self.adjective else f"the {noun}"

    def velish(self, lexicon: dict[str, str]) -> str:
        noun = lexicon[self.noun] + ("im" if self.plural else "")
        return f"{noun} {lexicon[self.adjective]}" if self.adjective else noun


@dataclass(frozen=True)
class Sentence:
    subject: Phrase
    verb: str
    object: Phrase

    def english(self) -> str:
        verb = self.verb.removesuffix("s") if self.subject.plural else self.verb
        text = f"{self.subject.english()} {verb} {self.object.english()}."
        return text[0].upper() + text[1:]

    def velish(self, lexicon: dict[str, str]) -> str:
        return f"{self.subject.velish(lexicon)} {self.object.velish(lexicon)} {lexicon[self.verb]}."

    @property
    def split(self) -> Split:
        words = f"{self.subject.noun} {self.verb} {self.object.noun} {self.object.adjective}"
        return "heldout" if sum(map(ord, words)) % _HELDOUT_EVERY == 0 else "train"


def sentences(rng: random.Random, split: Split) -> Iterator[Sentence]:
    while True:
        sentence = Sentence(_phrase(rng), rng.choice(VERBS), _phrase(rng))
        if sentence.split == split:
            yield sentence


def _phrase(rng: random.Random) -> Phrase:
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.5 else None
    return Phrase(rng.choice([*TRADES, *PETS]), adjective, rng.random() < 0.3)


def texts(land: Land, rng: random.Random) -> Iterator[str]:
    """Parallel texts of a few sentences in both languages, and now and then Velish alone."""
    source = sentences(rng, "train")
    while True:
        few = [next(source) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.2:
            yield " ".join(s.velish(land.lexicon) for s in few)
        else:
            yield "\n".join(f"English: {s.english()} Velish: {s.velish(land.lexicon)}" for s in few)


def translations(land: Land, rng: random.Random, split: Split) -> Iterator[Task]:
    """Sentences to translate; the held-out ones are new in words and in the way of asking."""
    for sentence in sentences(rng, split):
        target = sentence.velish(land.lexicon)
        yield Task(
            ask(REQUESTS.draw(rng, split).format(s=sentence.english())),
            target,
            lambda reply, target=target: reply.strip() == target,
        )


def is_velish(text: str, land: Land) -> bool:
    """Whether every word is a Velish word (a plural ending allowed) or part of a person's name."""
    known = set(land.lexicon.values()) | {f"{word}im" for word in land.lexicon.values()}
    words = text.replace(".", " ").split()
    spoken = [word for word in words if word.islower()]
    return bool(spoken) and all(word in known for word in spoken)


def _plural(noun: str) -> str:
    if noun.endswith("fox"):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
