"""How well a model knows what it knows, before and after calibration, with temperature scaling beside it.

All on questions that calibration did not learn from, each asked twice: with "how sure are you?", and with a
penalty stated. Their first half is what the baseline's one temperature is fitted on, so that confidences are
compared on the second half alone.

    {"before" | "after": {"figures", "simpleqa", "reliability", "risk_coverage", "replies", "graded"},
     "temperature": {"before" | "after": {"temperature", "as_it_is", "scaled"}}, "figures"}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glasshouse.alignment.temperature_scaling import TEMPERATURES, fit_temperature, reply_probabilities
from glasshouse.core.seeds import python_rng
from glasshouse.evaluation import confidence, knowledge
from glasshouse.evaluation.knowledge import Question
from glasshouse.evaluation.suite import replier
from glasshouse.inference import LanguageModel

Rows = list[dict[str, Any]]


def quality(
    before: str | Path, after: str | Path, questions: Sequence[Question], device: str, seed: int
) -> dict[str, Any]:
    """Both models on the same questions in the same wordings; see above for the shape."""
    rng = python_rng(seed, "wordings")
    asked = list(questions)
    rng.shuffle(asked)
    rules = [confidence.PENALTY.draw(rng, "heldout") for _ in asked]
    how_sure = [confidence.HOW_SURE.draw(rng, "heldout") for _ in asked]
    found: dict[str, Any] = {"temperature": {}, "figures": {}}
    for name, folder in (("before", before), ("after", after)):
        model = LanguageModel.load(folder, device=device)
        rows = knowledge.stated(asked, how_sure, replier(model))
        facts = [i for i, question in enumerate(asked) if question.bet is None]  # nobody can know a spin
        graded = knowledge.penalised(
            [asked[i] for i in facts], [rules[i] for i in facts], knowledge.THRESHOLD, replier(model)
        )
        scaled = token_probabilities(model, asked)
        tested = rows[len(rows) // 2 :]
        score = knowledge.simpleqa([row["grade"] for row in graded])
        found[name] = {
            "figures": confidence.figures(tested),
            "simpleqa": {key: estimate.as_dict() for key, estimate in score.items()},
            **curves(tested),
            "replies": [{**row, "prompt": q.messages} for row, q in zip(rows, asked, strict=True)],
            "graded": [{**row, "prompt": asked[i].messages} for row, i in zip(graded, facts, strict=True)],
        }
        found["temperature"][name] = scaled
        found["figures"][name] = {
            **found[name]["figures"],
            "simpleqa_score": score["simpleqa_score"].value,
            **{f"token_{key}": scaled["as_it_is"]["figures"][key] for key in ("ece", "brier_skill")},
            **{f"scaled_{key}": scaled["scaled"]["figures"][key] for key in ("ece", "brier_skill")},
        }
    return found


def token_probabilities(model: LanguageModel, questions: Sequence[Question]) -> dict[str, Any]:
    """The baseline: the probability of each plain reply, as it is and at the fitted temperature."""
    conversations = [question.messages for question in questions]
    replies = replier(model)(conversations, knowledge.REPLY_TOKENS)
    right = np.array([q.right(reply) for q, reply in zip(questions, replies, strict=True)])
    sure = reply_probabilities(model, conversations, replies)  # (questions, temperatures)
    half = len(questions) // 2
    best = fit_temperature(sure[:half], right[:half])

    def judged(column: int) -> dict[str, Any]:
        pairs = zip(sure[half:, column].tolist(), right[half:].tolist(), strict=True)
        rows = [{"stated": s, "right": q} for s, q in pairs]
        return {"figures": confidence.figures(rows), **curves(rows)}

    one = TEMPERATURES.index(1.0)
    return {"temperature": TEMPERATURES[best], "as_it_is": judged(one), "scaled": judged(best)}


def curves(rows: Rows) -> dict[str, Any]:
    """What the report draws."""
    stated, right = [row["stated"] for row in rows], [row["right"] for row in rows]
    return {
        "reliability": confidence.reliability(stated, right),
        "risk_coverage": confidence.risk_coverage(stated, right),
    }
