"""The linter: each rule on its own, and how much it finds in wordings that it was not written for."""

from __future__ import annotations

import pytest
from generated_prompts import RULES, faulty
from hypothesis import given
from hypothesis import strategies as st
from prompt_wordings import DEVELOPMENT, HELD_OUT
from score_lint import SETS, score
from unseen_wordings import UNSEEN

from glasshouse.llm.prompts.lint import lint
from glasshouse.llm.prompts.template import Template


def linted(body: str, header: str = "inputs: {text: {}}") -> list[tuple[str, int]]:
    """Rules and lines of the body, from 1."""
    top = f"---\nname: a\nversion: 1\n{header}\n---\n"
    return [(one.rule, one.line - top.count("\n")) for one in lint(Template.parse(top + body))]


USER = "\n@user\n{{ text }}"


def test_nine_tenths_of_planted_mistakes_are_found_in_wordings_that_no_rule_was_written_for():
    """200 prompts, 398 mistakes. What is missed is a matter of words: two rules stay below 90%."""
    words, first = SETS["unseen"]
    got = score(words, first)
    print(got.table())
    assert got.planted.total() >= 200
    assert min(got.planted.values()) >= 20
    assert got.recall >= 0.9, got.table()
    assert len(got.flagged) <= 0.05 * got.clean, got.flagged
    for rule in RULES:  # and none lives on the others
        assert got.found[rule] >= 0.6 * got.planted[rule], got.table()


def test_the_sets_of_wordings_share_no_sentence():
    def said(words):
        pairs = {sentence for pair in words.contradictions for sentence in pair}
        return pairs.union(
            words.unverifiable, words.many, words.buried, words.look_alikes, words.leads, words.labels
        )

    assert not said(UNSEEN) & (said(DEVELOPMENT) | said(HELD_OUT) | said(SETS["fresh"][0]))


def test_a_seed_gives_the_same_prompt_again():
    assert faulty(7, UNSEEN).text == faulty(7, UNSEEN).text != faulty(8, UNSEEN).text


def test_every_finding_says_why_and_what_to_do():
    for seed in range(33):
        for finding in lint(Template.parse(faulty(seed, DEVELOPMENT).text)):
            assert finding.rule in RULES
            assert finding.why
            assert finding.fix


@pytest.mark.parametrize(
    "body",
    [
        "@system\nSum up the text.\nUse at most 50 words.\n@user\n{{ text }}",
        "@system\nKeep the title short. Write the body in detail.\n@user\n{{ text }}",
        "@system\nBe brief unless the user asks for details; then explain in detail.\n@user\n{{ text }}",
        "Sum up what is between the tags.\n<doc>\n{{ text }}\n</doc>\nUse at most 50 words.",
        "Sum it up.\n\n```\n{{ text }}\n```",
        "Sum it up.\n{{ text | delimited('doc') }}",
        "Sum it up.\n{{ text | tojson }}",
        "@system\nHelp.\n@user\n<doc>{{ text }}</doc>\nSum up the text above.",
    ],
)
def test_good_prompts_are_left_alone(body):
    assert linted(body) == []


@pytest.mark.parametrize(
    ("body", "rule", "line"),
    [
        ("@system\nBe concise but thorough." + USER, "contradiction", 2),
        (
            "@system\nUse at most 20 words.\nWrite two paragraphs.\nWrite at least 3 sentences." + USER,
            "contradiction",
            4,
        ),
        ("@system\nMention prices.\nDo not mention any prices." + USER, "contradiction", 3),
        ("@system\nBe creative but accurate." + USER, "unverifiable", 2),
        ("@system\nSum up.\nNever make a mistake." + USER, "unverifiable", 3),
        ("Sum it up:\n{{ text }}", "undelimited-input", 2),
        ("Sum up {{ text }} now.", "undelimited-input", 1),
        ('Sum up "{{ text }}".', "undelimited-input", 1),
        ("Sum it up.\n{% if text %}\n{{ text }}\n{% endif %}", "undelimited-input", 3),
        ("<doc>\n{{ text }}\n</doc>\nSum it up.", "input-before-instructions", 2),
        ("@system\nSum up:\n<doc>{{ text }}</doc>\n@user\nGo on.", "input-in-system", 3),
        ("Sum it up.\n<doc>\n{{ text }}\nUse at most 20 words.\n</doc>", "buried-instruction", 4),
        ("Compare.\n<a>{{ text }}</a>\n\nUse a table.\n\n<b>{{ text }}</b>", "buried-instruction", 4),
        ("Sum it up.", "unused-input", -1),
        ("Sum it up in {{ words }} words." + "\n<a>{{ text }}</a>", "undeclared-input", 1),
    ],
)
def test_each_mistake_alone(body, rule, line):
    assert (rule, line) in linted(body)


def test_inputs_of_a_loop_are_seen():
    header = "inputs: {texts: {type: array}}"
    assert ("undelimited-input", 3) in linted(
        "Sum up.\n{% for one in texts %}\n{{ one }}\n{% endfor %}", header
    )
    assert linted("Sum up.\n{% for one in texts %}\n<a>{{ one }}</a>\n{% endfor %}", header) == []


def test_trusted_texts_choices_and_numbers_may_stand_anywhere():
    header = "inputs: {style: {trusted: true}, tone: {choices: [a, b]}, words: {type: integer}}"
    assert linted("@system\nWrite {{ words }} words, {{ tone }}.\n{{ style }}\n@user\nGo on.", header) == []


SCHEMA = "output: {type: object, properties: {n: {type: integer}}, required: [n]}"


def test_examples_that_break_their_schema_are_found_wherever_they_stand():
    told = "Return JSON.\n"
    assert linted(told + '{"n": 1}', SCHEMA) == []
    assert linted(told + '{"n": "1"}', SCHEMA) == [("example-breaks-schema", 2)]
    assert linted(told + 'Wrong: {"n": "1"}', SCHEMA) == []  # shown as what not to do
    assert linted(told + '{"input": 3}', SCHEMA) == []  # no example of the reply
    shot = "@user\nA\n@assistant\n{}\n@user\nB"
    assert linted("@system\nReturn JSON.\n" + shot, SCHEMA) == [("example-breaks-schema", 6)]
    examples = SCHEMA + "\nexamples:\n  - name: a\n    output: {n: x}"
    assert linted(told, examples) == [("example-breaks-schema", -1)]
    assert linted(told, SCHEMA + "\nexamples:\n  - {name: a, output: {n: 2}}") == []


def test_a_schema_that_the_text_does_not_mention():
    assert linted("Count.", SCHEMA) == [("missing-output-format", -1)]
    assert linted("Count. Put it into `n`.", SCHEMA) == []


@given(st.text("abc {}%#\n@<>/\"'`.-:!é\\", max_size=80) | st.text(max_size=40))
def test_no_template_breaks_the_linter(body):
    from glasshouse.core.errors import ConfigError

    try:
        template = Template.parse(f"---\nname: a\nversion: 1\ninputs: {{text: {{}}}}\n---\n{body}")
    except ConfigError:
        return
    lint(template)
