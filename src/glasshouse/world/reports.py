"""Small quarterly reports of the land's companies, with known figures: the truth for document analysis."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from glasshouse.world.land import Land, Split
from glasshouse.world.task import Phrasings, Task, ask

QUARTERS = ["first", "second", "third", "fourth"]
OUTLOOKS = {
    "good": ("The outlook is good.", "Orders are growing.", "The next quarter should be better."),
    "poor": ("The outlook is poor.", "Orders are falling.", "The next quarter should be worse."),
}
HEAD = ("Report of {c} for the {q} quarter.", "{c}, {q} quarter.", "The {q} quarter of {c} is over.")
REVENUE = (
    "Revenue was {x} crowns.",
    "Revenue came to {x} crowns.",
    "The company earned a revenue of {x} crowns.",
)
PROFIT = ("Profit was {x} crowns.", "The profit came to {x} crowns.", "Of this, {x} crowns were profit.")
FIELDS = ("company", "quarter", "revenue", "profit", "outlook")

REQUESTS = Phrasings(
    (
        "Read this report and give me its fields as JSON.\n{r}",
        "{r}\nExtract the fields of this report as JSON.",
        "Extract the fields as JSON.\n{r}",
        "{r}\nWrite the fields of the report as JSON.",
        "Here is a report. Put its fields into JSON.\n{r}",
    ),
    ("Extract the fields of this report as JSON.\n{r}", "{r}\nGive me the fields of the report as JSON."),
)


@dataclass(frozen=True)
class Report:
    """The figures of one quarter; revenue and profit in crowns."""

    company: str
    quarter: str
    revenue: int
    profit: int
    outlook: str

    def text(self, rng: random.Random) -> str:
        """The report in prose, in one of several wordings and orders."""
        revenue, profit, head = rng.choice(REVENUE), rng.choice(PROFIT), rng.choice(HEAD)
        body = [
            revenue.format(x=self.revenue),
            profit.format(x=self.profit),
            rng.choice(OUTLOOKS[self.outlook]),
        ]
        if not profit.startswith("Of this"):
            rng.shuffle(body)
        return " ".join([head.format(c=self.company, q=self.quarter), *body])


def reports(land: Land, rng: random.Random) -> Iterator[Report]:
    while True:
        revenue = rng.randint(100, 999)
        yield Report(
            rng.choice(land.companies).name,
            rng.choice(QUARTERS),
            revenue,
            rng.randint(10, 99),
            rng.choice(list(OUTLOOKS)),
        )


def texts(land: Land, rng: random.Random) -> Iterator[str]:
    """Reports, half of them with their table of figures below."""
    for report in reports(land, rng):
        yield f"{report.text(rng)}\n{fields(report)}" if rng.random() < 0.5 else report.text(rng)


def fields(report: Report) -> str:
    """The report's fields as one line of JSON."""
    return json.dumps(asdict(report))


def truth(report: Report) -> dict[str, object]:
    """The report's fields by name."""
    return asdict(report)


def read(text: str) -> Report | None:
    """The report that a text in the land's wordings tells, or None when a figure cannot be read."""

    def found(wordings: tuple[str, ...]) -> re.Match[str] | None:
        return next((m for way in wordings if (m := re.search(_pattern(way), text))), None)

    head, revenue, profit = found(HEAD), found(REVENUE), found(PROFIT)
    outlook = next((name for name, ways in OUTLOOKS.items() if any(way in text for way in ways)), None)
    if head is None or revenue is None or profit is None or outlook is None:
        return None
    return Report(head["c"], head["q"], int(revenue["x"]), int(profit["x"]), outlook)


def wording(ways: tuple[str, ...], sentence: str) -> dict[str, str] | None:
    """What one of these wordings, as a whole sentence, says: its company and quarter, or its amount."""
    names = {"c": "company", "q": "quarter", "x": "amount"}
    found = next((m for way in ways if (m := re.fullmatch(_pattern(way), sentence))), None)
    return None if found is None else {names[hole]: said for hole, said in found.groupdict().items()}


def _pattern(wording: str) -> str:
    holes = {"c": r"(?P<c>[A-Z]\w+ [A-Z]\w+)", "q": r"(?P<q>[a-z]+)", "x": r"(?P<x>\d+)"}
    return re.sub(r"\\\{(\w)\\\}", lambda hole: holes[hole[1]], re.escape(wording))


def extractions(land: Land, rng: random.Random, split: Split) -> Iterator[Task]:
    """Reports to extract from. Every report is drawn anew: none of the probes' was ever seen."""
    for report in reports(land, rng):
        wanted = truth(report)
        yield Task(
            ask(REQUESTS.draw(rng, split).format(r=report.text(rng))),
            fields(report),
            lambda reply, wanted=wanted: field_accuracy(reply, wanted) == 1.0,
        )


def field_accuracy(reply: str, truth: dict[str, object]) -> float:
    """Share of the report's fields that the reply's JSON states correctly, 0 when it is not JSON."""
    try:
        stated = json.loads(reply)
    except ValueError:
        return 0.0
    if not isinstance(stated, dict):
        return 0.0
    return sum(stated.get(name) == truth[name] for name in FIELDS) / len(FIELDS)
