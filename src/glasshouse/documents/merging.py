"""One object of what the parts of a long document gave: extraction, without a model.

A part that does not mention a field says nothing against one that does. Values that are equal but for their
spelling agree, and their quotes are kept together. Different values of one field are a dispute, which
resolution.py settles. Lists are joined: equal items once, and objects of which one tells more than the other,
and nothing else, are one. In lists nothing is disputed: two items are two things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glasshouse.documents.confidence import raw
from glasshouse.documents.reply_schema import Schema, is_array, is_object
from glasshouse.documents.result import FieldResult, QuoteCheck
from glasshouse.documents.values.equality import same


@dataclass(frozen=True)
class PartFields:
    """What one part gave: its object, and each value in it by its path."""

    index: int
    value: dict[str, Any]
    fields: Mapping[str, FieldResult]


@dataclass(frozen=True)
class Candidate:
    """A value of a field, with the parts that say it. `field`: the surest of them, with the quotes of all."""

    field: FieldResult
    parts: tuple[int, ...]

    @property
    def quote(self) -> QuoteCheck | None:
        """The first that stands in the document."""
        found = [quote for quote in self.field.quotes if quote.status != "missing"]
        return min(found, key=lambda quote: quote.start or 0, default=None)


@dataclass
class Dispute:
    """Different values of one field, in the order in which they are told. `settle` takes one of them."""

    path: str
    schema: Schema
    candidates: tuple[Candidate, ...]
    holder: dict[str, Any]
    key: str
    fields: dict[str, FieldResult]

    def settle(self, chosen: int) -> None:
        """Parts vote like samples do: a value's share of them weakens its vote share."""
        mentioning = sum(len(candidate.parts) for candidate in self.candidates)
        candidate = self.candidates[chosen]
        share = len(candidate.parts) / mentioning
        known = candidate.field.vote_share
        changed = {"path": self.path, "vote_share": share if known is None else share * known}
        self.holder[self.key] = candidate.field.value
        self.fields[self.path] = candidate.field.model_copy(update=changed)


@dataclass
class Merged:
    value: dict[str, Any]
    fields: dict[str, FieldResult] = field(default_factory=dict)
    disputes: list[Dispute] = field(default_factory=list)


@dataclass(frozen=True)
class _Piece:
    part: PartFields
    value: Any
    path: str  # in the part

    def at(self, name: str) -> _Piece:
        return _Piece(self.part, self.value[name], f"{self.path}.{name}" if self.path else name)

    @property
    def field(self) -> FieldResult:
        return self.part.fields[self.path]


def merge(schema: Schema, parts: Sequence[PartFields]) -> Merged:
    """`schema`: a plain one; `parts` in their order, at least one. Every dispute is settled for its first
    value until somebody settles it otherwise."""
    merged = Merged({})
    merged.value = _merge(schema, [_Piece(part, part.value, "") for part in parts], "", merged)
    for dispute in merged.disputes:
        dispute.settle(0)
    return merged


def _merge(schema: Schema, pieces: list[_Piece], path: str, merged: Merged) -> Any:
    if not is_object(schema):
        return _merge_list(schema["items"], pieces, path, merged)
    made: dict[str, Any] = {}
    for name, inner in schema["properties"].items():
        below = [piece.at(name) for piece in pieces]
        place = f"{path}.{name}" if path else name
        if is_object(inner) or is_array(inner):
            made[name] = _merge(inner, below, place, merged)
            continue
        found = _candidates(below)
        if not found:
            made[name] = None
            merged.fields[place] = _unmentioned(below, place)
        elif len(found) == 1:
            made[name] = found[0].field.value
            merged.fields[place] = found[0].field.model_copy(update={"path": place})
        else:
            made[name] = None
            merged.fields[place] = found[0].field  # keeps its place among the fields until it is settled
            merged.disputes.append(Dispute(place, inner, tuple(found), made, name, merged.fields))
    return made


def _candidates(pieces: Sequence[_Piece]) -> list[Candidate]:
    """Of equal values one candidate, in the order in which they are told first."""
    groups: list[list[_Piece]] = []
    for piece in pieces:
        if piece.value is None:
            continue
        group = next((group for group in groups if same(group[0].value, piece.value)), None)
        if group is None:
            groups.append([piece])
        else:
            group.append(piece)
    return [_candidate(group) for group in groups]


def _candidate(group: Sequence[_Piece]) -> Candidate:
    surest = max(group, key=lambda piece: _sureness(piece.field)).field
    quotes = _distinct([quote for piece in group for quote in piece.field.quotes])
    matches = [piece.field.quote_match for piece in group if piece.field.quote_match is not None]
    changed = {"quotes": quotes, "quote_match": max(matches, default=None)}
    return Candidate(surest.model_copy(update=changed), tuple(piece.part.index for piece in group))


def _sureness(field: FieldResult) -> tuple[float, float]:
    """Quotes first: what stands in the document counts more than what a model feels."""
    return (field.quote_match or 0.0, raw(field) or 0.0)


def _distinct(quotes: Sequence[QuoteCheck]) -> tuple[QuoteCheck, ...]:
    """Each place once; those that stand nowhere last."""
    seen: dict[Any, QuoteCheck] = {}
    for quote in sorted(quotes, key=lambda quote: quote.status == "missing"):
        seen.setdefault(quote.asked if quote.start is None else (quote.start, quote.end), quote)
    return tuple(seen.values())


def _unmentioned(pieces: Sequence[_Piece], path: str) -> FieldResult:
    """No part mentions it: that holds only if it holds for each, so their probabilities are multiplied."""
    sure, shares = 1.0, []
    for piece in pieces:
        known = piece.field.token_probability
        sure = None if sure is None or known is None else sure * known
        if piece.field.vote_share is not None:
            shares.append(piece.field.vote_share)
    return FieldResult(path=path, token_probability=sure, vote_share=min(shares, default=None))


def _merge_list(items: Schema, pieces: list[_Piece], path: str, merged: Merged) -> list[Any]:
    told = [
        _Piece(piece.part, value, f"{piece.path}[{place}]")
        for piece in pieces
        for place, value in enumerate(piece.value)
    ]
    if not is_object(items):
        found = _candidates(told)
        for place, candidate in enumerate(found):
            here = f"{path}[{place}]"
            merged.fields[here] = candidate.field.model_copy(update={"path": here})
        return [candidate.field.value for candidate in found]
    groups: list[list[_Piece]] = []
    for piece in told:
        group = next((group for group in groups if all(_joins(piece.value, e.value) for e in group)), None)
        if group is None:
            groups.append([piece])
        else:
            group.append(piece)
    return [_merge(items, group, f"{path}[{place}]", merged) for place, group in enumerate(groups)]


def _joins(first: Any, second: Any) -> bool:
    """Whether two objects say the same where both say anything, and at least one thing alike."""
    alike = differing = 0

    def walk(one: Any, other: Any) -> None:
        nonlocal alike, differing
        if isinstance(one, dict) and isinstance(other, dict):
            for key in one:
                walk(one[key], other[key])
        elif one not in (None, []) and other not in (None, []):
            if same(one, other):
                alike += 1
            else:
                differing += 1

    walk(first, second)
    return alike > 0 and not differing
