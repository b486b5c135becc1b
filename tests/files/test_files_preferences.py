"""Preference pairs: every usual way of writing them ends in one shape, and what is no pair is named."""

import gzip
import json

import pytest

from glasshouse.core.errors import DataError
from glasshouse.files import read_preferences


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


ASKED, GOOD, BAD = [user("How are you?")], [assistant("Well, thank you.")], [assistant("Go away.")]
HH = "\n\nHuman: How are you?\n\nAssistant: "
SAME = [
    {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
    {"prompt": ASKED, "chosen": [*ASKED, *GOOD], "rejected": [*ASKED, *BAD]},
    {"prompt": "How are you?", "chosen": "Well, thank you.", "rejected": "Go away."},
    {"prompt": "How are you?", "chosen": [*ASKED, *GOOD], "rejected": [*ASKED, *BAD]},
    {"chosen": [*ASKED, *GOOD], "rejected": [*ASKED, *BAD]},
    {"chosen": HH + "Well, thank you.", "rejected": HH + "Go away."},
    {"instruction": "How are you?", "input": "", "chosen": "Well, thank you.", "rejected": "Go away."},
]


def read(tmp_path, *rows):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_preferences(path))


@pytest.mark.parametrize("row", SAME)
def test_all_ways_of_writing_a_pair_give_the_same(tmp_path, row):
    """Explicit and implicit prompts, messages and strings."""
    [pair] = read(tmp_path, row)
    assert pair == {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "source": "pairs"}


def test_turns_that_both_conversations_share_are_the_prompt(tmp_path):
    """All of them, up to where the replies part; a system message and tools stay."""
    shared = [user("Hi."), assistant("Hello."), user("How are you?")]
    row = {"chosen": [*shared, *GOOD], "rejected": [*shared, *BAD]}
    assert read(tmp_path, row)[0]["prompt"] == shared
    system = {"prompt": "Hi.", "system": "Be short.", "chosen": "Hello.", "rejected": "Yes?"}
    assert read(tmp_path, system)[0]["prompt"] == [{"role": "system", "content": "Be short."}, user("Hi.")]
    tools = [{"type": "function", "function": {"name": "clock"}}]
    assert read(tmp_path, SAME[0] | {"tools": tools})[0]["tools"] == tools


def test_conversations_that_part_in_a_users_turn_keep_the_answer_before(tmp_path):
    """A reply begins with the assistant, whoever spoke first when the two parted."""
    begin = [user("Hi."), assistant("Hello.")]
    row = {"chosen": [*begin, user("1?"), *GOOD], "rejected": [*begin, user("2?"), *BAD]}
    [pair] = read(tmp_path, row)
    assert pair["prompt"] == begin[:1]
    assert pair["chosen"] == [assistant("Hello."), user("1?"), *GOOD]


def test_one_reply_may_go_on_where_the_other_ends(tmp_path):
    longer = [*ASKED, *GOOD, user("And now?"), assistant("Still well.")]
    [pair] = read(tmp_path, {"chosen": longer, "rejected": longer[:2]})
    assert (pair["prompt"], pair["rejected"]) == (ASKED, GOOD)
    assert pair["chosen"] == longer[1:]


def test_margins_and_ties_are_kept(tmp_path):
    pairs = read(tmp_path, SAME[0] | {"margin": 2}, SAME[0] | {"tie": True, "margin": None})
    assert [(pair.get("margin"), pair.get("tie")) for pair in pairs] == [(2.0, None), (None, True)]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "Hi.", "chosen": "x"}, "no 'rejected' in this row; it has 'prompt', 'chosen'"),
        ({"prompt": "Hi.", "chosen": "x", "rejected": "x"}, "equals the rejected"),
        ({"prompt": "  ", "chosen": "x", "rejected": "y"}, "prompt is empty"),
        ({"prompt": [], "chosen": "x", "rejected": "y"}, "prompt is empty"),
        ({"chosen": "x", "rejected": "y"}, "prompt is empty"),
        ({"prompt": [{"role": "system", "content": "s"}], "chosen": "x", "rejected": "y"}, "prompt is empty"),
        ({"instruction": "", "chosen": "x", "rejected": "y"}, "prompt is empty"),
        ({"prompt": "Hi.", "chosen": [], "rejected": "y"}, '"chosen" does not begin with'),
        ({"prompt": "Hi.", "chosen": [user("x")], "rejected": "y"}, '"chosen" does not begin with'),
        ({"prompt": "Hi.", "chosen": 7, "rejected": "y"}, '"chosen" is neither a text'),
        (
            {"prompt": "Hi.", "chosen": [{"role": "bot"}], "rejected": "y"},
            'message 1 of "chosen" has the role',
        ),
        (SAME[0] | {"margin": -1}, '"margin" is -1'),
        (SAME[0] | {"margin": "much"}, "\"margin\" is 'much'"),
        (SAME[0] | {"tie": 1}, '"tie" is 1'),
        (SAME[0] | {"tie": True, "margin": 1.0}, "a tie with a margin"),
        (SAME[0] | {"chosen": "\ud800"}, "."),
    ],
)
def test_what_is_no_pair_is_named_with_its_row(tmp_path, row, complaint):
    with pytest.raises(DataError) as caught:
        read(tmp_path, SAME[0], row)
    assert complaint in str(caught.value)
    assert "pairs.jsonl, row 2" in str(caught.value)
    assert "Fix:" in str(caught.value)


def test_compressed_files_and_folders_are_read(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps(SAME[0]) + "\n")
    (tmp_path / "b.json").write_text(json.dumps([SAME[1], SAME[2]]))
    assert [pair["source"] for pair in read_preferences(tmp_path)] == ["a", "b", "b"]
