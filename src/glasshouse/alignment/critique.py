"""Critics: who says what goes against a principle in a reply, writes it better, and chooses between two.

`LLMCritic` asks any language model, as Constitutional AI does (arXiv:2212.08073, sections 3 and 4): the model
that wrote the replies, or a stronger one. The invented world has an exact one (world_critics.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from glasshouse.alignment.constitution import Principle
from glasshouse.llm import LLM, Request, complete_all

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Draft:
    """A reply, and the principle that it is held against."""

    prompt: Sequence[Message]
    reply: str
    principle: Principle


@dataclass(frozen=True)
class Revision:
    """What a critic says of a draft, and what it would have said: the reply itself where that is good."""

    critique: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """Two replies to one prompt, and the principle by which one of them is to be chosen."""

    prompt: Sequence[Message]
    replies: tuple[str, str]
    principle: Principle


class Critic(Protocol):
    """`name` tells it from others: work goes on only under that name."""

    @property
    def name(self) -> str: ...

    def revise(self, drafts: Sequence[Draft]) -> list[Revision]: ...

    def choose(self, comparisons: Sequence[Comparison]) -> list[int | None]:
        """Of each two replies the better one, 0 or 1; None where the principle does not tell them apart."""
        ...


_CHOICE = re.compile(r"\W*([AB])\b")


@dataclass(frozen=True)
class LLMCritic:
    """A language model as a critic; what it says is taken as it comes."""

    llm: LLM
    max_new_tokens: int = 256

    @property
    def name(self) -> str:
        return f"language model {self.llm.name}"

    def revise(self, drafts: Sequence[Draft]) -> list[Revision]:
        """The reply is followed by the principle's request for a critique, that by the one for a revision."""
        asked = [
            [*draft.prompt, _said("assistant", draft.reply), _said("user", draft.principle.critique)]
            for draft in drafts
        ]
        critiques = self._ask(asked)
        again = [
            [*messages, _said("assistant", critique), _said("user", draft.principle.revision)]
            for draft, messages, critique in zip(drafts, asked, critiques, strict=True)
        ]
        texts = self._ask(again)
        return [
            Revision(critique, text or draft.reply)  # no words are no revision
            for draft, critique, text in zip(drafts, critiques, texts, strict=True)
        ]

    def choose(self, comparisons: Sequence[Comparison]) -> list[int | None]:
        """Asked in both orders, for many models like what stands first; it must name one reply both times."""
        asked = [
            [_said("user", _question(each, *each.replies[::order]))]
            for each in comparisons
            for order in (1, -1)
        ]
        said = self._ask(asked)
        letters = [match[1] if (match := _CHOICE.match(text)) else "" for text in said]
        named = {"AB": 0, "BA": 1}
        return [named.get(a + b) for a, b in zip(letters[::2], letters[1::2], strict=True)]

    def _ask(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        requests = [
            Request.parse({"messages": messages, "max_new_tokens": self.max_new_tokens})
            for messages in conversations
        ]
        return [done.text.strip() for done in complete_all(self.llm, requests)]


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _question(comparison: Comparison, first: str, second: str) -> str:
    """One turn that holds the conversation, both replies and the question."""
    told = "\n".join(f"{message['role']}: {message.get('content') or ''}" for message in comparison.prompt)
    return (
        f"A conversation:\n{told}\n\nReply A: {first}\n\nReply B: {second}\n\n"
        f"{comparison.principle.comparison} Answer with A or B alone."
    )
