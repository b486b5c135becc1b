"""Who is asked next, after what, and what is told in the end."""

import asyncio

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.llm import Completion, Usage
from glasshouse.llm.errors import (
    BadRequestError,
    BudgetExceededError,
    ContextTooLongError,
    GarbledReplyError,
    InvalidOutputError,
    NotAbleError,
    NotAllowedError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
    UnreachableError,
)
from glasshouse.llm.fallback import Alternative, Fallback, changed
from glasshouse.llm.interface import Capabilities


def run(work):
    return asyncio.run(work)


async def read(llm, request):
    return [chunk async for chunk in llm.stream(request)]


def invalid(words):
    return InvalidOutputError(words, text="{", problem="it is no JSON")


MOVES_ON = [
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
    UnreachableError,
    GarbledReplyError,
    NotAllowedError,
    NotAbleError,
    ContextTooLongError,
    BadRequestError,
    invalid,
]


@pytest.mark.parametrize("error", MOVES_ON)
def test_another_model_answers_in_its_place(scripted, ask, error):
    first, second = scripted([error("no")], name="first"), scripted(["Yes."], name="second")
    done = run(Fallback([first, second]).complete(ask()))
    assert (done.text, done.model) == ("Yes.", "second")
    (note,) = done.notes
    assert (note.layer, note.what) == ("fallback", "second answered; before: first: no")
    assert note.details == {"answered": "second", "said": ({"alternative": "first", "said": "no"},)}
    assert second.asked == [ask()]


@pytest.mark.parametrize("error", MOVES_ON)
def test_what_the_same_model_is_asked_again_with_a_change(scripted, ask, error):
    """Not where it said that the request or the key is wrong."""
    llm = scripted([error("no"), "Yes."])
    fallback = Fallback([llm, Alternative(change=changed(temperature=1.0, seed=3))])
    if error in (NotAllowedError, BadRequestError):
        with pytest.raises(error, match=r"^no$"):
            run(fallback.complete(ask()))
        assert len(llm.asked) == 1
    else:
        done = run(fallback.complete(ask()))
        assert done.text == "Yes."
        assert llm.asked == [ask(), ask(temperature=1.0, seed=3)]


def test_a_bad_request_moves_on_to_another_model_past_changes_of_the_same(scripted, ask):
    first, second = scripted([BadRequestError("no")], name="first"), scripted(name="second")
    run(Fallback([first, Alternative(first, changed(seed=1)), second]).complete(ask()))
    assert (len(first.asked), len(second.asked)) == (1, 1)


def test_an_empty_budget_ends_the_search(scripted, ask):
    first, second = scripted([BudgetExceededError("too dear")]), scripted()
    with pytest.raises(BudgetExceededError) as caught:
        run(Fallback([first, second]).complete(ask()))
    assert caught.value is first.outcomes[0]
    assert second.asked == []
    poor = scripted([BudgetExceededError("too dear")], name="poor")
    down = scripted([ServerFaultError("down", usage=Usage(3, 0), cost=0.5)], name="down")
    with pytest.raises(BudgetExceededError, match="too dear; before: down: down") as caught:
        run(Fallback([down, poor, second]).complete(ask()))
    assert (caught.value.usage, caught.value.cost, second.asked) == (Usage(3, 0), 0.5, [])


def test_prompts_are_changed_from_the_request_as_it_came(scripted, ask):
    def shorter(request):
        text = request.messages[-1]["content"][:5]
        return request.model_copy(update={"messages": ({"role": "user", "content": text},)})

    llm = scripted([ContextTooLongError("long"), ContextTooLongError("long"), "Yes."])
    ways = [llm, Alternative(change=changed(seed=3)), Alternative(change=shorter, name="short")]
    done = run(Fallback(ways).complete(ask("A long question", seed=1)))
    assert llm.asked == [ask("A long question", seed=1), ask("A long question", seed=3), ask("A lon", seed=1)]
    assert done.notes[0].what == "short answered; before: scripted: long; scripted, changed: long"


def test_where_none_answers_the_error_lists_what_each_said(scripted, ask):
    errors = [
        NotAllowedError("wrong key", usage=Usage(0, 0)),
        ServerFaultError("down", where="b", retry_after=3.0, status=503, usage=Usage(5, 0), cost=0.25),
        NotAbleError("no tools"),
    ]
    models = [scripted([error], name=name) for error, name in zip(errors, "abc", strict=True)]
    with pytest.raises(ServerFaultError) as caught:  # the one that asking again may help
        run(Fallback(models).complete(ask()))
    assert str(caught.value) == "no alternative answered: a: wrong key; b: down (b); c: no tools"
    assert (caught.value.retry_after, caught.value.status) == (3.0, 503)
    assert (caught.value.usage, caught.value.cost) == (Usage(5, 0), 0.25)
    assert str(errors[1]) == "down (b)"


def test_the_only_ones_error_stays_as_it_is(scripted, ask):
    llm = scripted([ServerFaultError("down", fix="wait")])
    with pytest.raises(ServerFaultError) as caught:
        run(Fallback([llm]).complete(ask()))
    assert caught.value is llm.outcomes[0]


def test_refusals_move_on_only_when_asked_to(scripted, ask):
    no = Completion("", "refusal", Usage(4, 0), "first", refusal="I will not.", cost=1.0)
    yes = Completion("Yes.", "stop", Usage(4, 1), "second", cost=2.0)
    assert run(Fallback([scripted([no]), scripted([yes])]).complete(ask())) is no
    done = run(Fallback([scripted([no], name="first"), scripted([yes])], refusals=True).complete(ask()))
    assert (done.text, done.usage, done.cost) == ("Yes.", Usage(8, 1), 3.0)
    assert "first: refused: I will not" in done.notes[0].what


def test_where_all_refuse_the_first_refusal_is_the_reply(scripted, ask):
    refusals = [Completion("", "refusal", Usage(4, 0), refusal=f"No {n}.", cost=1.0) for n in range(2)]
    models = [scripted([refusals[0]]), scripted([ServerFaultError("down")]), scripted([refusals[1]])]
    done = run(Fallback(models, refusals=True).complete(ask()))
    assert (done.finish, done.refusal, done.usage, done.cost) == ("refusal", "No 0.", Usage(8, 0), 2.0)


def test_an_answer_at_once_is_handed_on_untouched(scripted, ask):
    done = Completion("Yes.", "stop")
    assert run(Fallback([scripted([done]), scripted()]).complete(ask())) is done


def test_a_stream_moves_on_before_its_first_piece_only(scripted, ask):
    down, half = (
        scripted([ServerFaultError("no", usage=Usage(3, 0))]),
        scripted([ServerFaultError("no")], begun="Ye"),
    )
    pieces = run(read(Fallback([down, scripted(["One two."])]), ask()))
    assert "".join(piece.text for piece in pieces).strip() == "One two."
    assert pieces[-1].completion.usage == Usage(6, 2)
    assert pieces[-1].completion.notes[0].layer == "fallback"
    second = scripted()
    with pytest.raises(ServerFaultError):
        run(read(Fallback([half, second]), ask()))
    assert second.asked == []


def test_a_streamed_refusal_without_words_moves_on(scripted, ask):
    class Refusing(scripted):
        async def stream(self, request):
            from glasshouse.llm import Chunk

            yield Chunk(completion=Completion("", "refusal"))

    pieces = run(read(Fallback([Refusing(), scripted(["Yes."])], refusals=True), ask()))
    assert [piece.completion.finish for piece in pieces if piece.completion] == ["stop"]
    (last,) = run(read(Fallback([Refusing(), Refusing()], refusals=True), ask()))
    assert last.completion.finish == "refusal"


def test_it_can_what_all_can_and_holds_what_the_smallest_holds(scripted):
    first = scripted(name="a", context=None, can=Capabilities(embeddings=True, counts_tokens=True))
    second = scripted(name="b", context=100, can=Capabilities(tools=False, counts_tokens=False))
    both = Fallback([first, second, Alternative(second, changed(seed=1))])
    assert (both.name, both.context) == ("a or b", 100)
    assert (both.can.tools, both.can.seed, both.can.embeddings, both.can.counts_tokens) == (
        False,
        True,
        True,
        True,
    )
    assert Fallback([first]).context is None
    run(both.close())
    assert first.closed
    assert second.closed


def test_vectors_and_counts_are_the_first_models(scripted, ask):
    both = Fallback([scripted(), scripted()])
    assert run(both.embed(["abc"])) == [[3.0]]
    assert run(both.count_tokens(ask("a b"))) == 2


def test_mistakes_are_told_at_construction():
    with pytest.raises(ConfigError, match="temprature"):
        changed(temprature=1)
    with pytest.raises(ConfigError, match="first alternative must be a model"):
        Fallback([])
    with pytest.raises(ConfigError, match="first alternative must be a model"):
        Fallback([Alternative(change=changed(seed=1))])
