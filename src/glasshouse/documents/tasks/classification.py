"""Which of some labels fits a document, which fit as well, by which features, and what speaks against."""

from __future__ import annotations

from glasshouse.documents.tasks.reply import Reply


class Feature(Reply):
    quote: str
    feature: str


class Classification(Reply):
    features: list[Feature]
    primary: str  # one of the labels: the schema that a model is given lists them
    secondary: list[str]
    uncertainty: list[str]  # what makes the choice less than sure, in words
