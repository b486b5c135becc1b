"""The prompts of the analyzer: our own linter finds nothing, and a pack may bring its own."""

import json
from pathlib import Path

import pytest

from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.question import PROMPTS, Question, room_for_reply, template, told
from glasshouse.documents.reply_schema import plain_schema, reply_schema
from glasshouse.documents.result import TASKS
from glasshouse.llm.interface import Capabilities
from glasshouse.llm.prompts.lint import lint
from glasshouse.llm.prompts.store import PromptStore
from glasshouse.llm.prompts.template import Template

NAMES = [*TASKS, "synthesis", "resolution", "schema"]


@pytest.mark.parametrize("name", NAMES)
def test_the_linter_finds_nothing(name):
    store = PromptStore(PROMPTS, lock=False)
    for version in store.versions(name):
        assert lint(store.template(name, version)) == []


def test_there_is_one_for_each_use():
    assert PromptStore(PROMPTS, lock=False).names() == sorted(NAMES)


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_names_every_key_of_its_reply(task):
    """A model that is given no schema by its backend sees only the words."""
    plain = plain_schema({"type": "object", "properties": {"fee": {"type": "number"}}})
    schema = reply_schema(task, schema=plain, labels=["a"])
    text = template(task).sections[0].source

    def keys(inner):
        for name, below in inner.get("properties", {}).items():
            yield name
            yield from keys(below)
        for below in (*inner.get("$defs", {}).values(), *([inner["items"]] if "items" in inner else [])):
            yield from keys(below)

    for key in set(keys(schema)) - {"fee"}:
        assert f"`{key}`" in text, key


def test_what_goes_into_a_prompt_stands_where_it_belongs(scripted):
    question = Question(
        "extraction", template("extraction"), {"type": "object"}, instructions="Mind the units."
    )
    request = question.request(
        scripted(), 50, "A text.", headings=["One", "Two"], before="B.", after="C.", sample=2
    )
    system, user = (message["content"] for message in request.messages)
    assert "Mind the units." in system
    assert '<schema>\n{"type": "object"}\n</schema>' in system
    for piece in ("<document>\nA text.\n</document>", "One > Two", "<before>\nB.", "<after>\nC."):
        assert piece in user
    assert user.index("<before>") < user.index("<document>")
    assert (request.temperature, request.seed, request.max_new_tokens) == (0.7, 2, 50)


def test_a_pack_brings_its_own_prompt_and_may_leave_inputs_out(tmp_path, scripted, report):
    prompt = "---\nname: summary\nversion: 3\ninputs:\n  document: {type: string}\n"
    prompt += "settings: {max_new_tokens: 77}\n---\n"
    prompt += '@system\nSum up.\n\n@user\n{{ document | delimited("text") }}\n'
    Path(tmp_path, "pack.yaml").write_text("description: Short ones.\n")
    Path(tmp_path, "prompts", "summary").mkdir(parents=True)
    Path(tmp_path, "prompts", "summary", "3.md").write_text(prompt)
    reply = {"topic": "t", "findings": [{"quote": "", "finding": "f"}], "conclusions": []}
    llm = scripted([json.dumps(reply)])
    analyzer = Analyzer(llm, domain=tmp_path)
    result = analyzer.analyze(report, "summary")
    assert result.success
    assert result.prompt.startswith("summary@3 ")
    assert result.domain == tmp_path.name
    assert llm.asked[0].max_new_tokens == 77
    assert llm.asked[0].messages[-1]["content"].startswith("<text>\nRevenue was")
    assert not Path(tmp_path, "prompts", "prompts.lock.json").exists()  # folders of packs are only read
    assert analyzer.pack.prompts is not None
    assert told(template("extraction", analyzer.pack)).startswith("extraction@1 ")


@pytest.mark.parametrize(
    ("context", "room"), [(None, 4000), (100_000, 4000), (8000, 2000), (4096, 1024), (512, 128)]
)
def test_room_for_a_reply_is_what_the_prompt_names_within_a_share_of_the_context(scripted, context, room):
    assert room_for_reply(template("summary"), scripted(context=context)) == room


def test_a_prompt_for_a_small_context_keeps_the_room_it_names(scripted):
    text = "---\nname: a\nversion: 1\nsettings: {max_new_tokens: 230}\n---\nHello."
    ours = scripted(context=512, can=Capabilities(any_schema=True))  # never asks anew
    assert room_for_reply(Template.parse(text), ours) == 230
    assert room_for_reply(Template.parse(text), scripted(context=512)) == 128
