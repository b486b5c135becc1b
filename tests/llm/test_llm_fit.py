"""What a context cannot hold, what stays, what goes, and that it is always told."""

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import ConfigError
from glasshouse.inference import LanguageModel
from glasshouse.llm import Completion, LocalLLM, Request, Usage
from glasshouse.llm.errors import ContextTooLongError, ServerFaultError
from glasshouse.llm.fit import Fit
from glasshouse.llm.interface import Capabilities
from glasshouse.llm.prices import prompt_bound
from glasshouse.llm.shorten import shorten
from glasshouse.tokenizer import Tokenizer


def run(work):
    return asyncio.run(work)


async def read(llm, request):
    return [chunk async for chunk in llm.stream(request)]


def says(role, text, **more):
    return {"role": role, "content": text, **more}


def words(number, word="word"):
    return " ".join([word] * number)


def conversation(*messages, **changes):
    return Request.parse({"messages": list(messages), "max_new_tokens": 10, **changes})


def counting(scripted, **rest):
    """A scripted model that keeps what it was asked to count: a token is a word."""

    class Counting(scripted):
        counted = 0

        async def count_tokens(self, request):
            self.counted += 1
            return await super().count_tokens(request)

    return Counting(**rest)


def test_far_below_the_context_nothing_is_counted_or_changed(scripted):
    request = conversation(says("user", words(100)))
    most = prompt_bound(request) + request.max_new_tokens
    llm = counting(scripted, context=most)
    done = run(Fit(llm).complete(request))
    assert llm.asked[0] is request
    assert (llm.counted, done.notes) == (1, ())  # the one for the scripted usage
    run(Fit(llm, context=most - 1).complete(request))
    assert llm.counted == 3


def test_where_nobody_knows_the_context_nothing_is_changed(scripted):
    llm = scripted(context=None)
    request = conversation(says("user", words(10**5)))
    assert run(Fit(llm).complete(request)).notes == ()
    assert llm.asked[0] is request


def test_the_oldest_turns_go_first_and_only_as_many_as_must(scripted):
    llm = scripted(context=100)
    turns = [says(role, words(10, f"t{n}")) for n in range(10) for role in ("user", "assistant")]
    last = says("user", words(10, "last"))
    done = run(Fit(llm).complete(conversation(says("system", words(10)), *turns, last)))
    # 90 hold the system's 10, the last 10 and three turns of 20
    assert llm.asked[0].messages == (says("system", words(10)), *turns[-6:], last)
    (note,) = done.notes
    assert note.layer == "fit"
    assert "220 tokens became 80" in note.what
    assert "14 of 22 messages, the oldest, were left out" in note.what
    details = note.details
    assert (details["tokens_before"], details["tokens_after"], details["exact"]) == (220, 80, True)
    assert details["dropped"] == tuple(range(1, 15))


def test_few_counts_find_it(scripted):
    llm = counting(scripted, context=3000)
    turns = [says(role, words(10)) for _ in range(1000) for role in ("user", "assistant")]
    run(Fit(llm).complete(conversation(*turns, says("user", words(10)))))
    assert llm.counted <= 1 + 1 + 10 + 1  # all, least, log2(1000), and the scripted usage's own


def call(name):
    return {"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_calls_and_their_results_go_together_within_the_last_turn_too(scripted):
    llm = scripted(context=60)
    rounds = [
        message
        for n in range(4)
        for message in (
            says("assistant", words(5), tool_calls=[call(f"c{n}")]),
            says("tool", words(15), tool_call_id=f"c{n}"),
        )
    ]
    old = [says("user", words(10)), says("assistant", words(10))]
    asked = says("user", words(8, "please"))
    done = run(Fit(llm).complete(conversation(*old, asked, *rounds)))
    assert llm.asked[0].messages == (asked, *rounds[-4:])
    assert done.notes[0].details["dropped"] == (0, 1, 3, 4, 5, 6)


def test_a_message_that_is_too_long_alone_loses_its_middle(scripted):
    llm = scripted(context=200)
    text = "\n\n".join(f"Paragraph {n} says this and that." for n in range(300))
    done = run(Fit(llm).complete(conversation(says("system", "Be brief."), says("user", text))))
    system, user = llm.asked[0].messages
    assert system == says("system", "Be brief.")
    head, missing, tail = re.fullmatch(
        r"(.*)\n\n\[… ([\d,]+) characters left out …\]\n\n(.*)", user["content"], re.S
    ).groups()
    assert head.startswith("Paragraph 0 says")
    assert head.endswith(".")
    assert tail.startswith("Paragraph ")
    assert tail.endswith("Paragraph 299 says this and that.")
    assert int(missing.replace(",", "")) == pytest.approx(len(text) - len(head) - len(tail), abs=8)
    details = done.notes[0].details
    assert 150 < details["tokens_after"] <= 190
    assert list(details["shortened"]) == [1]
    assert f"message 2 lost {missing} characters" in done.notes[0].what


def test_parts_of_text_are_shortened_and_others_stay(scripted):
    class Parts(scripted):
        async def count_tokens(self, request):
            return sum(len(part.get("text", "image").split()) for part in request.messages[0]["content"])

    llm = Parts(context=100)
    image = {"type": "image_url", "image_url": {"url": "data:x"}}
    run(Fit(llm).complete(conversation(says("user", [{"type": "text", "text": words(500)}, image]))))
    text, kept = llm.asked[0].messages[0]["content"]
    assert kept == image
    assert 50 < len(text["text"].split()) < 90


def test_what_cannot_fit_is_an_error_that_says_what_to_do(scripted):
    llm = scripted(context=100)
    with pytest.raises(
        ContextTooLongError, match=r"need 1\d\d tokens even when shortened, the context holds 100 with 10"
    ):
        run(Fit(llm).complete(conversation(says("system", words(100)), says("user", words(500)))))
    assert llm.asked == []


def test_the_reply_keeps_its_room_but_half_of_the_context_at_most(scripted):
    llm = scripted(context=100)
    done = run(Fit(llm).complete(conversation(says("user", words(20)), max_new_tokens=300)))
    assert llm.asked[0].max_new_tokens == 80
    assert "the reply has room for 80 of 300 tokens" in done.notes[0].what
    run(Fit(llm).complete(conversation(says("user", words(20)), says("user", words(45)), max_new_tokens=300)))
    assert (len(llm.asked[1].messages), llm.asked[1].max_new_tokens) == (1, 55)
    done = run(Fit(llm).complete(conversation(says("user", words(20)), max_new_tokens=80)))
    assert done.notes == ()


def test_where_nobody_counts_an_estimate_from_above_is_told_as_one(scripted):
    can = Capabilities(counts_tokens=False)
    turns = [says(role, "x" * 100) for _ in range(10) for role in ("user", "assistant")]
    request = conversation(*turns, says("user", "x" * 100))
    done = run(Fit(scripted(context=1000, can=can)).complete(request))
    assert done.notes[0].details["exact"] is False
    assert "by an estimate from above" in done.notes[0].what
    llm = scripted(context=1000, can=can)
    kept = run(Fit(llm, bytes_per_token=3).complete(request))
    assert len(llm.asked[0].messages) > len(turns) - len(done.notes[0].details["dropped"])
    assert kept.notes == () or kept.notes[0].details["tokens_after"] <= 990
    with pytest.raises(ConfigError, match="one byte or more"):
        Fit(llm, bytes_per_token=0.5)


def test_a_summary_stands_for_what_went(scripted):
    llm, writer = scripted(context=300), scripted(["They met."], name="writer")
    turns = [says(role, words(20, f"t{n}")) for n in range(20) for role in ("user", "assistant")]
    last = says("user", words(20, "last"))
    done = run(Fit(llm, summariser=writer, summary_tokens=30).complete(conversation(*turns, last)))
    details = done.notes[0].details
    first, *rest = llm.asked[0].messages
    gone = len(details["dropped"])
    assert first["role"] == "user"
    assert first["content"].startswith(f"[Summary of {gone} earlier messages: They met.]\n\n")
    assert first["content"].endswith(turns[gone]["content"])
    assert rest == [*turns[gone + 1 :], last]
    assert details["summary"] == "They met."
    (asked,) = writer.asked
    assert "user: " + words(20, "t0") in asked.messages[1]["content"]
    assert words(20, f"t{gone // 2}") not in asked.messages[1]["content"]  # what stays is not summarised
    own = Usage(run(llm.count_tokens(llm.asked[0])), 1)
    assert done.usage == own + Usage(run(writer.count_tokens(asked)), 2)


def test_a_summary_that_fails_or_is_too_long_leaves_the_turns_out_and_says_so(scripted):
    turns = [says(role, words(20)) for _ in range(20) for role in ("user", "assistant")]
    request = conversation(*turns, says("user", words(20)))
    llm = scripted(context=300)
    down = scripted([ServerFaultError("down", usage=Usage(7, 0))])
    done = run(Fit(llm, summariser=down).complete(request))
    assert "no summary was written: down" in done.notes[0].what
    assert done.usage.prompt_tokens == 7 + run(llm.count_tokens(llm.asked[0]))
    done = run(Fit(llm, summariser=scripted([words(2000, "blah")]), summary_tokens=30).complete(request))
    assert "characters left out" in done.notes[0].details["summary"]
    assert run(llm.count_tokens(llm.asked[1])) == done.notes[0].details["tokens_after"] <= 290


def test_the_cost_of_a_summary_is_added(scripted):
    turns = [says(role, words(20)) for _ in range(20) for role in ("user", "assistant")]
    llm = scripted([Completion("Yes.", "stop", Usage(1, 1), cost=1.0)], context=300)
    writer = scripted([Completion("Short.", "stop", Usage(2, 2), cost=0.5)])
    done = run(Fit(llm, summariser=writer).complete(conversation(*turns, says("user", words(20)))))
    assert (done.cost, done.usage) == (1.5, Usage(3, 3))
    broken = scripted([ServerFaultError("down", cost=0.25)], context=300)
    with pytest.raises(ServerFaultError, match=r"^down$") as caught:
        run(Fit(broken, summariser=writer).complete(conversation(*turns, says("user", words(20)))))
    assert caught.value.cost == 0.75


def test_a_stream_is_fitted_and_noted_at_its_end(scripted):
    llm = scripted(["One two."], context=100)
    pieces = run(read(Fit(llm), conversation(says("user", words(90)), says("user", words(80)))))
    assert [len(piece.completion.notes) for piece in pieces if piece.completion] == [1]
    assert len(llm.asked[0].messages) == 1
    assert run(read(Fit(llm), conversation(says("user", "Hi"))))[-1].completion.notes == ()


def test_a_real_model_is_asked_what_it_holds_and_drops_nothing_itself(random_model):
    """The engine shortens conversations too, silently: with this layer around it, there is nothing left to
    drop."""
    tokenizer = Tokenizer.train([], 265)
    model = LanguageModel(
        random_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256), tokenizer
    )
    with LocalLLM(model) as llm:
        turns = [says(role, f"Turn {n} of many.") for n in range(20) for role in ("user", "assistant")]
        request = conversation(*turns, says("user", "And now?"), max_new_tokens=8)
        done = run(Fit(llm).complete(request))
        details = done.notes[0].details
        assert done.usage.prompt_tokens == details["tokens_after"] <= 248
        assert details["tokens_before"] == len(
            tokenizer.encode_chat(request.messages, add_generation_prompt=True).ids
        )
        one_more = request.messages[len(details["dropped"]) - 2 :]
        assert len(tokenizer.encode_chat(one_more, add_generation_prompt=True).ids) > 248
        done = run(Fit(llm).complete(conversation(says("user", "A long story. " * 100), max_new_tokens=8)))
        assert done.usage.prompt_tokens == done.notes[0].details["tokens_after"] <= 248


texts = st.integers(0, 60).map(words) | st.text(max_size=300)


@st.composite
def conversations(draw):
    messages = [says("system", draw(texts))] if draw(st.booleans()) else []
    number = 0
    for _ in range(draw(st.integers(1, 6))):
        messages.append(says("user", draw(texts)))
        for _ in range(draw(st.integers(0, 3))):
            ids = [f"c{number + n}" for n in range(draw(st.integers(1, 2)))]
            number += len(ids)
            messages.append(says("assistant", draw(texts), tool_calls=[call(name) for name in ids]))
            messages += [says("tool", draw(texts), tool_call_id=name) for name in ids]
        if draw(st.booleans()):
            messages.append(says("assistant", draw(texts)))
    return messages


@pytest.mark.parametrize("summarised", [False, True])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=conversations(), context=st.integers(12, 200), room=st.integers(1, 100), exact=st.booleans())
def test_it_never_exceeds_and_never_breaks_what_belongs_together(
    scripted, summarised, messages, context, room, exact
):
    context = context if exact else context * 8 + 200
    llm = scripted(context=context, can=Capabilities(counts_tokens=exact))
    writer = scripted(["They said this and that."]) if summarised else None
    request = Request.parse({"messages": messages, "max_new_tokens": room})
    last = max(place for place, message in enumerate(messages) if message["role"] == "user")
    system = [message for message in messages if message["role"] == "system"]
    try:
        done = run(Fit(llm, summariser=writer, summary_tokens=8).complete(request))
    except ContextTooLongError:
        newest = [
            place for place, message in enumerate(messages) if place > last and message["role"] == "assistant"
        ]
        stays = [*system, messages[last], *(messages[newest[-1] :] if newest else [])]
        least = run(llm.count_tokens(request.model_copy(update={"messages": tuple(stays)})))
        assert not exact or least > context - min(room, context // 2)
        return
    (asked,) = llm.asked
    counted = run(llm.count_tokens(asked))
    assert counted + asked.max_new_tokens <= context
    if not done.notes:
        assert asked == request
        return
    details = done.notes[0].details
    assert counted == details["tokens_after"] if exact else counted <= details["tokens_after"]
    calls = [each["id"] for message in asked.messages for each in message.get("tool_calls", ())]
    results = [message["tool_call_id"] for message in asked.messages if message["role"] == "tool"]
    assert calls == results
    assert [message for message in asked.messages if message["role"] == "system"] == system
    kept = [message for place, message in enumerate(messages) if place not in details["dropped"]]
    assert [message["role"] for message in asked.messages] == [message["role"] for message in kept]
    assert last not in details["dropped"]
    old = [place for place in range(len(system), last) if place not in details["dropped"]]
    assert old == list(range(last - len(old), last))  # the oldest went
    if not details["shortened"] and details["summary"] is None:
        assert list(asked.messages) == kept


@given(st.text(), st.integers(0, 400))
def test_a_shortened_text_keeps_its_ends_and_no_more_than_told(text, characters):
    short, missing = shorten(text, characters)
    if len(text) <= characters:
        assert (short, missing) == (text, 0)
        return
    found = re.search(r"\[… ([\d,]+) characters left out …\]", short)
    head, tail = short[: found.start()].rstrip(), short[found.end() :].lstrip()
    assert text.startswith(head) or text.strip().startswith(head.strip())
    assert text.rstrip().endswith(tail.rstrip())
    assert len(head) + len(tail) <= characters
    assert int(found[1].replace(",", "")) == missing
    assert len(head) + len(tail) <= len(text) - missing


def test_texts_are_cut_between_sentences_where_there_are_no_paragraphs():
    text = " ".join(f"Sentence number {n} is here." for n in range(100))
    head, _, tail = shorten(text, 400)[0].split("\n\n")
    assert head.endswith("is here.")
    assert tail.startswith("Sentence number")
    assert len(head) > 100
    assert len(tail) > 100
    assert shorten("x" * 100, 20)[0] == f"{'x' * 10}\n\n[… 80 characters left out …]\n\n{'x' * 10}"
