"""What a model knows, measured: each question asked many times, each reply graded by a program.

The share of replies at temperature 1 that are right is the model's own probability of being right
(Kadavath et al. 2022, arXiv:2207.05221, call it P(IK)). A chance event has no right reply: there a model's
belief is how often it goes on with each outcome when it writes about the event.

    answers.jsonl     {"prompt", "kind", "part", "unknown", "reply", "right_reply", "share", "samples"} a line
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.rollouts import sample_replies
from glasshouse.core.progress import bar
from glasshouse.core.seeds import derive
from glasshouse.core.storage import write_text
from glasshouse.evaluation.knowledge import Question
from glasshouse.inference import LanguageModel
from glasshouse.world.chance import Bet
from glasshouse.world.facts import abstains

AT_ONCE = 512
"""Replies that are sampled together."""

OUTCOME_TOKENS = 6
"""Longest continuation that names the outcome of a chance event."""


@dataclass(frozen=True)
class Knowledge:
    """One question and what the model makes of it."""

    prompt: list[dict[str, Any]]
    kind: str
    part: str
    unknown: str  # what one says who does not know
    reply: str  # its most frequent reply
    right_reply: str | None  # its most frequent right reply
    share: float  # of replies that are right; of a bet, how often it sees its favourite
    samples: list[dict[str, Any]] = field(default_factory=list)  # {"text", "count", "right"}

    @property
    def is_bet(self) -> bool:
        """On a chance event, where no reply is right or wrong."""
        return not any("right" in sample for sample in self.samples)

    @property
    def abstains(self) -> bool:
        """Whether the most frequent reply is that it does not know."""
        return abstains(self.reply)

    @property
    def agreement(self) -> float:
        """The share of the replies that are the most frequent one."""
        return self.samples[0]["count"] / sum(sample["count"] for sample in self.samples)


def measure(
    model: LanguageModel, questions: Sequence[Question], samples: int, max_new_tokens: int, seed: int
) -> list[Knowledge]:
    """Ask every question `samples` times; a pure function of the weights and the arguments.

    Raises DataError for an empty prompt, or when all are too long to be answered within the context.
    """
    asked = [question for question in questions if question.bet is None]
    found: dict[int, Knowledge] = {}
    if asked:
        longest = model.context - max_new_tokens
        rows = [{"prompt": question.messages, "place": i} for i, question in enumerate(asked)]
        prompts = Prompts.encode(rows, model.tokenizer, longest)
        replies = _sample(model, prompts.ids, samples, max_new_tokens, seed, "asking the model")
        for row, texts in zip(prompts.examples, replies, strict=True):
            question = asked[row["place"]]
            found[id(question)] = tally(question, texts)
    for question, knowledge in _beliefs(model, [q for q in questions if q.bet is not None], samples, seed):
        found[id(question)] = knowledge
    return [found[id(question)] for question in questions if id(question) in found]


def tally(question: Question, texts: Sequence[str]) -> Knowledge:
    """The replies to one question, the most frequent first; of equally frequent ones the first said."""
    counts = Counter(texts).most_common()
    graded = [{"text": text, "count": count, "right": question.right(text)} for text, count in counts]
    right = [each["text"] for each in graded if each["right"] == 1]
    return Knowledge(
        list(question.messages),
        question.kind,
        question.part,
        question.unknown,
        counts[0][0],
        right[0] if right else None,
        sum(each["count"] * each["right"] for each in graded) / len(texts),
        graded,
    )


def _beliefs(
    model: LanguageModel, questions: Sequence[Question], samples: int, seed: int
) -> Iterator[tuple[Question, Knowledge]]:
    """How often the model goes on with each outcome, over all wordings of the event together."""
    bets: dict[str, Bet] = {q.bet.wheel.town: q.bet for q in questions if q.bet is not None}
    if not bets:
        return
    starts = [(town, text) for town, bet in bets.items() for text in bet.beginnings]
    tokenizer = model.tokenizer
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for _, text in starts]
    texts = _sample(model, prompts, 2 * samples, OUTCOME_TOKENS, derive(seed, "bets"), "watching it bet")
    seen: dict[str, Counter[str]] = {town: Counter() for town in bets}
    for (town, _), continued in zip(starts, texts, strict=True):
        for text in continued:
            named = [colour for colour in bets[town].replies if text.strip().startswith(colour)]
            seen[town].update(named or ["something else"])
    for question in questions:
        assert question.bet is not None
        counts, replies = seen[question.bet.wheel.town], question.bet.replies
        favourite = max(replies, key=lambda colour: counts[colour])
        yield (
            question,
            Knowledge(
                list(question.messages),
                question.kind,
                question.part,
                question.unknown,
                replies[favourite],
                replies[favourite],
                counts[favourite] / counts.total(),
                [{"text": each, "count": count} for each, count in counts.most_common()],
            ),
        )


def _sample(
    model: LanguageModel, prompts: Sequence[list[int]], samples: int, longest: int, seed: int, title: str
) -> list[list[str]]:
    """Texts of `samples` replies to each prompt."""
    together = max(1, AT_ONCE // samples)
    texts: list[list[str]] = []
    with bar(title, len(prompts) * samples, "replies") as progress:
        for first in range(0, len(prompts), together):
            some = prompts[first : first + together]
            seeds = [derive(seed, "reply", first + i) for i in range(len(some))]
            groups = sample_replies(model.model, model.tokenizer, some, seeds, samples, longest)
            texts += [[reply.text for reply in group] for group in groups]
            progress.update(len(texts) * samples)
    return texts


def write_knowledge(rows: Iterable[Knowledge], path: Path) -> None:
    """One question a line; the file appears whole or not at all."""
    write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))


def read_knowledge(path: Path) -> list[Knowledge]:
    with open(path, encoding="utf-8", newline="\n") as file:
        return [Knowledge(**json.loads(line)) for line in file]
