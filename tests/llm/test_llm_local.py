"""The engine behind the small interface: several conversations at once, each as if it were alone."""

import asyncio

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.inference import LanguageModel
from glasshouse.llm import LocalLLM, Request, blocking, complete_all
from glasshouse.llm.errors import ContextTooLongError
from glasshouse.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(random_model):
    """A model of noise with plain bytes."""
    tokenizer = Tokenizer.train([], 265)
    shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 128}
    return LanguageModel(random_model(**shape), tokenizer)


@pytest.fixture
def llm(model):
    with LocalLLM(model) as llm:
        yield llm


def asked(text, **changes):
    messages = [{"role": "user", "content": text}]
    return Request.parse({"messages": messages, "max_new_tokens": 8, "temperature": 1.0, **changes})


def test_many_conversations_at_once_get_the_replies_they_would_get_alone(llm):
    requests = [asked(f"Say {n}", seed=n) for n in range(20)]
    alone = [asyncio.run(llm.complete(request)).text for request in requests]
    assert [done.text for done in complete_all(llm, requests)] == alone
    assert len(set(alone)) > 10


def test_greedy_replies_are_those_of_chat(llm, model):
    request = asked("Hello", temperature=0.0)
    (done,) = complete_all(llm, [request])
    assert done.text == model.chat(list(request.messages), max_new_tokens=8).text


def test_the_seed_decides_a_sampled_reply(llm):
    first, again, other = complete_all(llm, [asked("Hi", seed=1), asked("Hi", seed=1), asked("Hi", seed=2)])
    assert first.text == again.text
    assert first.text != other.text


def test_a_reply_tells_how_it_ended_and_what_was_read(llm, model):
    (done,) = complete_all(llm, [asked("Hi", max_new_tokens=3)])
    prompt = model.tokenizer.encode_chat([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert (done.usage.prompt_tokens, done.usage.new_tokens, done.finish) == (len(prompt.ids), 3, "length")
    text = complete_all(llm, [asked("Hi", max_new_tokens=8)])[0].text
    (cut,) = complete_all(llm, [asked("Hi", max_new_tokens=8, stop=(text[2:4],))])
    assert (cut.text, cut.finish) == (text[: text.index(text[2:4])], "stop")


def test_a_conversation_that_cannot_be_answered_is_an_error(llm):
    with pytest.raises(ContextTooLongError, match="context holds 128"):
        complete_all(llm, [asked("x" * 500)])
    with pytest.raises(ConfigError, match="messages"):
        Request.parse({"messages": []})


def test_nothing_asked_is_nothing_answered(llm):
    assert complete_all(llm, []) == []


def test_a_stream_is_the_reply_in_pieces(llm):
    """Without an event loop, too; whoever stops reading stops the reply."""
    (whole,) = complete_all(llm, [asked("Hi")])
    pieces = list(blocking.stream(llm, asked("Hi")))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.completion is None for piece in pieces[:-1]] == [True] * (len(pieces) - 1)
    assert (pieces[-1].completion.text, pieces[-1].completion.usage.new_tokens) == (whole.text, 8)
    for _ in blocking.stream(llm, asked("Hi", max_new_tokens=100)):
        break


def test_the_prompt_is_counted_as_the_model_reads_it(llm):
    (done,) = complete_all(llm, [asked("Hi")])
    assert blocking.wait(llm.count_tokens(asked("Hi"))) == done.usage.prompt_tokens
