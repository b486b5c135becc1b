"""How often a model is right on questions like this one: the confidence that it is taught to state.

Whether the replies to one question are right jumps between 0 and 1 among questions that look alike to the
model, and no model can learn to tell what it cannot tell. So the confidence is the rightness of the most
frequent replies to all questions of a group (Lin et al. 2022, arXiv:2205.14334): of one kind and
part and, with several `levels`, of similar agreement, the share of the replies to a question that are the
same one (self-consistency, Wang et al. 2022, arXiv:2203.11171).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from glasshouse.alignment.self_knowledge import Knowledge

FEW = 20
"""Questions below which a group is joined with all others: the share of fewer is noise."""


def confidences(known: Sequence[Knowledge], levels: int) -> list[float]:
    """For each question the probability that the model's most frequent reply is right.

    Replies that say "I do not know" are a group of their own whatever was asked: who takes a person for a
    stranger cannot tell the real strangers from the others. Of a bet it is the favourite's share of the
    samples: there agreement is the belief itself.
    """
    found = [row.share for row in known]
    groups: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(known):
        if not row.is_bet:
            groups.setdefault(("(does not know)" if row.abstains else row.kind, row.part), []).append(i)
    graded = [i for members in groups.values() for i in members]
    for members in groups.values():
        for alike in by_agreement(known, members, levels):
            seen = alike if len(alike) >= FEW else graded
            right = sum(known[i].reply == known[i].right_reply for i in seen) / len(seen)
            for i in alike:
                found[i] = right
    return found


def by_agreement(known: Sequence[Knowledge], members: Sequence[int], levels: int) -> list[list[int]]:
    """The members in up to `levels` parts of rising agreement, about equally large; equal ones together."""
    ordered = sorted(known[i].agreement for i in members)
    parts: dict[int, list[int]] = {}
    for i in members:
        below = bisect.bisect_left(ordered, known[i].agreement)
        equal = bisect.bisect_right(ordered, known[i].agreement) - below
        parts.setdefault(int(levels * (below + equal / 2) / len(ordered)), []).append(i)
    return [parts[level] for level in sorted(parts)]
