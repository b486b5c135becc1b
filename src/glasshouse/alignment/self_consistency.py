"""How often a model is right when it agrees with itself so much: the confidence that it is taught to state.

The share of a question's replies that are right is known only where the right answer is, and jumps between 0
and 1 from one question to the next that looks the same to the model. What a model can learn to tell is how
often it is right on questions like this one. So the confidence of a reply is the rightness of all most
frequent replies to questions of its kind, as a never falling function of their agreement: the share of the
replies that are this one (self-consistency, Wang et al. 2022, arXiv:2203.11171; isotonic regression, Zadrozny
and Elkan 2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glasshouse.alignment.self_knowledge import Knowledge

FEW = 30
"""Questions of a kind below which all kinds are taken together: a curve of fewer is noise."""


def confidences(known: Sequence[Knowledge]) -> list[float]:
    """For each question the probability that the model's most frequent reply is right.

    Of a bet that is its share of the samples: there agreement is the belief itself.
    """
    found = np.array([row.share for row in known])
    graded = [i for i, row in enumerate(known) if not row.is_bet]
    kinds = {known[i].kind for i in graded}
    rest: list[int] = []
    for kind in sorted(kinds):
        members = [i for i in graded if known[i].kind == kind]
        if len(members) < FEW:
            rest += members
        else:
            found[members] = _rightness(known, members, members)
    if rest:
        found[rest] = _rightness(known, graded, rest)
    return found.tolist()


def _rightness(known: Sequence[Knowledge], fitted: Sequence[int], wanted: Sequence[int]) -> np.ndarray:
    """The curve fitted on some questions, at the agreement of others."""
    from sklearn.isotonic import IsotonicRegression

    right = [float(known[i].reply == known[i].right_reply) for i in fitted]
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    curve.fit([known[i].agreement for i in fitted], right)
    return curve.predict([known[i].agreement for i in wanted])
