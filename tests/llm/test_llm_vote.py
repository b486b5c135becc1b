"""Which answer wins, how many samples that takes, and what they cost together."""

import asyncio
import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.core.errors import ConfigError
from glasshouse.llm import Completion, Usage
from glasshouse.llm.ballot import ABSENT, vote
from glasshouse.llm.errors import BudgetExceededError, NotAllowedError, ServerFaultError
from glasshouse.llm.interface import TokenLogprob
from glasshouse.llm.vote import Vote, last_number, said


def run(work):
    return asyncio.run(work)


@pytest.mark.parametrize(
    ("replies", "text", "votes", "share"),
    [
        (["Yes.", "yes", " YES ! ", "No.", "Maybe"], "Yes.", 3, 1),  # three are certain of five
        (["No.", "Yes.", "yes", "Yes", "x"], "Yes.", 4, 3 / 4),
        (["a", "b", "c", "d", "e"], "a", 5, 1 / 5),  # a tie: the first
        (["a", "b", "b", "a", "c"], "a", 5, 2 / 5),
    ],
)
def test_the_plurality_of_normalised_answers_wins(scripted, ask, replies, text, votes, share):
    llm = scripted(replies)
    done = run(Vote(llm).complete(ask()))
    (note,) = done.notes
    assert (done.text, note.layer, note.details["share"]) == (text, "vote", share)
    assert note.details["votes"] == len(llm.asked) == votes


def test_samples_have_their_own_seeds_and_a_temperature(scripted, ask):
    llm = scripted(list("abcde"))
    run(Vote(llm, temperature=0.9).complete(ask(seed=7)))
    assert len({request.seed for request in llm.asked}) == 5
    assert all(0 <= request.seed < 2**31 for request in llm.asked)
    assert {request.temperature for request in llm.asked} == {0.9}
    again = scripted(list("abcde"))
    run(Vote(again).complete(ask(seed=7, temperature=0.3)))
    assert [request.seed for request in again.asked] == [request.seed for request in llm.asked]
    assert {request.temperature for request in again.asked} == {0.3}
    other = scripted(list("abcde"))
    run(Vote(other).complete(ask(seed=8, temperature=0)))
    assert not {request.seed for request in other.asked} & {request.seed for request in llm.asked}
    assert {request.temperature for request in other.asked} == {0.7}


def test_samples_are_asked_together_and_no_more_than_needed(scripted, ask):
    llm = scripted(["Yes."], seconds=0.001)
    run(Vote(llm, 9).complete(ask()))
    assert (len(llm.asked), llm.most_at_once) == (5, 5)


def test_usage_and_cost_are_sums(scripted, ask):
    llm = scripted([Completion("Yes.", "stop", Usage(10, n), cost=float(n)) for n in (1, 2, 4)])
    done = run(Vote(llm).complete(ask()))
    assert (done.usage, done.cost) == (Usage(30, 7), 7.0)


def test_numbers_at_the_end_are_compared_as_numbers(scripted, ask):
    llm = scripted(["So 3 + 4 = 7.0", "I say 8", "The answer is 7.", "1,234 no", "7"])
    done = run(Vote(llm, answer=last_number).complete(ask()))
    assert (done.text, done.notes[0].details["shares"]) == (
        "So 3 + 4 = 7.0",
        {"": {"7": 0.6, "8": 0.2, "1234": 0.2}},
    )
    assert last_number(Completion("none", "stop")) is None
    assert last_number(Completion("-1,234.5!", "stop")) == -1234.5


def likely(text, logprob):
    return Completion(text, "stop", logprobs=(TokenLogprob(text, logprob), TokenLogprob(".", logprob)))


def test_a_tie_goes_to_the_likelier_answer_where_all_tell(scripted, ask):
    done = run(Vote(scripted([likely("a", -2.0), likely("b", -1.0)]), 2).complete(ask()))
    assert done.text == "b"
    done = run(Vote(scripted([likely("a", -2.0), Completion("b", "stop")]), 2).complete(ask()))
    assert done.text == "a"
    done = run(Vote(scripted([likely("a", -2.0), likely("b", -1.0), likely("A", -3.0)]), 3).complete(ask()))
    assert done.text == "a"  # no tie


PEOPLE = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


def test_objects_are_decided_field_by_field(scripted, ask):
    samples = [
        {"name": "Ada", "age": 36, "born": {"year": 1815, "town": "London"}},
        {"age": 37, "name": "Ada", "born": {"year": 1815, "town": "Paris"}},
        {"name": "Eda", "age": 36, "born": {"year": 1816, "town": "London"}, "note": "x"},
    ]
    done = run(Vote(scripted(map(json.dumps, samples)), 3).complete(ask(output_schema=PEOPLE)))
    assert json.loads(done.text) == {"name": "Ada", "age": 36, "born": {"year": 1815, "town": "London"}}
    shares = done.notes[0].details["shares"]
    assert shares["born.year"] == {"1815": pytest.approx(2 / 3), "1816": pytest.approx(1 / 3)}
    assert shares["note"] == {"(absent)": pytest.approx(2 / 3), '"x"': pytest.approx(1 / 3)}
    assert done.notes[0].details["share"] == pytest.approx(1 / 3)


def test_an_answer_that_nobody_gave_is_put_together_unless_it_breaks_the_schema(scripted, ask):
    samples = [{"a": 1, "b": 1, "c": 0}, {"a": 1, "b": 0, "c": 1}, {"a": 0, "b": 1, "c": 1}]
    done = run(Vote(scripted(map(json.dumps, samples)), 3).complete(ask(output_schema={"type": "object"})))
    assert json.loads(done.text) == {"a": 1, "b": 1, "c": 1}
    assert "put together" in done.notes[0].what
    exactly_two = {"type": "object", "not": {"properties": {key: {"const": 1} for key in "abc"}}}
    done = run(Vote(scripted(map(json.dumps, samples)), 3).complete(ask(output_schema=exactly_two)))
    assert json.loads(done.text) == samples[0]
    assert "breaks the schema" in done.notes[0].what


def test_what_is_no_json_has_no_vote_on_json(scripted, ask):
    llm = scripted(['{"a": ', '{"a": 1}', '{"a": ', '{"a": 2}', '{"a": 2}'])
    done = run(Vote(llm).complete(ask(output_schema={"type": "object"})))
    assert json.loads(done.text) == {"a": 2}
    assert done.notes[0].details["votes"] == 3
    assert "2 had no answer" in done.notes[0].what


def test_tools_are_voted_on_by_name_and_arguments(scripted, ask):
    def calling(number, arguments):
        function = {"name": "add", "arguments": arguments}
        return Completion(
            "", "tool_calls", tool_calls=({"id": f"c{number}", "type": "function", "function": function},)
        )

    samples = [calling(0, '{"a": 1}'), calling(1, '{"a": 2, "b": 1}'), calling(2, '{"b": 1,"a":2}')]
    done = run(Vote(scripted(samples), 3).complete(ask()))
    assert done.tool_calls == samples[1].tool_calls


def test_a_sample_that_fails_has_no_vote_and_is_told(scripted, ask):
    llm = scripted(
        [
            ServerFaultError("down", usage=Usage(5, 0), cost=0.5),
            Completion("Yes.", "stop", Usage(5, 1), cost=1.0),
        ]
    )
    done = run(Vote(llm, 3).complete(ask()))
    assert (done.text, done.usage, done.cost, len(llm.asked)) == ("Yes.", Usage(15, 2), 2.5, 3)
    assert done.notes[0].details["failed"] == ("down",)


def test_refusals_have_no_vote_where_others_answer(scripted, ask):
    refusal = Completion("", "refusal", refusal="No.")
    done = run(Vote(scripted([refusal, refusal, "Yes.", refusal, refusal])).complete(ask()))
    assert done.text == "Yes."
    assert run(Vote(scripted([refusal])).complete(ask())).refusal == "No."


def test_where_all_fail_the_error_has_what_they_used(scripted, ask):
    llm = scripted([ServerFaultError("down", usage=Usage(5, 0), cost=0.5)])
    with pytest.raises(ServerFaultError, match="down; none of 5 samples came") as caught:
        run(Vote(llm).complete(ask()))
    assert (caught.value.usage, caught.value.cost) == (Usage(25, 0), 2.5)


@pytest.mark.parametrize("error", [NotAllowedError, BudgetExceededError])
def test_what_cannot_pass_is_not_tried_with_every_seed(scripted, ask, error):
    llm = scripted([error("no")])
    with pytest.raises(error):
        run(Vote(llm).complete(ask()))
    assert len(llm.asked) == 3


def test_a_bug_below_stops_the_other_samples(scripted, ask):
    async def go():
        llm = scripted([KeyError("bug")])
        with pytest.raises(KeyError):
            await Vote(llm).complete(ask())
        assert len(asyncio.all_tasks()) == 1

    run(go())


def test_a_stream_is_one_piece_and_one_sample_is_no_vote(scripted, ask):
    async def read(llm):
        return [chunk async for chunk in llm.stream(ask())]

    (piece,) = run(read(Vote(scripted(["One two."]))))
    assert (piece.text, piece.completion.text) == ("One two.", "One two.")
    llm = scripted(["One two."])
    assert len(run(read(Vote(llm, 1)))) == 3
    run(Vote(llm, 1).complete(ask()))
    assert llm.asked == [ask(), ask()]


def test_mistakes_are_told_at_construction(scripted):
    with pytest.raises(ConfigError, match="samples"):
        Vote(scripted(), 0)
    with pytest.raises(ConfigError, match="greedy"):
        Vote(scripted(), temperature=0)


def test_lists_of_plain_values_keep_what_most_have():
    assert vote([["a", "b"], ["b", "c"], ["c", "b", "d"]]).winner == ["b", "c"]
    assert vote([["a"], ["b"], ["c"]]).winner == []
    assert vote([{"t": ["a", "b"]}, {"t": ["b", "a"]}, {}]).winner == {"t": ["a", "b"]}
    rows = [[{"a": 1}], [{"a": 2}], [{"a": 2}]]
    assert vote(rows).winner == [{"a": 2}]  # chosen whole


def test_numbers_are_equal_as_numbers_and_truth_is_none():
    assert vote([1, 1.0, 2]).winner == 1
    assert vote([True, 1, 1]).winner == 1
    assert vote([{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]).shares == {"a": {"1": 1.0}, "b": {"2": 1.0}}
    assert said(Completion("  **Paris**. ", "stop")) == "paris"


values = st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2)
answers = (
    st.dictionaries(st.sampled_from("ab"), values | st.dictionaries(st.just("c"), values), max_size=2)
    | values
)


@given(st.lists(answers, min_size=1, max_size=4), st.integers(0, 3), st.data())
def test_a_vote_that_needs_no_more_cannot_be_changed(answered, left, data):
    """Against any votes still to come."""
    ballot = vote(answered, left=left)
    if ballot.still == 0:
        more = data.draw(st.lists(answers, max_size=left))
        ended = vote([*answered, *more], left=0).winner
        assert _as_sets(ended) == _as_sets(ballot.winner)
    else:
        assert 1 <= ballot.still <= left


def _as_sets(value):
    """The order of a list follows the answer that has most of it: later ones may change that alone."""
    if isinstance(value, dict):
        return {key: _as_sets(each) for key, each in value.items()}
    return sorted(value) if isinstance(value, list) else value


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_plain_answers_are_counted_as_python_counts_them(answered):
    assert vote(answered).winner == Counter(answered).most_common(1)[0][0]


@pytest.mark.parametrize(("first", "left"), [(a, b) for a in range(1, 5) for b in range(5)])
def test_still_is_the_least_that_could_decide(first, left):
    """By brute force over two values: fewer can never make it certain, as many can."""
    for split in itertools.product([0, 1], repeat=first):
        still = vote(list(split), left=left).still
        for more in range(left + 1):
            decided = any(
                vote([*split, *added], left=left - more).still == 0
                for added in itertools.product([0, 1], repeat=more)
            )
            assert decided == (more >= still)


def test_more_samples_raise_the_chance_of_the_right_answer(scripted, ask):
    """Condorcet: 60% right alone are some 68% by three and 73% by seven; binomial tails, in closed form."""
    import math
    import random

    chance = random.Random(3)

    def reply(_):
        return "right" if chance.random() < 0.6 else "wrong"

    async def score(samples, rounds=1500):
        layer = Vote(scripted([reply]), samples)
        return sum([(await layer.complete(ask())).text == "right" for _ in range(rounds)]) / rounds

    for samples in (3, 7):
        exact = sum(
            math.comb(samples, k) * 0.6**k * 0.4 ** (samples - k)
            for k in range(samples // 2 + 1, samples + 1)
        )
        assert run(score(samples)) == pytest.approx(exact, abs=0.045)


def test_absent_is_told_as_such():
    assert repr(ABSENT) == "(absent)"
