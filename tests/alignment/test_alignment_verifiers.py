"""Replies checked by the answers of their rows."""

import pytest

from glasshouse.alignment.verifiers import ends_with_answer
from glasshouse.core.errors import DataError


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("4", "2 + 2 = 4", 1.0),
        ("4", "2 + 2 = 4.", 1.0),
        ("4", "4 or 5", 0.0),
        ("4", "14", 0.0),
        ("-3", "It is -3.", 1.0),
        ("1200", "That makes 1,200.00 in all.", 1.0),
        ("4", "four", 0.0),
        ("4", "", 0.0),
        ("an owl", "Let me think.\nAda keeps an owl.", 1.0),
        ("an owl", "An owl!\nNo, a cat.", 0.0),
        ("An Owl.", "an  owl", 1.0),
    ],
)
def test_the_end_of_a_reply_decides(answer, reply, right):
    assert ends_with_answer({"prompt": "?", "answer": answer}, reply) == right


def test_a_row_without_an_answer_is_refused():
    with pytest.raises(DataError, match='without an "answer"'):
        ends_with_answer({"prompt": "What is 2 + 2?"}, "4")
