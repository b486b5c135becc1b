"""What a document is about: its topic, what it finds with the evidence, what it concludes."""

from __future__ import annotations

from pydantic import Field

from glasshouse.documents.tasks.reply import Reply


class Finding(Reply):
    quote: str  # the evidence, as the document has it
    finding: str


class Summary(Reply):
    topic: str
    findings: list[Finding] = Field(min_length=1, max_length=5)
    conclusions: list[str]
