"""What several answers say together: the plurality, field by field where they are objects.

An object is voted on key by key, also within objects; a key that most answers lack is left out. A list of
plain values keeps what more than half of the answers have in it (each value once), in the order of the answer
that has most of them. Every other list, and every plain value, is chosen whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


ABSENT: Final = _Absent()
"""Stands for a key that an answer does not have."""


OBJECT, LIST = "(object)", "(list)"


@dataclass
class Ballot:
    """`winner`, and for each field (dotted path; "" for a whole answer) the share of the answers behind
    each value.

    `still`: so many more answers, at least, before nothing that `left` more could say changes the winner.
    """

    winner: Any
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    still: int = 0


def vote(answers: Sequence[Any], weights: Sequence[float] | None = None, left: int = 0) -> Ballot:
    """Counts one answer or more. Equally many votes are decided by the heaviest voter (a log-probability,
    say), else by who came first."""
    ballot = Ballot(None)
    ballot.winner = _decide(list(answers), list(weights or [0.0] * len(answers)), left, "", ballot)
    return ballot


def agreement(answer: Any, winner: Any) -> float:
    """Share of the fields of either that both have alike: 1 for equal ones."""
    mine, theirs = dict(_leaves(answer, "")), dict(_leaves(winner, ""))
    paths = mine.keys() | theirs.keys()
    return sum(mine.get(path) == theirs.get(path) for path in paths) / len(paths)


def _decide(answers: list[Any], weights: list[float], left: int, path: str, ballot: Ballot) -> Any:
    kinds = [_kind(answer) for answer in answers]
    kind = _plurality(kinds, weights)
    ballot.still = max(ballot.still, _still(kinds, left))
    chosen = [at for at, each in enumerate(kinds) if each == kind]
    if kind == LIST:
        return _decide_list([answers[at] for at in chosen], left, path, ballot)
    if kind != OBJECT or len(chosen) < len(kinds):
        ballot.shares[path] = _shares(kinds)
    if kind != OBJECT:
        return answers[chosen[0]]
    return _decide_object([answers[at] for at in chosen], [weights[at] for at in chosen], left, path, ballot)


def _decide_object(
    answers: list[Any], weights: list[float], left: int, path: str, ballot: Ballot
) -> dict[str, Any]:
    decided = {}
    for key in dict.fromkeys(key for answer in answers for key in answer):
        values = [answer.get(key, ABSENT) for answer in answers]
        winner = _decide(values, weights, left, f"{path}.{key}" if path else str(key), ballot)
        if winner is not ABSENT:
            decided[key] = winner
    return decided


def _decide_list(answers: list[list[Any]], left: int, path: str, ballot: Ballot) -> list[Any]:
    number = len(answers)
    sets = [dict(zip(map(_key, answer), answer, strict=True)) for answer in answers]
    votes: dict[str, int] = {}
    for each in sets:
        for key in each:
            votes[key] = votes.get(key, 0) + 1
    ballot.shares[path] = {key: count / number for key, count in votes.items()}
    for count in (*votes.values(), 0):  # 0: a value that nobody has said yet
        ballot.still = max(ballot.still, _still_above_half(count, number, left))
    kept = {key for key, count in votes.items() if 2 * count > number}
    fullest = max(sets, key=lambda each: len(kept & each.keys()))
    values = {key: value for each in sets for key, value in each.items()}
    order = [key for key in (*fullest, *votes) if key in kept]
    return [values[key] for key in dict.fromkeys(order)]


def _plurality(keys: list[str], weights: list[float]) -> str:
    counts = _counts(keys)
    most = max(counts.values())
    tied = [at for at, key in enumerate(keys) if counts[key] == most]
    return keys[max(tied, key=lambda at: (weights[at], -at))]


def _still(keys: list[str], left: int) -> int:
    """Answers after which the leader, if all were its own, could not be caught by those that are left
    then."""
    first, second = (*sorted(_counts(keys).values(), reverse=True), 0)[:2]
    if first > second + left:
        return 0
    return min((second + left - first) // 2 + 1, left)


def _still_above_half(count: int, number: int, left: int) -> int:
    """The same for "more than half of all", which a value has, or cannot have any more."""
    total = number + left
    if 2 * count > total or 2 * (count + left) <= total:
        return 0
    to_win = total // 2 + 1 - count
    to_lose = count + left - total // 2
    return min(to_win, to_lose, left)


def _counts(keys: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return counts


def _shares(keys: list[str]) -> dict[str, float]:
    return {key: count / len(keys) for key, count in sorted(_counts(keys).items(), key=lambda each: -each[1])}


def _kind(answer: Any) -> str:
    """Objects and plain lists are first counted as such, everything else as what it is."""
    if isinstance(answer, Mapping):
        return OBJECT
    plain = isinstance(answer, list) and not any(isinstance(value, (dict, list)) for value in answer)
    return LIST if plain else _key(answer)


def _key(answer: Any) -> str:
    """Equal for equal values, whatever the order of keys within; 1 and 1.0 are equal, 1 and true are not."""
    if answer is ABSENT:
        return repr(ABSENT)
    if isinstance(answer, str):
        return json.dumps(answer, ensure_ascii=False)
    return json.dumps(_plain_numbers(answer), ensure_ascii=False, sort_keys=True)


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(each) for each in value]
    return value


def _leaves(value: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, each in value.items() for leaf in _leaves(each, f"{path}.{key}")]
    return [(path, _key(value))]
