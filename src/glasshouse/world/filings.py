"""Longer reports for document analysis: a quarter's figures among events and small talk, some left unsaid.

The truth about each is known: which fields it states and in which sentence, what happened, how it feels. What
happened is said in combinations of words ("A flood broke the gate.") of which one in five is held out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from glasshouse.core.seeds import derive
from glasshouse.world.land import Land, Split
from glasshouse.world.reports import FIELDS, HEAD, OUTLOOKS, PROFIT, REVENUE, Report, reports, wording

Event = Literal["expansion", "damage", "strike"]
EVENTS: tuple[Event, ...] = ("expansion", "damage", "strike")
ORDINARY = "ordinary"
"""The kind of a quarter in which nothing happened."""

_WORDS: dict[Event, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "expansion": (
        ("The company", "The owners", "The partners"),
        ("opened a new", "built a second", "bought another"),
        ("hall", "mill", "gate", "yard", "shed"),
    ),
    "damage": (
        ("A storm", "A fire", "A flood"),
        ("damaged the", "broke the", "closed the"),
        ("hall", "mill", "gate", "yard", "shed"),
    ),
    "strike": (
        ("The workers", "The carters", "The weavers"),
        ("stopped work for", "were on strike for", "left their places for"),
        ("a day", "a week", "two days", "three weeks", "a month"),
    ),
}
TALK = (
    "The company has {n} workers.",
    "It is at home in {town}.",
    "Its founders came from {town}.",
    "The house is {n} years old.",
    "It makes {product}.",
)
_EXTRAS = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))
"""Events and small talk of a report: with its analysis it is to fit into 256 tokens."""

UNSAID = 0.2
"""Share of reports in which a figure, or the outlook, is not told."""


@dataclass(frozen=True)
class Filing:
    """A report sentence by sentence, and the truth about it."""

    report: Report
    sentences: tuple[str, ...]
    quotes: dict[str, str | None]  # field -> the sentence that states it; None: not mentioned
    events: tuple[tuple[Event, str], ...]  # with their sentences, in the order of the text

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def fields(self) -> dict[str, object]:
        """The five fields; None where the text does not tell."""
        return {name: getattr(self.report, name) if self.quotes[name] else None for name in FIELDS}


def filings(land: Land, rng: random.Random, split: Split) -> Iterator[Filing]:
    """Endless reports, each drawn anew. `split` decides how its events are told."""
    ways = {
        event: [words for words in _combinations(event) if _held_out(words) == (split == "heldout")]
        for event in EVENTS
    }
    for report in reports(land, rng):
        head = rng.choice(HEAD).format(c=report.company, q=report.quarter)
        body = {
            "revenue": rng.choice(REVENUE).format(x=report.revenue),
            "profit": rng.choice(PROFIT).format(x=report.profit),
            "outlook": rng.choice(OUTLOOKS[report.outlook]),
        }
        told = [name for name in body if rng.random() >= UNSAID] or ["revenue"]
        if body["profit"].startswith("Of this") and "revenue" not in told:
            body["profit"] = PROFIT[0].format(x=report.profit)
        events_told, talk_told = rng.choice(_EXTRAS)
        events: list[tuple[Event, str]] = [
            (event, rng.choice(ways[event])) for event in rng.sample(EVENTS, events_told)
        ]
        talk = [_talk(way, land, rng) for way in rng.sample(TALK, talk_told)]
        parts = [body[name] for name in told] + [sentence for _, sentence in events] + talk
        rng.shuffle(parts)
        if body["profit"].startswith("Of this") and "profit" in told:  # it speaks of the revenue before it
            parts.remove(body["profit"])
            parts.insert(parts.index(body["revenue"]) + 1, body["profit"])
        quotes = {
            "company": head,
            "quarter": head,
            **{name: body[name] if name in told else None for name in body},
        }
        events.sort(key=lambda event: parts.index(event[1]))
        yield Filing(report, (head, *parts), quotes, tuple(events))


def read(text: str) -> Filing | None:
    """What a report in these wordings tells, or None where its head cannot be read."""
    sentences = tuple(found.strip() for found in re.findall(r"[^.]+\.", text))
    if not sentences:
        return None
    head = wording(HEAD, sentences[0])
    if head is None:
        return None
    quotes: dict[str, str | None] = dict.fromkeys(FIELDS) | dict.fromkeys(head, sentences[0])
    values: dict[str, str] = {**head}
    for sentence in sentences[1:]:
        outlook = next((name for name, ways in OUTLOOKS.items() if sentence in ways), None)
        said = {
            "revenue": wording(REVENUE, sentence),
            "profit": wording(PROFIT, sentence),
            "outlook": outlook,
        }
        for name, found in said.items():
            if found:
                quotes[name] = sentence
                values[name] = found if isinstance(found, str) else found["amount"]
    report = Report(
        values["company"],
        values["quarter"],
        int(values.get("revenue", 0)),
        int(values.get("profit", 0)),
        values.get("outlook", ""),
    )
    kinds: dict[str, Event] = {words: event for event in EVENTS for words in _combinations(event)}
    events: tuple[tuple[Event, str], ...] = tuple(
        (kinds[sentence], sentence) for sentence in sentences if sentence in kinds
    )
    return Filing(report, sentences, quotes, events)


def _combinations(event: Event) -> list[str]:
    who, did, what = _WORDS[event]
    return [f"{one} {two} {three}." for one in who for two in did for three in what]


def _held_out(sentence: str) -> bool:
    """One sentence in five, always the same ones."""
    return derive(0, "filings", sentence) % 5 == 0


def _talk(way: str, land: Land, rng: random.Random) -> str:
    company = rng.choice(land.companies)
    return way.format(n=rng.randint(11, 99), town=company.town, product=company.product)
