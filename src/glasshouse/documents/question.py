"""What is asked about every part of a document: the task, its prompt, and what the reply must look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glasshouse.documents.reply_schema import Schema, reply_schema
from glasshouse.documents.result import Task
from glasshouse.llm.interface import LLM, Request
from glasshouse.llm.prompts.store import PromptStore
from glasshouse.llm.prompts.template import Template

if TYPE_CHECKING:
    from glasshouse.documents.packs.pack import Pack

PROMPTS = Path(__file__).parent / "prompts"

ROOM = 2000
"""Tokens kept for a reply whose prompt names none: an assumption."""

SHARE = 4
"""A prompt that was not written for a small context has one part in so many of it for the reply."""


def template(name: str, pack: Pack | None = None) -> Template:
    """The newest version of a prompt: the pack's own, where it has one, else the package's.

    Raises ConfigError for a template that is none.
    """
    if pack is not None and pack.prompts is not None:
        own = PromptStore(pack.prompts, lock=False)
        if name in own.names():
            return own.use(name)
    return PromptStore(PROMPTS, lock=False).use(name)


def told(template: Template) -> str:
    """A prompt as a result names it: "extraction@1 3f9c2ab0"."""
    return f"{template.name}@{template.version} {template.hash[:8]}"


@dataclass(frozen=True)
class Question:
    """One task, ready to be asked about any part."""

    task: Task
    template: Template
    schema: Schema | None = None  # of extraction, a plain one
    labels: tuple[str, ...] = ()
    instructions: str = ""
    examples: tuple[Mapping[str, str], ...] = ()

    def request(
        self,
        llm: LLM,
        room: int,
        document: str,
        *,
        headings: Sequence[str] = (),
        before: str = "",
        after: str = "",
        sample: int = 0,
    ) -> Request:
        """To be asked with `schema`. Sample 0 is the likeliest reply, the others are drawn with their own
        seeds."""
        inputs: dict[str, Any] = {
            "document": document,
            "instructions": self.instructions,
            "schema": "" if self.schema is None else json.dumps(self.schema, ensure_ascii=False),
            "labels": list(self.labels),
            "headings": list(headings),
            "before": before,
            "after": after,
            "examples": list(self.examples),
        }
        declared = self.template.header.inputs
        request = self.template.render({name: value for name, value in inputs.items() if name in declared})
        changes: dict[str, Any] = {"max_new_tokens": room, "output_schema": None}
        changes |= {"temperature": 0.0} if sample == 0 else {"temperature": HEAT, "seed": sample}
        if llm.can.logprobs:
            changes["logprobs"] = 0
        return request.model_copy(update=changes)

    def reply_schema(self, quotes: Sequence[str] | None) -> Schema:
        return reply_schema(self.task, schema=self.schema, labels=self.labels, quotes=quotes)

    def takes(self, name: str) -> bool:
        """Whether the prompt has a place for this input."""
        return name in self.template.header.inputs


HEAT = 0.7
"""Temperature of the samples after the first, as in llm/vote.py."""


def room_for_reply(template: Template, llm: LLM) -> int:
    """Tokens kept for a reply: what its prompt names, where the model's context has twice as much, or four
    times where a reply may be asked anew and then stands in the prompt. Else the prompt was written for
    larger contexts, and a share of this one is kept."""
    wanted = template.header.settings.max_new_tokens
    if "max_new_tokens" not in template.header.settings.model_fields_set:
        wanted = ROOM
    if llm.context is None or wanted <= llm.context // (2 if llm.can.any_schema else SHARE):
        return wanted
    return max(llm.context // SHARE, 1)
