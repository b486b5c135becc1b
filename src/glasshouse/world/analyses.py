"""Analyzing a report: what is asked, and the right reply as JSON with a quote for everything it says.

The forms of request and reply are those of the document analyzer (its domain "land" asks in these words, and
its tests hold both against each other): the evidence first, then what follows from it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from glasshouse.world.filings import EVENTS, ORDINARY, Filing, filings
from glasshouse.world.land import Land, Split
from glasshouse.world.task import Task, ask

LABELS = (*EVENTS, ORDINARY)
REQUESTS = {  # unlike the requests for a plain report (reports.py), whose reply has another form
    "extraction": "Analysis of the fields, with quotes:\n{document}",
    "classification": "Analysis of the kind of quarter, with quotes:\n{document}",
    "summary": "Analysis in short, with quotes:\n{document}",
    "sentiment": "Analysis of the feelings, with quotes:\n{document}",
}
_FEELINGS = {
    "good": "positive",
    "poor": "negative",
    "expansion": "positive",
    "damage": "negative",
    "strike": "negative",
}


def extraction(filing: Filing) -> dict[str, Any]:
    return {name: {"quote": filing.quotes[name], "value": value} for name, value in filing.fields.items()}


def classification(filing: Filing) -> dict[str, Any]:
    """The kind of the first event is the primary one; a second event makes it less sure."""
    kinds = [event for event, _ in filing.events] or [ORDINARY]
    return {
        "features": [{"quote": quote, "feature": event} for event, quote in filing.events],
        "primary": kinds[0],
        "secondary": kinds[1:],
        "uncertainty": [f"also {kind}" for kind in kinds[1:]],
    }


def summary(filing: Filing) -> dict[str, Any]:
    report, said = filing.report, filing.quotes
    told = {
        "revenue": f"revenue {report.revenue} crowns",
        "profit": f"profit {report.profit} crowns",
        "outlook": f"outlook {report.outlook}",
    }
    findings = [{"quote": said[name], "finding": words} for name, words in told.items() if said[name]]
    findings += [{"quote": quote, "finding": event} for event, quote in filing.events]
    return {
        "topic": report.company,
        "findings": findings,
        "conclusions": [f"The quarter was {_overall(filing)}."],
    }


def sentiment(filing: Filing) -> dict[str, Any]:
    aspects = [
        {"quote": quote, "aspect": name, "sentiment": _FEELINGS[key]} for name, key, quote in _felt(filing)
    ]
    emotions = {"positive": "hope", "negative": "worry"}
    feelings = [aspect["sentiment"] for aspect in aspects]
    return {
        "aspects": aspects,
        "emotions": [emotions[feeling] for feeling in dict.fromkeys(feelings)],
        "overall": _overall(filing),
    }


REPLIES: dict[str, Callable[[Filing], dict[str, Any]]] = {
    "extraction": extraction,
    "classification": classification,
    "summary": summary,
    "sentiment": sentiment,
}
_TURNS = (
    ("extraction", 0, 2),
    ("classification", 0, 2),
    ("summary", 0, 1),
    ("extraction", 0, 2),
    ("classification", 2, 2),
    ("sentiment", 0, 1),
)
"""Tasks with the least and the most events of their reports. Which of two comes first is what is hardest to
learn; with two, a summary or a sentiment and its report would not fit into 256 tokens."""


def analyses(land: Land, rng: random.Random, split: Split) -> Iterator[Task]:
    """Endless analyses of reports, each drawn anew."""
    several = filings(land, rng, split)
    for name, least, most in cycle(_TURNS):
        filing = next(filing for filing in several if least <= len(filing.events) <= most)
        reply = REPLIES[name](filing)
        yield Task(
            ask(REQUESTS[name].format(document=filing.text)),
            as_json(reply),
            lambda text, reply=reply: _parsed(text) == reply,
        )


def texts(land: Land, rng: random.Random) -> Iterator[str]:
    """The same written out, request and reply."""
    for task in analyses(land, rng, "train"):
        yield f"{task.messages[0]['content']}\n{task.reply}"


def as_json(reply: dict[str, Any]) -> str:
    return json.dumps(reply, ensure_ascii=False)


def _felt(filing: Filing) -> list[tuple[str, str, str]]:
    """(aspect, key of its feeling, sentence): the outlook, then each event."""
    outlook = filing.quotes["outlook"]
    first = [("outlook", filing.report.outlook, outlook)] if outlook else []
    return [*first, *((event, event, quote) for event, quote in filing.events)]


def _overall(filing: Filing) -> str:
    feelings = {_FEELINGS[key] for _, key, _ in _felt(filing)}
    return "mixed" if len(feelings) > 1 else next(iter(feelings), "neutral")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
