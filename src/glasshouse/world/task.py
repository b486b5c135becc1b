"""A request with one good reply and a program that checks any reply: training example and probe item."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from glasshouse.world.land import Part

Message = dict[str, str]


@dataclass(frozen=True)
class Task:
    """What a user asks, a reply that is right, and how to tell whether another reply is right too."""

    messages: list[Message]
    reply: str
    check: Callable[[str], bool]

    @property
    def conversation(self) -> dict:
        """The training example: `{"messages": [...]}` with the good reply as the last turn."""
        return {"messages": [*self.messages, {"role": "assistant", "content": self.reply}]}


@dataclass(frozen=True)
class Phrasings:
    """Ways to say the same thing; the held-out ones appear in no training text."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]

    def draw(self, rng: random.Random, part: Part) -> str:
        return rng.choice(self.heldout if part == "heldout" else self.train)


def ask(text: str) -> list[Message]:
    """A conversation of one user turn."""
    return [{"role": "user", "content": text}]


def article(noun: str) -> str:
    """ "owl" -> "an owl"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
