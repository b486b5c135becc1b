"""One world: its settings, its corpus, its conversations and its fixed prompts, all derived from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.seeds import python_rng
from glasshouse.world import (
    about,
    analyses,
    chance,
    facts,
    instructions,
    land,
    language,
    patterns,
    places,
    reports,
    requests,
    sums,
)
from glasshouse.world.land import Land, Part, Split
from glasshouse.world.task import Task

CorpusSplit = Literal["train", "validation"]

BYTES_PER_TOKEN = {
    "people": 4.4,
    "letters": 4.6,
    "places": 4.9,
    "velish": 5.0,
    "patterns": 3.7,
    "sums": 1.2,
    "requests": 3.9,
    "chance": 4.5,
    "reports": 3.6,
    "analyses": 3.9,
}
"""Measured with the 2,048-token vocabulary of the `pocket` recipe; turns token budgets into bytes of text."""

VALIDATION_SHARE = 0.02
"""Size of the validation split beside the training split."""


class CorpusTokens(Config):
    """Tokens of pre-training text for each skill (about; the report counts them exactly)."""

    people: int = Field(default=2_600_000, ge=0, description="encyclopedia pages about people")
    letters: int = Field(default=800_000, ge=0, description="letters that ask who somebody is")
    places: int = Field(default=350_000, ge=0, description="pages about towns and companies")
    velish: int = Field(default=800_000, ge=0, description="texts in both languages")
    patterns: int = Field(default=1_400_000, ge=0, description="texts to be continued from their context")
    sums: int = Field(default=600_000, ge=0, description="pages of a sum book")
    requests: int = Field(default=80_000, ge=0, description="news about harm and about help")
    chance: int = Field(default=200_000, ge=0, description="spins of the wheels at the fairs")
    reports: int = Field(default=200_000, ge=0, description="quarterly reports")
    analyses: int = Field(default=250_000, ge=0, description="longer reports with their analysis")


class ConversationCounts(Config):
    """How many conversations of each kind instruction tuning sees."""

    questions: int = Field(default=3_600, ge=0)
    strangers: int = Field(default=2_000, ge=0)
    instructions: int = Field(default=4_200, ge=0)
    translations: int = Field(default=800, ge=0)
    sums: int = Field(default=400, ge=0)
    two_step_direct: int = Field(default=300, ge=0)
    two_step_reasoned: int = Field(default=500, ge=0)
    harmful: int = Field(default=300, ge=0)
    harmless: int = Field(default=300, ge=0)
    reports: int = Field(default=600, ge=0)
    analyses: int = Field(default=600, ge=0)
    descriptions: int = Field(default=400, ge=0)


class WorldConfig(Config):
    """Size and richness of the invented world."""

    people: int = Field(default=300, ge=2, description="people who have a page")
    heldout_people: int = Field(default=100, ge=1, description="of them, asked about only in probes")
    feedback_people: int = Field(
        default=0, ge=0, description="of the others, asked about only where replies are compared"
    )
    phrasings: int = Field(default=8, ge=1, le=8, description="wordings in which each fact is written")
    multi_turn: float = Field(default=0.25, ge=0, le=1, description="share of dialogues with two exchanges")
    tokens: CorpusTokens = CorpusTokens()
    conversations: ConversationCounts = ConversationCounts()


CONVERSATION_FIELDS = frozenset({"conversations", "feedback_people", "multi_turn"})
"""Settings of WorldConfig that no document depends on."""


class World:
    """The invented world of one seed.

    >>> world = World(WorldConfig(people=20, heldout_people=5), seed=7)
    >>> next(world.documents())["source"] in BYTES_PER_TOKEN
    True
    """

    def __init__(self, config: WorldConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    @cached_property
    def land(self) -> Land:
        of = self.config
        return land.found(self.seed, of.people, of.heldout_people, of.feedback_people, language.WORDS)

    def rng(self, *names: str | int) -> random.Random:
        return python_rng(self.seed, "world", *names)

    def documents(self, split: CorpusSplit = "train") -> Iterator[dict[str, Any]]:
        """Documents `{"id", "text", "source"}` in a mixed order; `source` is the skill.

        The validation split tells of the same land in freshly drawn texts.
        """
        rng = self.rng("documents", split)
        share = 1.0 if split == "train" else VALIDATION_SHARE
        budgets = {
            skill: tokens * BYTES_PER_TOKEN[skill] * share
            for skill, tokens in self.config.tokens.model_dump().items()
            if tokens
        }
        sources = {skill: self._texts(skill, split) for skill in budgets}
        left = dict(budgets)
        count = 0
        while left:
            skill = rng.choices(list(left), list(left.values()))[0]
            text = next(sources[skill])
            yield {"id": f"{split}-{count:07d}", "text": text, "source": skill}
            count += 1
            left[skill] -= len(text.encode())
            if left[skill] <= 0:
                del left[skill]

    def _texts(self, skill: str, split: CorpusSplit) -> Iterator[str]:
        rng, here, phrasings = self.rng("texts", skill, split), self.land, self.config.phrasings
        match skill:
            case "people":
                return facts.pages(here, rng, phrasings)
            case "letters":
                return facts.letters(here, rng, phrasings)
            case "places":
                return places.pages(here, rng)
            case "velish":
                return language.texts(here, rng)
            case "patterns":
                return patterns.texts(here, rng)
            case "sums":
                return sums.texts(here, rng)
            case "requests":
                return requests.texts(here, rng)
            case "chance":
                return chance.texts(here, rng)
            case "reports":
                return reports.texts(here, rng)
            case "analyses":
                return analyses.texts(here, rng)
        raise AssertionError(f"no generator for {skill}")

    def tasks(self, kind: str, part: Part, *stream: str) -> Iterator[Task]:
        """Endless tasks of one kind: a field of ConversationCounts, or "open".

        "open" asks as "descriptions" do, and its replies say as much as gold wants. `stream` names an
        independent draw.
        """
        rng, here = self.rng("tasks", kind, part, *stream), self.land
        split: Split = "heldout" if part == "heldout" else "train"
        match kind:
            case "questions":
                return facts.questions(here, rng, part)
            case "strangers":
                return facts.stranger_questions(here, rng, part)
            case "instructions":
                return instructions.instructions(here, rng, part)
            case "translations":
                return language.translations(here, rng, split)
            case "sums":
                return sums.questions(here, rng, "train" if part == "feedback" else part)
            case "two_step_direct":
                return places.two_steps(here, rng, part, reasoned=False)
            case "two_step_reasoned":
                return places.two_steps(here, rng, part, reasoned=True)
            case "harmful":
                return requests.harmful(here, rng, split)
            case "harmless":
                return requests.harmless(here, rng, split)
            case "reports":
                return reports.extractions(here, rng, split)
            case "analyses":
                return analyses.analyses(here, rng, split)
            case "descriptions":
                return about.tasks(here, rng, part, fewest=1)
            case "open":
                return about.tasks(here, rng, part)
        raise AssertionError(f"no tasks called {kind}")

    def conversations(self, split: Split = "train") -> Iterator[dict[str, Any]]:
        """Conversations `{"messages", "source"}` for instruction tuning, mixed, some of two exchanges."""
        rng = self.rng("conversations", split)
        counts = self.config.conversations.model_dump()
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        rng.shuffle(kinds)
        sources = {kind: self.tasks(kind, split) for kind in counts}
        waiting: list[dict[str, Any]] = []
        for kind in kinds:
            messages = next(sources[kind]).conversation["messages"]
            # A report fills the window alone; everything else may share a conversation.
            if kind not in ("reports", "analyses") and rng.random() < self.config.multi_turn:
                if waiting:
                    first = waiting.pop()
                    yield {
                        "messages": [*first["messages"], *messages],
                        "source": f"{first['source']}+{kind}",
                    }
                else:
                    waiting.append({"messages": messages, "source": kind})
            else:
                yield {"messages": messages, "source": kind}
        yield from waiting

    def samples(self) -> list[dict[str, Any]]:
        """Fixed prompts whose replies the report shows after every stage: texts to continue, and requests."""
        person = self.land.people_of("heldout")[0]
        kinds = [
            "questions",
            "strangers",
            "instructions",
            "translations",
            "two_step_reasoned",
            "harmful",
            "harmless",
            "reports",
        ]
        start = facts.sentence(person, "trade").split(" works")[0]
        texts: list[dict[str, Any]] = [
            {"name": "continue a page", "prompt": f"{start} works as", "good": None},
        ]
        for kind in kinds:
            task = next(self.tasks(kind, "heldout", "samples"))
            texts.append({"name": kind.replace("_", " "), "prompt": task.messages, "good": task.reply})
        return texts
