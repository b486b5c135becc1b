"""The invented world's domain: the analyzer asks in the words that the world's models are taught."""

from __future__ import annotations

from itertools import islice

import jsonschema_rs
import pytest

from glasshouse.documents.chunking.sentences import sentences
from glasshouse.documents.packs.pack import load_pack
from glasshouse.documents.question import template
from glasshouse.documents.reply_schema import plain_schema, reply_schema
from glasshouse.world import World, WorldConfig, analyses, filings

WORLD = World(WorldConfig(people=40, heldout_people=10), seed=5)
PACK = load_pack("land")
FILINGS = list(islice(filings.filings(WORLD.land, WORLD.rng("land"), "heldout"), 200))


@pytest.mark.parametrize("task", analyses.REQUESTS)
def test_the_prompt_is_the_worlds_request(task):
    text = FILINGS[0].text
    request = template(task, PACK).render({"document": text})
    assert [dict(message) for message in request.messages] == [
        {"role": "user", "content": analyses.REQUESTS[task].format(document=text)}
    ]


@pytest.mark.parametrize("task", analyses.REQUESTS)
def test_the_worlds_replies_follow_the_analyzers_schema_with_sentences_as_quotes(task):
    for filing in FILINGS:
        quotes = [filing.text[start:end] for start, end in sentences(filing.text)]
        assert quotes == list(filing.sentences)
        schema = reply_schema(
            task,
            schema=plain_schema(PACK.schema_) if task == "extraction" else None,
            labels=tuple(PACK.labels),
            quotes=quotes,
        )
        jsonschema_rs.validator_for(schema).validate(analyses.REPLIES[task](filing))


def test_the_labels_are_the_worlds():
    assert tuple(PACK.labels) == analyses.LABELS
