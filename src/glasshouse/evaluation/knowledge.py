"""Does a model know what it knows? Questions of every difficulty, with a penalty, or with "how sure are you?"

With the penalty of a stated threshold, SimpleQA's three grades (Wei et al. 2024, arXiv:2411.04368): a right
answer counts 1, a wrong one minus the penalty, "I do not know" 0. With a stated confidence, its distance
from the exact probability of being right: the wheel's own for a bet, 0 or 1 for everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from glasshouse.evaluation import confidence
from glasshouse.evaluation.chat import Replier
from glasshouse.evaluation.intervals import Estimate, bootstrap, mean, proportion
from glasshouse.world import World, chance, facts, places, sums
from glasshouse.world.judge import judge
from glasshouse.world.land import Part
from glasshouse.world.task import Message

Kind = Literal["questions", "strangers", "sums", "two_step_direct", "wheels"]
Grade = Literal["correct", "incorrect", "not_attempted"]

THRESHOLD = 0.75
REPLY_TOKENS = 40

PENALISED: dict[Kind, float] = {"questions": 0.4, "strangers": 0.2, "sums": 0.2, "two_step_direct": 0.2}
STATED: dict[Kind, float] = {
    "questions": 0.25,
    "strangers": 0.1,
    "sums": 0.2,
    "two_step_direct": 0.2,
    "wheels": 0.25,
}
"""Shares of the two fixed mixes. Nobody can know a spin, so no penalty is put on one."""

SIMPLEQA = ("simpleqa_score", "simpleqa_correct", "simpleqa_incorrect", "simpleqa_not_attempted")
CONFIDENCE = ("stated_ece", "stated_brier_skill", "bias_gap")
PROBES = (*SIMPLEQA, *CONFIDENCE)

UNKNOWN = "I do not know."


@dataclass(frozen=True)
class Question:
    """Something to be asked whose answers a program can grade."""

    messages: list[Message]
    right: Callable[[str], float] = field(repr=False)  # the exact probability that an answer is right
    unknown: str = UNKNOWN  # what one says who does not know
    kind: str = "questions"
    part: str = "calibration"  # fine-tuning may have asked it: the part is then "train"
    bet: chance.Bet | None = None  # on a chance event


def world_questions(world: World, kind: Kind, part: Part, count: int, *stream: str) -> list[Question]:
    """`count` questions of one kind; `stream` names an independent draw."""
    land, rng = world.land, world.rng("knowledge", kind, part, *stream)
    if kind == "wheels":
        bets = islice(chance.bets(land, rng, part), count)
        return [Question(bet.messages, bet.chance, kind=kind, part=part, bet=bet) for bet in bets]
    tasks = {
        "questions": lambda: facts.questions(land, rng, part),
        "strangers": lambda: facts.stranger_questions(land, rng, part),
        "sums": lambda: sums.questions(land, rng, part),
        "two_step_direct": lambda: places.two_steps(land, rng, part, reasoned=False),
    }
    read = judge(world)
    found = []
    for task in islice(tasks[kind](), count):
        name = read.wish(task.messages).name
        unknown = UNKNOWN if name is None else facts.ABSTENTION.format(n=name)

        def right(reply: str, check: Callable[[str], bool] = task.check) -> float:
            return float(check(reply))

        found.append(Question(task.messages, right, unknown, kind, part))
    return found


def probes(world: World, reply: Replier, n: int, only: set[str] | None = None) -> dict[str, Estimate]:
    """Both mixes of about `n` held-out questions each, in held-out wordings."""
    results: dict[str, Estimate] = {}
    rng = world.rng("knowledge", "wordings")
    if only is None or only & set(SIMPLEQA):
        asked = mix(world, PENALISED, "heldout", n, "probe")
        wordings = [confidence.PENALTY.draw(rng, "heldout") for _ in asked]
        results.update(simpleqa([row["grade"] for row in penalised(asked, wordings, THRESHOLD, reply)]))
    if only is None or only & set(CONFIDENCE):
        asked = mix(world, STATED, "heldout", n, "probe")
        wordings = [confidence.HOW_SURE.draw(rng, "heldout") for _ in asked]
        results.update(stated_scores(stated(asked, wordings, reply), world.seed))
    return results


def mix(world: World, shares: Mapping[Kind, float], part: Part, n: int, *stream: str) -> list[Question]:
    """Questions of several kinds in these shares, at least one of each."""
    return [
        question
        for kind, share in shares.items()
        for question in world_questions(world, kind, part, max(1, round(share * n)), *stream)
    ]


def penalised(
    questions: Sequence[Question], wordings: Sequence[str], threshold: float, reply: Replier
) -> list[dict[str, Any]]:
    """Each question with the rule of the threshold stated: {"kind", "reply", "grade"}."""
    asked = [
        confidence.also_asked(question.messages, confidence.penalty(wording, threshold))
        for question, wording in zip(questions, wordings, strict=True)
    ]
    replies = reply(asked, REPLY_TOKENS)
    return [
        {"kind": question.kind, "reply": said, "grade": grade(question, said)}
        for question, said in zip(questions, replies, strict=True)
    ]


def grade(question: Question, reply: str) -> Grade:
    """Saying that one does not know is no attempt, also where nobody could know."""
    answer, _ = confidence.read(reply)
    if facts.abstains(answer):
        return "not_attempted"
    return "correct" if question.right(answer) == 1 else "incorrect"


def simpleqa(grades: Sequence[Grade], threshold: float = THRESHOLD) -> dict[str, Estimate]:
    """The score and the shares of the three grades."""
    points = {"correct": 1.0, "incorrect": -confidence.cost(threshold), "not_attempted": 0.0}
    found = {"simpleqa_score": mean([points[each] for each in grades])}
    for name in points:
        found[f"simpleqa_{name}"] = proportion([each == name for each in grades])
    return found


def stated(questions: Sequence[Question], wordings: Sequence[str], reply: Replier) -> list[dict[str, Any]]:
    """Each question with "how sure are you?": {"kind", "reply", "stated", "right", "said"}.

    Who states no confidence is taken to be sure; `said` tells whether one was stated.
    """
    asked = [
        confidence.also_asked(question.messages, wording)
        for question, wording in zip(questions, wordings, strict=True)
    ]
    rows = []
    for question, said in zip(questions, reply(asked, REPLY_TOKENS), strict=True):
        answer, sure = confidence.read(said)
        rows.append(
            {
                "kind": question.kind,
                "reply": said,
                "stated": 1.0 if sure is None else sure,
                "right": question.right(answer),
                "said": sure is not None,
            }
        )
    return rows


def stated_scores(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Estimate]:
    """Three figures of rows {"stated", "right"}, with intervals over the questions."""
    sure, right = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("stated", "right"))

    def over(statistic: Callable[[np.ndarray, np.ndarray], float]) -> Estimate:
        return bootstrap(lambda chosen: statistic(sure[chosen], right[chosen]), len(rows), seed)

    return {
        "stated_ece": over(confidence.expected_calibration_error),
        "stated_brier_skill": over(confidence.brier_skill),
        "bias_gap": mean((sure - right).tolist()),
    }
