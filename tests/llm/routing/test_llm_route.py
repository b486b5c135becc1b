"""Route: who is asked, what it costs, what is said, and what streams."""

import asyncio

import pytest

from glasshouse.classify import TextClassifier
from glasshouse.core.errors import UsageError
from glasshouse.llm import Completion, Usage
from glasshouse.llm.confidence import Agreement, Judged, MeanLogprob
from glasshouse.llm.errors import (
    BadRequestError,
    BrokenStreamError,
    BudgetExceededError,
    ContextTooLongError,
    NotAllowedError,
    RateLimitedError,
    ServerFaultError,
)
from glasshouse.llm.interface import Capabilities, TokenLogprob
from glasshouse.llm.route import Route
from glasshouse.llm.routing_policy import Policy, calibrate
from glasshouse.llm.routing_samples import collect

SURE = Judged("words", lambda request, completion: float(completion.text.split()[-1]))
"""The last word of a reply is its confidence."""


def said(text, cost=0.01, finish="stop", **rest):
    return Completion(text, finish, Usage(10, 2), "m", cost=cost, **rest)


def wait(work):
    return asyncio.run(work)


async def read(stream):
    return [chunk async for chunk in stream]


@pytest.fixture
def tiers(scripted):
    def make(*outcomes):
        names = ("small", "medium", "large", "vast")
        return [scripted([out], name=name) for out, name in zip(outcomes, names, strict=False)]

    return make


@pytest.fixture(scope="module")
def classifier():
    texts = [f"{word} {i}" for word in ("easy", "middling", "hard") for i in range(40)]
    return TextClassifier.train(texts, [label for label in "012" for _ in range(40)])


THREE = Policy(accept=(0.8, 0.6))


@pytest.mark.parametrize(
    ("replies", "answered", "asked"),
    [
        (("yes 0.8", "yes 0.9", "yes 0"), 0, (1, 0, 0)),
        (("no 0.79", "yes 0.6", "yes 0"), 1, (1, 1, 0)),
        (("no 0.1", "no 0.59", "yes 0"), 2, (1, 1, 1)),
        (("no nan", "no nan", "yes 0"), 2, (1, 1, 1)),
    ],
)
def test_the_first_tier_that_is_sure_enough_answers(tiers, ask, replies, answered, asked):
    models = tiers(*(said(reply, 0.01 * 10**i) for i, reply in enumerate(replies)))
    route = Route(models, THREE, confidence=SURE)
    for completion in (wait(route.complete(ask())), wait(read(route.stream(ask())))[-1].completion):
        assert completion.text == replies[answered]
        n = sum(asked)
        assert completion.usage == Usage(10 * n, 2 * n)
        assert completion.cost == pytest.approx(sum(0.01 * 10**i for i in range(n)))
        (note,) = completion.notes
        assert note.layer == "route"
        assert (note.details["tier"], note.details["asked"]) == (answered, ("small", "medium", "large")[:n])
        assert f"tier {answered + 1} of 3" in note.what
        assert "no guarantee" in note.what
    assert [len(model.asked) for model in models] == [2 * n for n in asked]


def test_a_reply_that_was_cut_or_withheld_is_not_taken_however_sure(tiers, ask):
    for finish in ("length", "refusal"):
        models = tiers(said("x 1", finish=finish), said("y 1"), said("z"))
        assert wait(Route(models, THREE, confidence=SURE).complete(ask())).text == "y 1"


def test_the_classifier_passes_over_tiers_a_request_is_too_hard_for(tiers, ask, classifier):
    models = tiers(said("a 1"), said("b 1"), said("c"))
    policy = Policy(accept=(0.5, 0.5), begin=0.5)
    route = Route(models, policy, confidence=SURE, classifier=classifier)
    texts = ("easy 7", "middling 7", "hard 7")
    assert [wait(route.complete(ask(text))).text for text in texts] == ["a 1", "b 1", "c"]
    assert [len(model.asked) for model in models] == [1, 1, 1]


def test_tiers_that_are_never_right_enough_are_not_asked(tiers, ask):
    models = tiers(said("a 1"), said("b 1"), said("c"))
    route = Route(models, Policy(accept=("never", "never")))
    assert wait(route.complete(ask())).text == "c"
    assert [len(model.asked) for model in models] == [0, 0, 1]


def test_any_number_of_tiers(tiers, ask):
    assert wait(Route(tiers(said("a 0"), said("b")), Policy(accept=(0.5,)), confidence=SURE).complete(ask()))
    four = tiers(said("a 0"), said("b 0"), said("c 1"), said("d"))
    route = Route(four, Policy(accept=(0.5, 0.5, 0.5)), confidence=SURE)
    assert wait(route.complete(ask())).text == "c 1"


@pytest.mark.parametrize(
    "error", [RateLimitedError, ServerFaultError, BrokenStreamError, ContextTooLongError]
)
def test_where_another_model_may_help_the_next_tier_is_asked(tiers, ask, error):
    models = tiers(error("no", usage=Usage(5, 0), cost=0.5), said("b 1", 0.25), said("c"))
    for stream in (False, True):
        route = Route(models, THREE, confidence=SURE)
        if stream:
            done = wait(read(route.stream(ask())))[-1].completion
        else:
            done = wait(route.complete(ask()))
        assert (done.text, done.cost, done.usage) == ("b 1", 0.75, Usage(15, 2))
        assert route.report().tiers[0].asked == 1


@pytest.mark.parametrize("error", [BadRequestError, NotAllowedError, BudgetExceededError])
def test_where_it_does_not_the_error_is_raised_with_what_was_spent(tiers, ask, error):
    models = tiers(said("a 0", 0.25), error("no", where="medium"), said("c"))
    route = Route(models, THREE, confidence=SURE)
    with pytest.raises(error, match="no") as raised:
        wait(route.complete(ask()))
    assert (raised.value.cost, raised.value.usage) == (0.25, Usage(10, 2))
    with pytest.raises(error):
        wait(read(route.stream(ask())))
    assert (len(models[2].asked), route.report().failed, route.report().calls) == (0, 2, 0)


def test_the_last_tiers_error_is_raised(tiers, ask):
    models = tiers(said("a 0"), said("b 0"), ServerFaultError("down"))
    with pytest.raises(ServerFaultError, match="down"):
        wait(Route(models, THREE, confidence=SURE).complete(ask()))


def test_a_cascade_sees_a_reply_before_it_lets_it_go_and_the_last_tier_streams(tiers, ask):
    models = tiers(said("no no 0"), said("yes yes 1"), said("a b c"))
    route = Route(models, THREE, confidence=SURE)
    assert [chunk.text for chunk in wait(read(route.stream(ask())))] == ["yes yes 1"]
    models[1].outcomes = [said("no no 0")]
    chunks = wait(read(route.stream(ask())))
    assert [chunk.text for chunk in chunks] == ["a ", "b ", "c ", ""]
    assert chunks[-1].completion.cost == pytest.approx(0.03)
    assert chunks[-1].completion.notes[-1].details["tier"] == 2


def test_a_tier_chosen_by_the_classifier_alone_streams(tiers, ask, classifier):
    models = tiers(said("a b"), said("c d"), said("e f"))
    route = Route(models, Policy(accept=("always", "always"), begin=0.5), classifier=classifier)
    assert [c.text for c in wait(read(route.stream(ask("middling 3"))))] == ["c ", "d ", ""]
    assert [len(model.asked) for model in models] == [0, 1, 0]


def test_a_stream_that_broke_is_not_begun_anew_by_another_tier(scripted, ask):
    models = [scripted([BrokenStreamError("half")], begun="Once"), scripted(["Twice"])]
    route = Route(models, Policy(accept=("always",)))
    pieces = []

    async def listen():
        async for chunk in route.stream(ask()):
            pieces.append(chunk.text)

    with pytest.raises(BrokenStreamError):
        wait(listen())
    assert (pieces, len(models[1].asked)) == (["Once"], 0)


def test_the_report_counts_tiers_and_money(tiers, ask):
    models = tiers(said("a 0.9", 1.0), said("b 0.9", 4.0), said("c", 20.0))
    route = Route(models, THREE, confidence=SURE)
    for outcome in ("a 0.9", "a 0.9", "a 0.9", "a 0"):
        models[0].outcomes = [said(outcome, 1.0)]
        wait(route.complete(ask()))
    assert route.report().saved is None, "what the last tier costs is not known yet"
    models[1].outcomes = [said("b 0", 4.0)]
    wait(route.complete(ask()))
    report = route.report()
    assert [(t.asked, t.answered, t.share, t.cost) for t in report.tiers] == [
        (5, 3, 0.6, 5.0),
        (2, 1, 0.2, 8.0),
        (1, 1, 0.2, 20.0),
    ]
    assert (report.calls, report.spent, report.always_last, report.saved) == (5, 33.0, 100.0, 67.0)
    assert (report.basis, report.tiers[0].expected) == ("answers", None)
    assert "no guarantee" in report.guarantee


def test_unknown_money_stays_unknown(tiers, ask):
    models = tiers(said("a 0.1", None), said("b 0.9", 4.0), said("c", 20.0))
    route = Route(models, THREE, confidence=SURE)
    assert wait(route.complete(ask())).cost is None
    assert (route.report().spent, route.report().saved, route.report().tiers[1].cost) == (None, None, 4.0)


def test_a_policy_fits_its_models_confidence_and_classifier(tiers, classifier):
    models = tiers(said("a"), said("b"), said("c"))
    proper = Policy(accept=(0.5, 0.5), tiers=("small", "medium", "large"), confidence="words")
    Route(models, proper, confidence=SURE)
    with pytest.raises(UsageError, match="a policy for small, medium, large"):
        Route([models[1], models[0], models[2]], proper, confidence=SURE)
    with pytest.raises(UsageError, match="2 models, and a policy for 3"):
        Route(models[:2], proper, confidence=SURE)
    with pytest.raises(UsageError, match="another confidence than 'mean logprob'"):
        Route(models, proper, confidence=MeanLogprob())
    with pytest.raises(UsageError, match="the policy needs words"):
        Route(models, proper)
    with pytest.raises(UsageError, match="difficulty classifier"):
        Route(models, Policy(accept=("always",) * 2, begin=0.5))


def test_it_is_an_llm_itself(tiers, ask, scripted):
    models = [scripted(name="small", can=Capabilities(embeddings=False, tools=False)), scripted(name="large")]
    route = Route(models, Policy(accept=("always",)))
    assert route.name == "route(small, large)"
    assert (route.can.tools, route.can.embeddings, route.can.temperature) == (False, True, True)
    assert wait(route.embed(["abc"])) == [[3.0]]
    wait(route.close())
    assert all(model.closed for model in models)


def test_the_mean_logprob_is_asked_for_and_left_out_again(scripted, ask):
    logprobs = (TokenLogprob("a", -0.1), TokenLogprob("b", -0.3))
    model = scripted([said("x", logprobs=logprobs)])
    completion, sure = wait(MeanLogprob().ask(model, ask()))
    assert sure == pytest.approx(0.8187307530779818)  # exp(-0.2)
    assert (model.asked[0].logprobs, completion.logprobs) == (0, None)
    completion, _ = wait(MeanLogprob().ask(model, ask(logprobs=2)))
    assert (model.asked[1].logprobs, completion.logprobs) == (2, logprobs)
    assert wait(MeanLogprob().ask(scripted([said("x")]), ask()))[1] is None
    silent = scripted(can=Capabilities(logprobs=False))
    with pytest.raises(UsageError, match="tells no logprobs"):
        Route([silent, scripted()], Policy(accept=(0.5,)), confidence=MeanLogprob())


def test_agreement_is_the_share_of_the_most_frequent_reply(scripted, ask):
    model = scripted([said(text) for text in ("No.", "yes", "Yes. ", "YES", "perhaps")])
    completion, sure = wait(Agreement(5).ask(model, ask(temperature=0.0, seed=3)))
    assert (completion.text, sure, completion.cost) == ("yes", 0.6, pytest.approx(0.05))
    assert completion.usage == Usage(50, 10)
    assert [request.seed for request in model.asked] == [3, 4, 5, 6, 7]
    assert {request.temperature for request in model.asked} == {0.7}
    assert model.most_at_once == 5
    stiff = scripted(can=Capabilities(temperature=False))
    with pytest.raises(UsageError, match="takes no temperature"):
        Route([stiff, scripted()], Policy(accept=(0.5,)), confidence=Agreement())


def test_a_failed_sample_is_told_with_what_the_others_used(scripted, ask):
    model = scripted([said("a"), ServerFaultError("down", cost=0.5), said("a")])
    with pytest.raises(ServerFaultError) as raised:
        wait(Agreement(3).ask(model, ask()))
    assert (raised.value.cost, raised.value.usage) == (pytest.approx(0.52), Usage(20, 4))


def test_from_questions_to_a_policy_that_routes(scripted, ask):
    """Labelled requests asked of all tiers, calibrated, saved, loaded, at work; what was promised is told."""

    def small(request):  # right about even numbers, and sure of what it is right about
        number = int(request.messages[-1]["content"].split()[-1])
        return said(f"{'right' if number % 2 == 0 else 'wrong'} {0.9 if number % 2 == 0 else 0.7}", 0.1)

    async def judge(request, completion):
        return float(completion.text.split()[-1])

    models = [scripted([small], name="small"), scripted([said("right", 1.0)], name="large")]
    sure = Judged("verifier", judge)
    questions = [(ask(f"number {i}"), lambda text: text.startswith("right")) for i in range(120)]
    samples = wait(collect(models, questions, sure, at_once=4))
    assert models[0].most_at_once <= 4
    assert [(s.text, s.right, s.sure, s.cost) for s in samples[:2]] == [
        ("number 0", (True, True), (0.9,), (0.1, 1.0)),
        ("number 1", (False, True), (0.7,), (0.1, 1.0)),
    ]
    policy = calibrate(samples, 0.1, 0.1, tiers=("small", "large"), confidence=sure.name)
    route = Route(models, policy, confidence=sure)
    done = [wait(route.complete(ask(f"number {i}"))) for i in range(10)]
    assert [completion.notes[-1].details["tier"] for completion in done] == [0, 1] * 5
    assert "at most 0.1 of the accepted answers are wrong" in done[0].notes[-1].what
    report = route.report()
    assert (report.basis, report.always_last) == ("sample", pytest.approx(10.0))
    assert report.saved == pytest.approx(10 - 5 * 0.1 - 5 * 1.1)
    assert report.tiers[0].expected == pytest.approx(0.5, abs=0.15)
