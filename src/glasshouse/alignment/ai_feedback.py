"""What a critic makes of a policy's replies: critiques with revisions, and preference pairs, as rows.

The two data sets of Constitutional AI (constitutional.py). Every sample and every draw of a principle has
a seed of its own, so that the same call gives the same rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from glasshouse.alignment.constitution import Constitution, Principle
from glasshouse.alignment.critique import Comparison, Critic, Draft
from glasshouse.core.config import Config
from glasshouse.core.errors import DataError
from glasshouse.core.progress import say
from glasshouse.core.seeds import derive, python_rng
from glasshouse.llm import LocalLLM, Request, complete_all

Row = dict[str, Any]


class FeedbackConfig(Config):
    """What is sampled, and how it is judged."""

    rounds: int = Field(4, ge=1)  # principles that a reply is held against (the paper's number), none twice
    max_new_tokens: int = Field(96, ge=1)  # of a reply
    temperature: float = Field(1.0, gt=0)  # of the replies that are judged
    comparisons: int = Field(1, ge=0)  # pairs of sampled replies to each prompt
    contrasts: int = Field(1, ge=0)  # pairs of a reply with one to another prompt, for each prompt
    ai_share: float = Field(1.0, ge=0, le=1)  # of the pairs: labelled by the critic; the others by raters
    validation_fraction: float = Field(0.1, ge=0, lt=0.5)  # of the prompts, whose pairs measure the model
    seed: int = 0
    device: str = "auto"


class Labeller(Protocol):
    """Whoever can choose between two replies; a `Critic` can."""

    @property
    def name(self) -> str: ...

    def choose(self, comparisons: Sequence[Comparison]) -> list[int | None]: ...


def write_critiques(
    policy: Path,
    examples: Sequence[Mapping[str, Any]],
    constitution: Constitution,
    critic: Critic,
    config: FeedbackConfig,
) -> list[Row]:
    """One row for each prompt: the policy's reply, and what became of it round by round.

    `principle` and `critique` are those of the last round that changed the reply, else of the last round;
    `rounds` has them all, with a revision where there was one.
    """
    replies = [said for (said,) in sample(policy, examples, 1, "critiques", config)]
    texts = list(replies)
    drawn = [_drawn(constitution, config, "critiques", number) for number in range(len(examples))]
    rounds: list[list[Row]] = [[] for _ in examples]
    for step in range(min(config.rounds, len(constitution.principles))):
        drafts = [
            Draft(example["prompt"], text, principles[step])
            for example, text, principles in zip(examples, texts, drawn, strict=True)
        ]
        for place, (draft, revision) in enumerate(zip(drafts, critic.revise(drafts), strict=True)):
            texts[place] = revision.text
            told = {"principle": draft.principle.name, "critique": revision.critique}
            changed = {"revision": revision.text} if revision.text != draft.reply else {}
            rounds[place].append(told | changed)
    rows = []
    for example, reply, text, course in zip(examples, replies, texts, rounds, strict=True):
        telling = next((each for each in reversed(course) if "revision" in each), course[-1])
        row = {"prompt": example["prompt"], "reply": reply, "principle": telling["principle"]}
        row |= {"critique": telling["critique"], "revision": text, "rounds": course}
        rows.append(row | ({"kind": example["kind"]} if "kind" in example else {}))
    return rows


def about_critiques(rows: Sequence[Row]) -> dict[str, Any]:
    """How many replies were changed, and by which principles."""
    changed = [each["principle"] for row in rows for each in row["rounds"] if "revision" in each]
    revised = sum(row["revision"] != row["reply"] for row in rows)
    return {"replies": len(rows), "revised": revised, "revised_by": dict(Counter(changed))}


def write_comparisons(
    policy: Path,
    examples: Sequence[Mapping[str, Any]],
    critiques: Sequence[Row],
    constitution: Constitution,
    labellers: tuple[Labeller, Labeller | None],
    config: FeedbackConfig,
) -> list[Row]:
    """Preference pairs: two replies to a prompt that a principle, or a rater, tells apart.

    A pair that the drawn principle does not tell apart goes to the next one, up to `rounds`. Raises DataError
    when none is told apart.
    """
    pairs = _pairs(policy, examples, critiques, config)
    by_critic = [
        derive(config.seed, "label", number) / 2**63 < config.ai_share for number in range(len(pairs))
    ]
    rows: list[Row | None] = [None] * len(pairs)
    for labeller, wanted, rounds in ((labellers[0], True, config.rounds), (labellers[1], False, 1)):
        left = [place for place in range(len(pairs)) if by_critic[place] == wanted]
        drawn = {place: _drawn(constitution, config, "comparisons", place) for place in left}
        for step in range(min(rounds, len(constitution.principles))):
            if not left or labeller is None:
                break
            asked = [
                Comparison(pairs[place].example["prompt"], pairs[place].replies, drawn[place][step])
                for place in left
            ]
            for place, one, better in zip(left, asked, labeller.choose(asked), strict=True):
                if better is not None:
                    principle = one.principle.name if wanted else None
                    rows[place] = _row(pairs[place], better, principle, labeller.name, config)
            left = [place for place in left if rows[place] is None]
    told = [row for row in rows if row is not None]
    if not any(not row["held_out"] for row in told):
        raise DataError(
            f"no two replies were told apart, of {len(pairs)} pairs that differ",
            fix="choose another critic, or more prompts",
        )
    say(f"{len(told):,} of {len(pairs):,} pairs of replies were told apart")
    return told


@dataclass(frozen=True)
class _Pair:
    example: Mapping[str, Any]
    replies: tuple[str, str]
    made: str  # "sampled" twice; "revised", against the first reply; one of them of an "other prompt"


def _pairs(
    policy: Path, examples: Sequence[Mapping[str, Any]], critiques: Sequence[Row], config: FeedbackConfig
) -> list[_Pair]:
    """Pairs of different replies, each once."""
    samples = sample(policy, examples, max(1, 2 * config.comparisons), "comparisons", config)
    found: dict[tuple[int, tuple[str, str]], str] = {}
    for number, said in enumerate(samples):
        for pair in zip(said[::2], said[1::2], strict=False):
            found.setdefault((number, pair), "sampled")
    for number, row in enumerate(critiques):
        found.setdefault((number, (row["reply"], row["revision"])), "revised")
    for number, said in enumerate(samples):
        rng = python_rng(config.seed, "other prompts", number)
        for _ in range(config.contrasts):
            other = samples[rng.randrange(len(samples))][0]
            found.setdefault((number, (said[0], other)), "other prompt")
    return [
        _Pair(examples[number], replies, made)
        for (number, replies), made in found.items()
        if replies[0].strip() and replies[1].strip() and replies[0].strip() != replies[1].strip()
    ]


def _row(pair: _Pair, better: int, principle: str | None, labelled_by: str, config: FeedbackConfig) -> Row:
    """A row of the usual preference shape. Which are held out depends on the prompt alone."""
    prompt = pair.example["prompt"]
    number = derive(0, json.dumps(prompt, sort_keys=True)) / 2**63
    row = {
        "prompt": prompt,
        "chosen": [turn(pair.replies[better])],
        "rejected": [turn(pair.replies[1 - better])],
        "principle": principle,
        "made": pair.made,
        "labelled_by": labelled_by,
        "held_out": number < config.validation_fraction,
    }
    return row | ({"kind": pair.example["kind"]} if "kind" in pair.example else {})


def sample(
    policy: Path, examples: Sequence[Mapping[str, Any]], count: int, name: str, config: FeedbackConfig
) -> list[list[str]]:
    """`count` replies of the policy to each prompt; the stream `name` is independent of others."""
    requests = [
        Request.parse(
            {
                "messages": example["prompt"],
                "max_new_tokens": config.max_new_tokens,
                "temperature": config.temperature,
                "seed": derive(config.seed, "samples", name, number, choice),
            }
        )
        for number, example in enumerate(examples)
        for choice in range(count)
    ]
    with LocalLLM.load(policy, config.device, raw=True) as llm:
        said = [done.text for done in complete_all(llm, requests)]
    return [said[start : start + count] for start in range(0, len(said), count)]


def _drawn(constitution: Constitution, config: FeedbackConfig, name: str, number: int) -> list[Principle]:
    return constitution.draw(python_rng(config.seed, "principles", name, number), config.rounds)


def turn(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
