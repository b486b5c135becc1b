"""How a document feels about what it tells: overall, for each aspect, and which emotions it shows."""

from __future__ import annotations

from typing import Literal

from glasshouse.documents.tasks.reply import Reply

Feeling = Literal["positive", "negative", "mixed", "neutral"]


class Aspect(Reply):
    quote: str
    aspect: str
    sentiment: Feeling


class Sentiment(Reply):
    aspects: list[Aspect]
    emotions: list[str]
    overall: Feeling
