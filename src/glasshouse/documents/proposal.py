"""A schema for what somebody asks for in words: "find the parties, the term and the notice period"."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.core.errors import ConfigError
from glasshouse.documents.question import room_for_reply
from glasshouse.documents.reply_schema import Schema
from glasshouse.llm.errors import InvalidOutputError
from glasshouse.llm.interface import LLM
from glasshouse.llm.prompts.template import Template
from glasshouse.llm.structured import structured

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"


class ProposedField(Config):
    name: str = Field(pattern=NAME)
    description: str
    type: str = Field(json_schema_extra={"enum": ["string", "number", "integer", "boolean"]})
    many: bool


class Proposal(Config):
    """What a model replies with."""

    fields: tuple[ProposedField, ...] = Field(min_length=1, max_length=40)


async def propose(llm: LLM, template: Template, instructions: str) -> Schema:
    """Ask the model which fields the instructions name. Raises ConfigError where it gives none, and what the
    model raises."""
    request = template.render({"instructions": instructions})
    room = room_for_reply(template, llm)
    changed = request.model_copy(update={"max_new_tokens": room, "output_schema": None})
    try:
        reply = await structured(llm, changed, Proposal)
    except InvalidOutputError as error:
        raise ConfigError(
            f"no list of fields could be made of the instructions: {error.what}",
            where=llm.name,
            fix="give a schema",
        ) from error
    properties: dict[str, Any] = {}
    for field in reply.value.fields:
        leaf = {"type": field.type, "description": field.description}
        properties[field.name] = (
            {"type": "array", "items": {"type": field.type}, "description": field.description}
            if field.many
            else leaf
        )
    return {"type": "object", "properties": properties}
