"""A model is promoted for what it gained on tests that it was not trained on, and for nothing it lost."""

import asyncio
import itertools

import pytest

from glasshouse.core.errors import DataError
from glasshouse.documents.learning.corrections import Case
from glasshouse.documents.learning.promotion import Asked, ask_cases, decide, sign_test
from glasshouse.documents.result import FieldResult, Result
from glasshouse.files.document import Document


def answers(marks: str, held_out: bool = True, group: str = "extraction, general") -> dict[Asked, bool]:
    """A passage of one field for each mark; "1" is right."""
    return {Asked(group, f"{i} {held_out}", "sold", held_out): mark == "1" for i, mark in enumerate(marks)}


def probe(value: float, half: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": 1000}


PROBES = {"known_fact_recall": probe(0.9), "bits_per_byte": probe(1.2)}


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (5, 0), (4, 3), (9, 2), (0, 6)])
def test_the_sign_test_counts_every_throw_of_a_coin(gained, lost):
    n = gained + lost
    throws = itertools.product((0, 1), repeat=n)
    assert sign_test(gained, lost) == pytest.approx(sum(sum(t) >= gained for t in throws) / 2**n)


@pytest.mark.parametrize(
    ("before", "after", "promoted"),
    [
        ("00000000", "11111000", True),  # five gained: 1 in 32
        ("00000001", "11111000", False),  # six changed, one lost: 7 in 64
        ("000000001", "111111110", True),  # eight gained, one lost: 10 in 512
        ("0011", "1111", True),  # few changed, none lost
        ("0011", "1101", False),
        ("0101", "0101", False),
        ("1111", "0000", False),
    ],
)
def test_the_gain_must_be_more_than_chance(before, after, promoted):
    found = decide(answers(before), answers(after), PROBES, PROBES)
    assert found.promoted is promoted
    assert found.reasons


def test_fields_of_one_passage_count_once():
    """Ten fields of one passage go right together: that is one gain, not ten."""
    before = {Asked("g", "one", f"f{i}", True): False for i in range(10)}
    after = dict.fromkeys(before, True)
    found = decide(before, after, {}, {})
    assert (found.held_out.gained, found.held_out.p_gain) == (1, 0.5)


def test_what_was_trained_on_is_no_gain_but_may_be_a_loss():
    known = decide(answers("0" * 9, False), answers("1" * 9, False), {}, {})
    assert not known.promoted
    assert "held out" in known.reasons[0]
    before = {**answers("0" * 9), **answers("1" * 6, False, "summary, legal")}
    after = {**answers("1" * 9), **answers("0" * 6, False, "summary, legal")}
    found = decide(before, after, {}, {})
    assert found.reasons == ("summary, legal lost 6 passages and gained 0",)


@pytest.mark.parametrize(
    ("name", "before", "after", "fell"),
    [
        ("known_fact_recall", probe(0.9), probe(0.87), True),
        ("known_fact_recall", probe(0.9), probe(0.885), False),
        ("known_fact_recall", probe(0.9, 0.1), probe(0.8, 0.1), False),  # nobody can tell
        ("known_fact_recall", probe(0.9, 0.1), probe(0.6, 0.1), True),
        ("known_fact_recall", probe(0.9, 0.001), probe(0.895, 0.001), True),
        ("bits_per_byte", probe(1.2), probe(1.1), False),  # lower is better
        ("bits_per_byte", probe(1.2), probe(1.3), True),
    ],
)
def test_no_probe_may_fall(name, before, after, fell):
    found = decide(answers("0" * 6), answers("1" * 6), {name: before}, {name: after})
    assert found.promoted is not fell
    assert found.probes[0].fell is fell
    assert any(name in line for line in found.lines())


def test_a_probe_that_was_not_asked_again_is_no_proof():
    assert not decide(answers("0" * 6), answers("1" * 6), PROBES, {}).promoted


def test_different_or_no_tests_are_refused():
    with pytest.raises(DataError, match="different"):
        decide(answers("00"), answers("0"), {}, {})
    with pytest.raises(DataError, match="no regression tests"):
        decide({}, {}, {}, {})


class Says:
    """An analyzer that says one thing of every document."""

    def __init__(self, value: object) -> None:
        self.value, self.asked = value, []

    async def run(self, document, task, *, schema=None, instructions=None):
        self.asked.append((document.text, task, schema, instructions))
        fields = (FieldResult(path="sold", value=self.value),)
        return Result(
            document=document.name, task=task, domain="general", model="m", prompt="p", success=True,
            fields=fields,
        )  # fmt: skip


def test_both_models_are_asked_every_case():
    schema = {"type": "object", "properties": {"sold": {"type": "number"}}}
    cases = [
        Case(f"{i}.txt", Document(f"{i}.txt", f"Sold: {i}", (), "txt"), "extraction", "general",
             {"sold": i, "gone": None}, schema, "be brief", i % 2 == 0)
        for i in range(4)
    ]  # fmt: skip
    analyzer = Says(2)
    found = asyncio.run(ask_cases(analyzer, cases))
    assert analyzer.asked == [(f"Sold: {i}", "extraction", schema, "be brief") for i in range(4)]
    assert [key.held_out for key in found if key.path == "sold"] == [True, False, True, False]
    assert [right for key, right in found.items() if key.path == "sold"] == [False, False, True, False]
    assert all(right for key, right in found.items() if key.path == "gone")
