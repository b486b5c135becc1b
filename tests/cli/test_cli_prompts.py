"""`glasshouse prompts`: what the user sees."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import types
from pathlib import Path

import pytest

from glasshouse.llm import Completion
from glasshouse.llm.interface import Capabilities
from glasshouse.llm.prompts import PromptStore, Template, lint, run_examples

EXAMPLES = Path(__file__).parents[2] / "examples" / "prompts"


@pytest.fixture
def prompts(glasshouse, tmp_path):
    """`glasshouse prompts ...` where the examples of this repository are the folder `prompts`."""
    shutil.copytree(EXAMPLES, tmp_path / "prompts")
    return lambda *arguments: glasshouse("prompts", *arguments)


def test_list_shows_every_version_and_its_state(prompts):
    PromptStore("prompts").render("summary", {"report": "a"}, 1)
    Path("prompts/summary/1.md").write_text(Path("prompts/summary/1.md").read_text() + "And more.\n")
    rows = json.loads(prompts("list", "--json").out)
    assert [(row["prompt"], row["version"], row["state"]) for row in rows] == [
        ("invoice", 1, "new"),
        ("summary", 1, "changed"),
        ("summary", 2, "new"),
        ("support-reply", 1, "new"),
    ]
    shown = prompts("list").out
    assert "summary" in shown
    assert "changed" in shown


def test_show_is_the_file_and_with_inputs_what_the_model_gets(prompts):
    assert prompts("show", "summary@1").out == (EXAMPLES / "summary" / "1.md").read_text()
    Path("report.txt").write_text("Sales rose.\x1b[2J")
    shown = prompts("show", "summary", "--set", "report=@report.txt", "--set", "sentences=5").out
    assert "at most 5 sentences" in shown
    assert "<report>\nSales rose.␛[2J\n</report>" in shown
    request = json.loads(prompts("show", "prompts/summary/2.md", "--set", "report=a", "--json").out)
    assert request["labels"]["version"] == "2"
    assert not Path("prompts/prompts.lock.json").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("show", "sumary"), ["did you mean 'summary'"]),
        (("show", "summary@x"), ["summary@1"]),
        (("show", "summary@7"), ["versions: 1, 2"]),
        (("show", "summary", "--set", "reprot=a"), ["did you mean 'report'", "2.md, line 5"]),
        (("show", "summary", "--set", "sentences=3"), ["'report'", "is missing"]),
        (("show", "summary", "--set", "report=a", "--set", "sentences=three"), ["not JSON", "integer"]),
        (("diff", "invoice"), ["no version of 'invoice' before 1"]),
        (("list", "--folder", "nowhere"), ["nowhere"]),
        (("lint", "nowhere.md"), ["nowhere.md"]),
        (("test", "summary@1", "nowhere"), ["no examples"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(prompts, arguments, named, monkeypatch):
    monkeypatch.setitem(sys.modules, "glasshouse.llm.open", types.SimpleNamespace(open_llm=None))
    result = prompts(*arguments)
    assert result.code == 2
    assert len(result.err.strip().split("\n")) == 1
    for part in named:
        assert part in result.err


def test_diff_shows_what_changed(prompts):
    shown = prompts("diff", "summary", "1", "2").out
    assert shown == prompts("diff", "summary").out
    assert "-version: 1" in shown
    assert "+version: 2" in shown
    assert json.loads(prompts("diff", "summary", "--json").out)["after"] == 2


def test_lint_finds_nothing_in_the_examples_and_tells_what_it_finds_elsewhere(prompts):
    assert prompts("lint").code == 0
    Path("prompts/summary/3.md").write_text(
        "---\nname: summary\nversion: 3\ninputs: {report: {}}\n---\n"
        "Be brief.\nExplain in great detail.\nNever be wrong.\n{{ reprot }}\n"
    )
    result = prompts("lint")
    assert result.code == 1
    for rule in ("contradiction", "unverifiable", "unused-input", "undeclared-input"):
        assert rule in result.out
    assert "summary/3.md:7" in result.out
    found = json.loads(prompts("lint", "prompts/summary/3.md", "--json").out)
    assert {"file", "rule", "line", "why", "fix"} == set(found[0])


class Answers:
    """A model that knows one reply to each prompt that holds a word."""

    name, context, can = "answers", None, Capabilities(output_schema=False)

    def __init__(self, **replies):
        self.replies, self.closed = replies, False

    async def complete(self, request):
        text = request.messages[-1]["content"]
        return Completion(next(reply for word, reply in self.replies.items() if word in text), "stop")

    async def close(self):
        self.closed = True


def test_test_asks_the_model_and_tells_what_failed(prompts, monkeypatch):
    llm = Answers(
        lawyer='{"reply": "We are sorry.", "hand_over": false}',
        shears='{"reply": "Yes, two kinds.", "hand_over": false}',
    )
    monkeypatch.setitem(sys.modules, "glasshouse.llm.open", types.SimpleNamespace(open_llm=lambda name: llm))
    result = prompts("test", "support-reply", "any:model")
    assert result.code == 1
    assert "'hand_over' is false, not true" in result.out
    assert "1 of 2 examples passed" in result.err
    assert llm.closed
    llm.replies["lawyer"] = '{"reply": "We are sorry.", "hand_over": true}'
    assert prompts("test", "support-reply", "any:model").code == 0
    llm.replies["lawyer"] = "I cannot say."
    outcomes = json.loads(prompts("test", "support-reply", "any:model", "--json").out)
    assert [outcome["passed"] for outcome in outcomes] == [False, True]
    assert "not JSON" in outcomes[0]["problems"][0]


def test_the_examples_of_this_repository_are_read_linted_and_checked():
    for path in sorted(EXAMPLES.rglob("*.md")):
        template = Template.load(path)
        assert lint(template) == []
        for example in template.header.examples:
            template.render(example.inputs)
    right = Answers(Mill=json.dumps(Template.load(EXAMPLES / "invoice" / "1.md").header.examples[0].output))
    (outcome,) = asyncio.run(run_examples(Template.load(EXAMPLES / "invoice" / "1.md"), right))
    assert outcome.passed
