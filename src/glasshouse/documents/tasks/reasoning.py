"""How well a document argues: its claims with their support, its logic, its gaps."""

from __future__ import annotations

from typing import Literal

from glasshouse.documents.tasks.reply import Reply


class Claim(Reply):
    quote: str
    claim: str
    support: Literal["strong", "moderate", "weak", "none"]


class Reasoning(Reply):
    claims: list[Claim]
    logical_flow: str
    gaps: list[str]
    evidence_quality: Literal["high", "medium", "low"]
    strength: Literal["strong", "moderate", "weak"]
    overall: str
