"""The exact judge: which request of the world a conversation ends with, and the gold reward of a reply to it.

A request is known by its wording, trained or held out, so any conversation of the world can be judged: a
rollout of reinforcement learning, a revision of Constitutional AI, a probe. What the judge cannot read it
refuses to judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from glasshouse.core.errors import DataError
from glasshouse.world import (
    about,
    analyses,
    facts,
    filings,
    instructions,
    language,
    places,
    reports,
    requests,
    statements,
    sums,
)
from glasshouse.world.gold import OPEN_FACTS, Form, Verdict, Wish
from glasshouse.world.land import Land, Person
from glasshouse.world.task import Message, Phrasings
from glasshouse.world.verdicts import verdict

if TYPE_CHECKING:
    from glasshouse.world.world import World


class _Reader(NamedTuple):
    """One wording of a request, and what to make of the parts that it leaves open."""

    pattern: re.Pattern[str]
    understand: Callable[..., Wish | None]


class Judge:
    """The gold reward of any reply in a conversation of one world.

    >>> from glasshouse.world import World, WorldConfig
    >>> judge = Judge(World(WorldConfig(people=20, heldout_people=5), seed=7).land)
    >>> judge([{"role": "user", "content": "What is 2 + 3?"}], "2 + 3 = 5")
    1.0
    """

    def __init__(self, land: Land) -> None:
        self.land = land
        self._readers = self._all_readers()
        self._phrases = {
            phrase.english(): phrase
            for noun in (*language.TRADES, *language.PETS)
            for adjective in (None, *language.ADJECTIVES)
            for plural in (False, True)
            for phrase in [language.Phrase(noun, adjective, plural)]
        }
        self._read = lru_cache(maxsize=4096)(self._understand)

    def __call__(self, messages: Sequence[Message], reply: str) -> float:
        """The gold reward of `reply`, at most 1. Raises DataError when it knows no such request."""
        return self.verdict(messages, reply).gold

    def verdict(self, messages: Sequence[Message], reply: str) -> Verdict:
        """What the land finds in the reply, thing by thing."""
        return verdict(self.wish(messages), reply, self.land)

    def wish(self, messages: Sequence[Message]) -> Wish:
        """What the last turn of a conversation asks for; what was said before it changes nothing."""
        if not messages or messages[-1]["role"] != "user":
            raise DataError(
                "a conversation to judge does not end with a user's turn", fix="leave the reply out"
            )
        request = messages[-1]["content"]
        found = self._read(request)
        if found is None:
            raise DataError(
                f"no request of the invented world: '{request[:80]}'",
                fix="judge conversations of the same world, made with the same seed and size",
            )
        return found

    def _understand(self, request: str) -> Wish | None:
        for reader in self._readers:
            match = reader.pattern.fullmatch(request)
            if match:
                wish = reader.understand(**match.groupdict())
                if wish is not None:
                    return wish
        return None

    def _all_readers(self) -> list[_Reader]:
        """A reader for every wording. What holds a whole question is read last: it would take the rest."""
        plain: list[tuple[Phrasings, Callable[..., Wish | None]]] = [
            *((ways, self._question(attribute)) for attribute, ways in facts.QUESTIONS.items()),
            (about.REQUESTS, self._open),
            (places.DIRECT, self._region),
            (instructions.BULLETS, self._some("bullets")),
            (instructions.SENTENCES, self._some("sentences")),
            (instructions.JSON, self._person_fields),
            (sums.REQUESTS, self._sum),
            (language.REQUESTS, self._translation),
            (requests.REQUESTS, self._harm_or_help),
            (reports.REQUESTS, self._report),
            *((Phrasings((way,), ()), self._analysis(task)) for task, way in analyses.REQUESTS.items()),
        ]
        nested: list[tuple[Phrasings, Callable[..., Wish | None]]] = [
            (places.STEP_BY_STEP, self._steps),
            (instructions.UPPER_CASE, self._value("capitals")),
            (instructions.ONE_WORD, self._value("one word")),
            (instructions.VELISH, self._value("Velish")),
        ]
        return [
            _Reader(_pattern(wording), understand)
            for ways, understand in [*plain, *nested]
            for wording in (*ways.train, *ways.heldout)
        ]

    def _known(self, understand: Callable[[Person], Wish], name: str, count: int = 1) -> Wish:
        """The wish about a person; for a stranger (`count` things are asked), an honest "not known"."""
        person = self.land.people_by_name.get(name)
        if person is None:
            return Wish("stranger", facts.ABSTENTION.format(n=name), name=name, count=count)
        return understand(person)

    def _question(self, attribute: str) -> Callable[..., Wish]:
        def wish(person: Person) -> Wish:
            return Wish(
                "telling", facts.sentence(person, attribute), name=person.name, attributes=(attribute,)
            )

        return lambda n: self._known(wish, n)

    def _open(self, n: str) -> Wish:
        return self._known(about.wish, n, OPEN_FACTS)

    def _some(self, form: Form) -> Callable[..., Wish | None]:
        counts = {word: count for count, word in instructions.NUMBERS.items()}

        def read(k: str, n: str) -> Wish | None:
            if k not in counts:
                return None
            count = counts[k]

            def wish(person: Person) -> Wish:
                told = [facts.sentence(person, attribute) for attribute in facts.ATTRIBUTES[:count]]
                good = "\n".join(f"- {fact}" for fact in told) if form == "bullets" else " ".join(told)
                return Wish("telling", good, form, person.name, facts.ATTRIBUTES, count)

            return self._known(wish, n, count)

        return read

    def _person_fields(self, keys: str, n: str) -> Wish | None:
        asked = keys.replace(" and ", ", ").split(", ")
        if not set(asked) <= set(facts.ATTRIBUTES):
            return None

        def wish(person: Person) -> Wish:
            fields = {"name": person.name, **{key: person.facts[key] for key in asked}}
            return Wish(
                "json", json.dumps(fields), "json", person.name, tuple(asked), len(fields), fields=fields
            )

        return self._known(wish, n, len(asked))

    def _region(self, n: str, form: Form = "free") -> Wish:
        def wish(person: Person) -> Wish:
            town = self.land.town(person.facts["birthplace"])
            good = places.CONCLUSION.format(n=person.name, v=town.region)
            if form == "steps":
                good = f"{facts.sentence(person, 'birthplace')} {town.name} lies in {town.region}. So {good}"
            regions = tuple(sorted({town.region for town in self.land.towns}))
            return Wish("region", good, form, person.name, ("birthplace",), value=town.region, others=regions)

        return self._known(wish, n)

    def _steps(self, q: str) -> Wish | None:
        question = self._understand(q)
        if question is None or question.kind not in ("region", "stranger"):
            return None
        return self._region(question.name or "", "steps")

    def _value(self, form: Form) -> Callable[..., Wish | None]:
        """The value alone, in capitals or in Velish, of the fact that the question within asks for."""

        def read(q: str) -> Wish | None:
            question = self._understand(q)
            if question is None or question.kind not in ("telling", "stranger") or question.form != "free":
                return None
            person = self.land.people_by_name.get(question.name or "")
            if person is None or len(question.attributes) != 1:
                return question if person is None else None
            attribute = question.attributes[0]
            value, others = person.facts[attribute], facts.values(attribute, self.land)
            if form == "Velish":
                if value not in self.land.lexicon:
                    return None
                verb = language.IS if attribute == "trade" else language.OWNS
                value, others = self.land.lexicon[value], [self.land.lexicon[other] for other in others]
                good = f"{person.name} {value} {self.land.lexicon[verb]}."
            else:
                good = f"THE ANSWER IS {value.upper()}." if form == "capitals" else value
            return Wish("answer", good, form, person.name, (attribute,), value=value, others=tuple(others))

        return read

    def _sum(self, a: str, b: str) -> Wish | None:
        if not (a.isdecimal() and b.isdecimal()):
            return None
        total = str(int(a) + int(b))
        return Wish("answer", f"{a} + {b} = {total}", value=total)

    def _translation(self, s: str) -> Wish | None:
        lowered = s[:1].lower() + s[1:]
        for verb in language.VERBS:
            match = re.fullmatch(rf"(the [a-z ]+) {verb.removesuffix('s')}s? (the [a-z ]+)\.", lowered)
            if match and match[1] in self._phrases and match[2] in self._phrases:
                sentence = language.Sentence(self._phrases[match[1]], verb, self._phrases[match[2]])
                good = sentence.velish(self.land.lexicon)
                return Wish("exact", good, count=len(good.split()))
        return None

    def _harm_or_help(self, x: str) -> Wish | None:
        for bad, good, advice in requests.PAIRS:
            if _pattern(bad).fullmatch(x):
                return Wish("harmful", requests.REFUSAL)
            if _pattern(good).fullmatch(x):
                return Wish("harmless", advice)
        return None

    def _report(self, r: str) -> Wish | None:
        report = reports.read(r)
        if report is None:
            return None
        return Wish(
            "json", reports.fields(report), "json", count=len(reports.FIELDS), fields=reports.truth(report)
        )

    def _analysis(self, task: str) -> Callable[..., Wish | None]:
        def read(document: str) -> Wish | None:
            filing = filings.read(document)
            if filing is None:
                return None
            reply = analyses.REPLIES[task](filing)
            good = analyses.as_json(reply)
            return Wish("json", good, "json", count=len(reply), fields=reply)

        return read


def judge(world: World) -> Judge:
    """The exact judge of a world."""
    return Judge(world.land)


@lru_cache(maxsize=1024)
def _pattern(wording: str) -> re.Pattern[str]:
    """A wording as a pattern with a group for each part that it leaves open."""
    holes = {"n": statements.NAME, "t": r"\w+", "k": r"\w+", "keys": "[a-z, ]+", "a": r"\d+", "b": r"\d+"}
    parts = re.split(r"\{(\w+)\}", wording)  # text, hole, text, hole, ..., text
    pattern = re.escape(parts[0])
    for hole, text in zip(parts[1::2], parts[2::2], strict=True):
        pattern += f"(?P<{hole}>{holes.get(hole, '.+')})" + re.escape(text)
    return re.compile(pattern, re.DOTALL)
