"""Analyses of reports: replies quote the report, and a reader of its text alone comes to the same."""

from __future__ import annotations

import json
from itertools import islice

import pytest

from glasshouse.world import World, WorldConfig, analyses, filings
from glasshouse.world.reports import FIELDS

WORLD = World(WorldConfig(people=40, heldout_people=10), seed=5)
SPLITS = ("train", "heldout")


def some(split, n=300):
    return list(islice(filings.filings(WORLD.land, WORLD.rng("test", split), split), n))


@pytest.mark.parametrize("split", SPLITS)
def test_a_report_is_read_back_as_it_was_meant(split):
    for filing in some(split):
        found = filings.read(filing.text)
        assert (found.fields, found.quotes, found.events, found.sentences) == (
            filing.fields,
            filing.quotes,
            filing.events,
            filing.sentences,
        )


@pytest.mark.parametrize("split", SPLITS)
def test_every_quote_of_every_reply_stands_in_the_report(split):
    def quotes(value):
        if isinstance(value, dict):
            yield from (said for key, said in value.items() if key == "quote" and said is not None)
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                yield from quotes(part)

    for filing in some(split, 100):
        for task, reply in analyses.REPLIES.items():
            found = list(quotes(reply(filing)))
            assert all(quote in filing.sentences for quote in found), (task, filing.text)
            assert found or task in ("classification", "sentiment")


def test_events_are_told_in_words_that_training_does_not_hold():
    said = {split: {words for filing in some(split) for _, words in filing.events} for split in SPLITS}
    assert not said["train"] & said["heldout"]
    assert len(said["train"]) > 80
    assert len(said["heldout"]) > 15


def test_what_is_not_said_is_null():
    replies = [analyses.extraction(filing) for filing in some("train")]
    missing = [name for reply in replies for name in FIELDS if reply[name]["value"] is None]
    assert set(missing) == {"revenue", "profit", "outlook"}
    assert 0.05 < len(missing) / (3 * len(replies)) < 0.2
    assert all(
        (part["value"] is None) == (part["quote"] is None) for reply in replies for part in reply.values()
    )


def test_the_first_event_decides_the_kind_of_a_quarter():
    for filing in some("heldout", 100):
        reply = analyses.classification(filing)
        kinds = [event for event, _ in filing.events] or ["ordinary"]
        assert [reply["primary"], *reply["secondary"]] == kinds
        assert len(reply["uncertainty"]) == len(kinds) - 1


def test_a_reply_is_checked_as_json():
    task = next(WORLD.tasks("analyses", "heldout"))
    assert task.check(task.reply)
    assert task.check(json.dumps(json.loads(task.reply), indent=1))
    assert not task.check(task.reply[:-1])
    assert not task.check(json.dumps({**json.loads(task.reply), "company": None}))
