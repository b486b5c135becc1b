"""What several replies to one question say together, and which of them each value is taken from.

Extraction is decided field by field: the value that most replies say, the first of equally many (the first
reply is the likeliest one). A list of plain values keeps what more than half of the replies have; a list of
objects is that of the reply whose items most others have too. The other tasks are texts, of which no two are
alike: there one reply is chosen whole, the one whose choices among labels, and after them whose quotes, most
replies share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from glasshouse.documents.extraction import extracted, mentions
from glasshouse.documents.reply_schema import Schema, is_array, is_object
from glasshouse.documents.values.equality import same
from glasshouse.documents.values.leaves import leaves, without_indices


@dataclass
class Elected:
    """`reply`: as one. `origins`: path in it -> (which of the replies, path in that one)."""

    reply: dict[str, Any]
    origins: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Voter:
    number: int
    reply: Any  # the part of it that is voted on
    path: str


def elect(schema: Schema, replies: Sequence[dict[str, Any]]) -> Elected:
    """Of extraction; `schema`: a plain one."""
    elected = Elected({})
    voters = [_Voter(number, reply, "") for number, reply in enumerate(replies)]
    elected.reply = _decide(schema, voters, "", elected.origins)
    return elected


def elect_whole(closed: frozenset[str], replies: Sequence[dict[str, Any]]) -> Elected:
    """Of the other tasks. `closed`: paths (without indices) whose values are chosen among some."""
    said = [[(without_indices(path), value) for path, value in leaves(reply)] for reply in replies]
    single = [{path: value for path, value in each if path in closed and "[]" not in path} for each in said]
    quotes = [{value for path, value in each if path.endswith(".quote")} for each in said]

    def score(number: int) -> tuple[float, float, int]:
        agreeing = sum(
            same(value, other.get(path)) for path, value in single[number].items() for other in single
        )
        own = quotes[number]
        shared = sum(quote in other for quote in own for other in quotes) / max(len(own), 1)
        return agreeing, shared, -number

    best = max(range(len(replies)), key=score)
    return Elected(replies[best], {path: (best, path) for path, _ in leaves(replies[best])})


def _decide(schema: Schema, voters: list[_Voter], path: str, origins: dict[str, tuple[int, str]]) -> Any:
    if is_object(schema):
        return {
            name: _decide(
                inner,
                [_Voter(each.number, each.reply[name], _below(each.path, name)) for each in voters],
                _below(path, name),
                origins,
            )
            for name, inner in schema["properties"].items()
        }
    if is_array(schema):
        deep = is_object(schema["items"])
        return (_decide_objects if deep else _decide_values)(schema["items"], voters, path, origins)
    counts = [sum(same(each.reply["value"], other.reply["value"]) for other in voters) for each in voters]
    winner = voters[counts.index(max(counts))]
    for each in voters:  # of those that say so, the first with evidence
        if each.reply["quote"] and same(each.reply["value"], winner.reply["value"]):
            winner = each
            break
    origins[path] = (winner.number, winner.path)
    return winner.reply


def _decide_values(
    schema: Schema, voters: list[_Voter], path: str, origins: dict[str, tuple[int, str]]
) -> list[Any]:
    items = [
        [
            _Voter(each.number, item, f"{each.path}[{place}]")
            for place, item in enumerate(each.reply)
            if mentions(schema, item)
        ]
        for each in voters
    ]

    def kept(item: _Voter) -> bool:
        having = sum(any(_alike(item, other) for other in each) for each in items)
        return 2 * having > len(voters)

    fullest = max(items, key=lambda each: sum(map(kept, each)))
    chosen: list[_Voter] = []
    for item in [*fullest, *(item for each in items for item in each)]:
        if kept(item) and not any(_alike(item, other) for other in chosen):
            chosen.append(item)
    for place, item in enumerate(chosen):
        origins[f"{path}[{place}]"] = (item.number, item.path)
    return [item.reply for item in chosen]


def _alike(first: _Voter, second: _Voter) -> bool:
    return same(first.reply["value"], second.reply["value"])


def _decide_objects(
    schema: Schema, voters: list[_Voter], path: str, origins: dict[str, tuple[int, str]]
) -> list[Any]:
    lists = [[extracted(schema, item)[0] for item in each.reply if mentions(schema, item)] for each in voters]

    def likeness(number: int) -> float:
        mine = lists[number]
        return sum(
            2 * sum(any(same(item, other) for other in theirs) for item in mine) / (len(mine) + len(theirs))
            if mine or theirs
            else 1.0
            for theirs in lists
        )

    best = max(range(len(voters)), key=lambda number: (likeness(number), -number))
    for leaf, _ in leaves(voters[best].reply, path):
        origins[leaf] = (voters[best].number, voters[best].path + leaf.removeprefix(path))
    return voters[best].reply


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
