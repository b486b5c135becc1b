"""The engine behind the small interface: several conversations at once, each as if it were alone."""

import asyncio
import json

import pytest

from glasshouse.core.errors import ConfigError
from glasshouse.inference import LanguageModel
from glasshouse.llm import LocalLLM, Request, blocking, complete_all
from glasshouse.llm.errors import BadRequestError, ContextTooLongError
from glasshouse.tokenizer import Tokenizer
from glasshouse.tools.definition import ToolDefinition


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


@pytest.fixture(scope="module")
def bigger(random_model):
    """Room for a prompt with tools."""
    tokenizer = Tokenizer.train([], 265)
    shape = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 1024}
    return LanguageModel(random_model(**shape), tokenizer)


@pytest.fixture
def roomy(bigger):
    with LocalLLM(bigger) as llm:
        yield llm


def look(**more):
    parameters = {
        "type": "object",
        "properties": {"at": {"enum": ["owl", "elk"]}},
        "required": ["at"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": "look", "parameters": parameters, **more}}


@pytest.mark.parametrize("seed", range(3))
def test_a_forced_tool_call_follows_its_schema(seed, roomy):
    """Whatever the model, here one of noise: the grammar holds it."""
    tools = [look(), {"type": "function", "function": {"name": "wait"}}]
    request = asked("Hi", tools=tools, tool_choice="look", max_new_tokens=200, seed=seed)
    *pieces, last = blocking.stream(roomy, request)
    done = last.completion
    assert (done.finish, done.text) == ("tool_calls", "")
    for call in done.tool_calls:
        assert call["type"] == "function"
        assert call["id"]
        assert call["function"]["name"] == "look"
        assert json.loads(call["function"]["arguments"])["at"] in ("owl", "elk")
    assert done.tool_calls
    assert all(not piece.text for piece in pieces)


def test_a_conversation_with_tools_is_read_as_the_template_has_it(roomy, bigger):
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at": "owl"}'}}
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Look."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "an owl"},
    ]
    request = Request.parse({"messages": messages, "tools": [look()], "max_new_tokens": 3})
    (done,) = complete_all(roomy, [request])
    plain = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Look."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**call, "function": {"name": "look", "arguments": {"at": "owl"}}}],
        },
        {"role": "tool", "content": "an owl", "name": "look", "tool_call_id": "t1"},
    ]
    shown = ToolDefinition.from_openai(look()).for_template()
    ids = bigger.tokenizer.encode_chat(plain, True, [shown]).ids
    assert done.usage.prompt_tokens == blocking.wait(roomy.count_tokens(request)) == len(ids)


@pytest.mark.parametrize("seed", range(3))
def test_a_schema_is_followed_by_any_model(seed, roomy):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 9}, "ok": {"type": "boolean"}},
        "required": ["n", "ok"],
        "additionalProperties": False,
    }
    (done,) = complete_all(roomy, [asked("Hi", output_schema=schema, max_new_tokens=100, seed=seed)])
    made = json.loads(done.text)
    assert 3 <= made["n"] <= 9
    assert isinstance(made["ok"], bool)
    assert done.finish == "stop"


def test_log_probabilities_are_the_models_own(llm, model):
    """Against the logits of the whole text, at temperature 1."""
    request = asked("Hi", logprobs=3, max_new_tokens=5, temperature=0.0)
    (done,) = complete_all(llm, [request])
    prompt = model.tokenizer.encode_chat(list(request.messages), add_generation_prompt=True).ids
    ids = list(prompt)
    assert len(done.logprobs) == done.usage.new_tokens
    for score in done.logprobs:
        logprobs = model.logits([ids])[0, -1].log_softmax(-1)
        best = logprobs.topk(3)
        assert [value for _, value in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert score.logprob == pytest.approx(best.values[0].item(), abs=1e-4)  # greedy
        assert score.token == score.top[0][0]
        ids.append(int(best.indices[0]))


def test_vectors_are_the_mean_of_the_last_hidden_states(llm, model):
    texts = ["Hi", "Ada keeps an owl."]
    vectors = blocking.wait(llm.embed(texts))
    assert [len(vector) for vector in vectors] == [model.model.config.hidden_size] * 2
    assert [sum(x * x for x in vector) for vector in vectors] == pytest.approx([1, 1], abs=1e-4)
    assert vectors == [pytest.approx(blocking.wait(llm.embed([text]))[0], abs=1e-4) for text in texts]
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-2)
    assert blocking.wait(llm.embed([])) == []
    with pytest.raises(ContextTooLongError, match="tokens"):
        blocking.wait(llm.embed(["x" * 500]))


def test_a_prompt_read_before_is_told_as_cached(roomy):
    request = asked("Tell me of Ada Moor and her owl, and of all that she does in Tarnhaven. " * 6)
    first, second = (complete_all(roomy, [request])[0] for _ in range(2))
    assert (first.usage.cached_tokens, first.text) == (0, second.text)
    assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens


def test_turns_left_out_are_told_and_counted(llm):
    """The count is of the whole conversation: whoever shortens it must know how long it was."""
    turns = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Yes"}] * 6
    request = Request.parse({"messages": [*turns, turns[0]], "max_new_tokens": 4})
    (done,) = complete_all(llm, [request])
    (note,) = done.notes
    assert note.layer == "local"
    assert note.details["dropped"] > 0
    assert blocking.wait(llm.count_tokens(request)) > 128 > done.usage.prompt_tokens


def test_what_this_model_cannot_do_is_an_error(llm, roomy):
    def failing(model, words, **changes):
        with pytest.raises(BadRequestError, match=words):
            complete_all(model, [asked("Hi", **changes)])

    failing(roomy, "no tool called 'fly'", tools=[look()], tool_choice="fly")
    failing(roomy, "there are no tools", tool_choice="required")
    failing(roomy, "cannot be the name", tools=[look(name="not a name")])
    failing(llm, "(?i)schema|regex|pattern|grammar", output_schema={"type": "no such type"})
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    with pytest.raises(BadRequestError, match="image_url"):
        complete_all(llm, [Request.parse({"messages": picture})])


def test_a_model_whose_template_knows_no_tools(random_model):
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>\n{% endfor %}"
    own = Tokenizer.train([], 265)
    tokens = [own.token_bytes(token) for token in range(own.vocab_size)]
    tokenizer = Tokenizer(tokens, own.special, chat_template=template)
    model = LanguageModel(random_model(vocab_size=own.vocab_size), tokenizer)
    with LocalLLM(model) as llm:
        assert not llm.can.tools
        with pytest.raises(BadRequestError, match="knows no tools"):
            complete_all(llm, [asked("Hi", tools=[look()])])


def test_closing_twice_is_closing_once(model):
    llm = LocalLLM(model)
    blocking.wait(llm.close())
    blocking.wait(llm.close())
