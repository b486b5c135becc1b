"""When a cheap tier's answer is good enough, found on labelled requests, with the evidence for it.

The requests are split once. On the first part every rule is tried out: at which confidence to accept each
tier's answer, and how likely to be right a tier must look, from the request's words, to be asked at all. The
rules that are cheapest at their error rate are put in a row, from careful to bold. On the second part they
are tested in that order (risk_control.py), and the boldest that passes is the policy. So with probability
1 - delta over the sample, at most epsilon of what is accepted is wrong. With many tiers this is one bound for
all but the last together: a rule sets every tier's threshold, so no budget need be split.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from glasshouse.classify import TextClassifier
from glasshouse.core.config import Config
from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.core.seeds import numpy_rng
from glasshouse.core.storage import read_json, write_json
from glasshouse.llm.risk_control import fixed_sequence, least_rows, upper_bound
from glasshouse.llm.routing_rules import Rule, outcome_of, path_of
from glasshouse.llm.routing_samples import Sample, Table, table_of

DESIGN_SHARE = 1 / 3
"""Of the labelled requests, for finding rules. The others are for testing them: the larger, the tighter."""

Threshold = float | Literal["always", "never"]


class Evidence(Config):
    """What a policy rests on. Counts are of the requests that it was tested on, and not designed on."""

    epsilon: float
    delta: float
    proved: bool
    n: int  # requests tested on
    designed_on: int
    accepted: int  # of n, answered by a tier that is not the last
    errors: int  # of the accepted
    p_value: float | None  # of "the error rate is above epsilon"
    bound: float | None  # Clopper-Pearson at 1 - delta; None where nothing was accepted
    tested: int  # rules, in their order, the last of them perhaps in vain
    answered: tuple[float, ...]  # share of each tier
    asked: tuple[float, ...]  # share of requests for which each tier was asked
    error_rate: float  # of all answers together, the last tier's too
    last_error_rate: float  # had the last tier answered all
    saved: float  # share of what asking the last tier always would cost
    unit: Literal["US dollars", "given"]
    cost: float  # of a request, on average
    last_cost: float  # of a request to the last tier
    seed: int
    date: str
    why: str = ""  # where nothing is proved


class Policy(Config):
    """Rules of a cascade; made by `calibrate`, or by hand and without a guarantee.

    `accept`: for each tier but the last, the confidence from which its answer is taken; "always": its answer
    is taken unseen; "never": it is not asked. `begin`: a tier is asked only if the difficulty classifier
    gives it this probability of being enough.
    """

    accept: tuple[Threshold, ...] = Field(min_length=1)
    begin: float = Field(0.0, ge=0, le=1)
    tiers: tuple[str, ...] = ()  # names; () for any
    confidence: str | None = None  # its name
    evidence: Evidence | None = None

    @property
    def guarantee(self) -> str:
        """One sentence."""
        e = self.evidence
        if e is None:
            return "no guarantee: the thresholds were set by hand, not on a labelled sample"
        if not e.proved:
            return f"no threshold keeps errors to {e.epsilon:g}: everything goes to the last tier ({e.why})"
        return (
            f"at most {e.epsilon:.3g} of the accepted answers are wrong, with probability {1 - e.delta:.3g}"
            f" ({e.errors} of {e.accepted} were, on {e.n} requests like these)"
        )

    def save(self, path: str | Path) -> None:
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Raises DataError for no JSON, ConfigError for a key or value that is none of a policy's."""
        told = read_json(path)
        if not isinstance(told, dict):
            raise ConfigError("not a policy", where=path, fix="`calibrate` makes one")
        return cls.parse(told, str(path))


def calibrate(
    samples: Sequence[Sample],
    epsilon: float,
    delta: float = 0.1,
    *,
    classifier: TextClassifier | None = None,
    costs: Sequence[float] | None = None,
    tiers: Sequence[str] = (),
    confidence: str | None = None,
    seed: int = 0,
) -> Policy:
    """The cheapest rules of which it is proved that at most `epsilon` of the accepted answers are wrong, with
    probability 1 - `delta` over the sample.

    `classifier` (train_difficulty) must have been trained on other requests. `costs`: of a request to each
    tier in any unit, where the samples do not tell; with a confidence that asks several times, all of them.
    `tiers` and `confidence`: names that the policy is for. Where nothing can be proved, the policy sends all
    to the last tier, and its evidence says why. Raises DataError for samples that do not fit together.
    """
    if not (0 < epsilon < 1 and 0 < delta < 1):
        raise UsageError("epsilon and delta are probabilities", fix="for example epsilon=0.05, delta=0.1")
    table, unit = table_of(samples, classifier, costs)
    if tiers and len(tiers) != table.right.shape[1]:
        raise UsageError(f"{len(tiers)} tiers are named, the samples have {table.right.shape[1]}")
    if (table.sure is None) != (confidence is None):
        raise UsageError(
            "samples have confidences just if a confidence is named",
            fix="confidence=MeanLogprob().name, say",
        )
    rule, evidence = prove(table, epsilon, delta, seed, unit)
    names: dict[float, Threshold] = {-math.inf: "always", math.inf: "never"}
    return Policy(
        accept=tuple(names.get(level, level) for level in rule.accept),
        begin=rule.begin,
        tiers=tuple(tiers),
        confidence=confidence,
        evidence=evidence,
    )


def prove(
    table: Table, epsilon: float, delta: float, seed: int, unit: Literal["US dollars", "given"] = "given"
) -> tuple[Rule, Evidence]:
    """Design on one part, test on the other; the whole of `calibrate` once the samples are in columns."""
    n, tiers = table.right.shape
    order = numpy_rng(seed, "routing").permutation(n)
    part = math.ceil(n * DESIGN_SHARE)
    design, proof = table.rows(order[:part]), table.rows(order[part:])
    tested = n - part
    path = path_of(design, epsilon, tested / part)
    outcomes = [outcome_of(rule, proof) for rule in path]
    ps = fixed_sequence(((o.errors, o.accepted) for o in outcomes), epsilon, delta)
    passed = len(ps) - (1 if ps and ps[-1] > delta else 0)
    rule, why = Rule((math.inf,) * (tiers - 1)), ""
    if passed:
        rule = path[passed - 1]
    elif tested < least_rows(epsilon, delta):
        least = math.ceil(least_rows(epsilon, delta) / (1 - DESIGN_SHARE))
        why = f"{n} labelled requests are too few: the very least is {least}"
    elif not path:
        why = "no tier was right often enough at any confidence"
    else:
        first = outcomes[0]
        why = f"{first.errors} of {first.accepted} accepted answers were wrong, p = {ps[0]:.2g}"
    found = outcome_of(rule, proof)
    last_cost = float(proof.cost[:, -1].mean())
    right = proof.right[np.arange(tested), found.answers]
    return rule, Evidence(
        epsilon=epsilon,
        delta=delta,
        proved=passed > 0,
        n=tested,
        designed_on=part,
        accepted=found.accepted,
        errors=found.errors,
        p_value=ps[passed - 1] if passed else None,
        bound=upper_bound(found.errors, found.accepted, delta) if found.accepted else None,
        tested=len(ps),
        answered=tuple(float((found.answers == t).mean()) for t in range(tiers)),
        asked=tuple(found.asked.mean(axis=0).tolist()),
        error_rate=float(1 - right.mean()),
        last_error_rate=float(1 - proof.right[:, -1].mean()),
        saved=1 - found.cost / last_cost,
        unit=unit,
        cost=found.cost,
        last_cost=last_cost,
        seed=seed,
        date=datetime.date.today().isoformat(),
        why=why,
    )
