"""OpenAI's chat completions: what goes out, what comes back, and what a server does not know."""

from __future__ import annotations

import asyncio
import hashlib
import json
from types import SimpleNamespace

import pytest
from tests.llm.scripted_server import Raw, Reply, failure, unsupported, vector

from glasshouse.llm import blocking
from glasshouse.llm.errors import BadRequestError, NotAbleError
from glasshouse.llm.openai_backend import OpenAILLM

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
STRICT = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.fixture
def llm(wire):
    """A compatible server."""
    llm = OpenAILLM("m", base_url=f"{wire.url}/v1", name="there")
    yield llm
    blocking.wait(llm.close())


@pytest.fixture
def own(wire, monkeypatch):
    """OpenAI itself, as far as the backend knows."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
    llm = OpenAILLM("m", api_key="sk-test")
    yield llm
    blocking.wait(llm.close())


def streamed(llm, request):
    *pieces, last = blocking.stream(llm, request)
    return pieces, last.completion


def test_a_request_in_full(llm, wire, ask):
    request = ask(
        "Hi",
        max_new_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=("END",),
        tools=TOOLS,
        tool_choice="look",
        output_schema=STRICT,
        logprobs=2,
        labels={"arm": "b"},
    )
    done = blocking.complete(llm, request)
    assert wire.asked[-1].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["END"],
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": STRICT, "strict": True},
        },
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert (done.model, done.id) == ("m-as-served", "req_scripted")


def test_what_is_not_asked_is_not_sent(llm, wire, ask):
    blocking.complete(llm, ask("Hi"))
    assert set(wire.asked[-1].body) == {"model", "messages", "max_tokens"}


def test_openai_itself_is_asked_with_its_newer_name(own, wire, ask):
    blocking.complete(own, ask("Hi", max_new_tokens=9))
    assert wire.asked[-1].body["max_completion_tokens"] == 9
    assert "max_tokens" not in wire.asked[-1].body


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_reply_in_full(way, llm, wire, ask):
    wire.script(
        Reply(
            "The owl sees.",
            reasoning="Let me look.",
            tool_calls=(("look", '{"at": "owl"}'), ("look", "{}")),
            logprobs=(-0.1, -0.2, -0.3),
        )
    )
    request = ask(tools=TOOLS, logprobs=2)
    pieces, done = streamed(llm, request) if way == "streamed" else ([], blocking.complete(llm, request))
    assert (done.text, done.reasoning, done.finish) == ("The owl sees.", "Let me look.", "tool_calls")
    assert [call["function"]["arguments"] for call in done.tool_calls] == ['{"at": "owl"}', "{}"]
    assert [call["id"] for call in done.tool_calls] == ["call_0", "call_1"]
    assert [score.logprob for score in done.logprobs] == [-0.1, -0.2, -0.3]
    assert done.logprobs[0].top == (("The ", -0.1), ("no", -9.0))
    assert done.usage.reasoning_tokens == 3
    if pieces:
        assert "".join(piece.text for piece in pieces) == done.text
        assert "".join(piece.reasoning for piece in pieces) == done.reasoning
        assert len(pieces) == 6


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_how_replies_end(way, llm, wire, ask):
    for word, finish in (
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "refusal"),
        ("eos", "stop"),
    ):
        wire.script(Reply("x", finish=word))
        done = streamed(llm, ask())[1] if way == "streamed" else blocking.complete(llm, ask())
        assert done.finish == finish
    wire.script(Reply("", tool_calls=(("look", "{}"),), finish="stop"))  # as a forced call ends
    assert blocking.complete(llm, ask(tools=TOOLS)).finish == "tool_calls"


def test_a_setting_that_the_model_has_not_is_left_out_and_told(own, wire, ask):
    wire.script(unsupported("temperature"), unsupported("seed"), Reply("Yes."))
    request = ask(temperature=0.5, seed=1, top_p=0.5)
    done = blocking.complete(own, request)
    assert (done.text, set(done.ignored)) == ("Yes.", {"temperature", "seed"})
    assert len(wire.asked) == 3
    assert (own.can.temperature, own.can.seed, own.can.top_p) == (False, False, True)
    done = streamed(own, request)[1]  # remembered
    assert len(wire.asked) == 4
    assert set(done.ignored) == {"temperature", "seed"}
    assert wire.asked[-1].body["top_p"] == 0.5
    assert blocking.complete(own, ask()).ignored == ()  # nothing was asked that was not followed


@pytest.mark.parametrize(
    "step",
    [
        failure(
            400,
            "Unsupported value: 'temperature' does not support 0.5 with this model.",
            code="unsupported_value",
            param="temperature",
        ),
        failure(400, "`temperature` is deprecated for this model."),
        failure(422, "temperature: Extra inputs are not permitted"),
        Raw(400, json.dumps({"detail": "unknown field: temperature"}).encode()),
        Raw(400, json.dumps({"object": "error", "message": "unexpected keyword 'temperature'"}).encode()),
    ],
)
def test_the_many_words_for_no_such_setting(step, llm, wire, ask):
    wire.script(step, Reply("Yes."))
    assert blocking.complete(llm, ask(temperature=0.5)).ignored == ("temperature",)


def test_a_value_out_of_its_range_is_the_callers_mistake(llm, wire, ask):
    for message in ("temperature must be at most 2", "temperature and top_p cannot both be specified"):
        wire.script(failure(400, message, param="temperature"))
        with pytest.raises(BadRequestError, match="temperature"):
            blocking.complete(llm, ask(temperature=0.5))
    assert llm.can.temperature


def test_tools_are_never_left_out(llm, wire, ask):
    wire.script(unsupported("tools"))
    with pytest.raises(BadRequestError, match="tools"):
        blocking.complete(llm, ask(tools=TOOLS))


def test_the_name_for_the_length_of_a_reply_is_learnt(llm, wire, ask):
    wire.script(unsupported("max_tokens"), Reply("Yes."))
    done = blocking.complete(llm, ask(max_new_tokens=9))
    assert wire.asked[-1].body["max_completion_tokens"] == 9
    assert done.ignored == ()
    blocking.complete(llm, ask())
    assert len(wire.asked) == 3


def test_a_server_that_tells_no_logprobs(llm, wire, ask):
    done = blocking.complete(llm, ask(logprobs=0))
    assert (done.logprobs, done.ignored) == (None, ("logprobs",))
    assert "top_logprobs" not in wire.asked[-1].body


def test_openai_keeps_only_strict_schemas(own, wire, ask):
    """Others are advice to the model there, and `ignored` says so; other servers decode by any schema."""
    loose = {"type": "object", "properties": {"a": {"type": "integer"}}}
    nested = {**STRICT, "properties": {"a": {"type": "array", "items": loose}}}
    for schema, strict in ((STRICT, True), (loose, False), (nested, False)):
        done = blocking.complete(own, ask(output_schema=schema))
        assert wire.asked[-1].body["response_format"]["json_schema"]["strict"] is strict
        assert done.ignored == (() if strict else ("output_schema",))


def test_a_server_without_token_counts(llm, wire, ask):
    """Unknown is not zero: a note says so."""
    body = {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    }
    wire.script(Raw(body=json.dumps(body).encode(), headers={"content-type": "application/json"}))
    done = blocking.complete(llm, ask())
    assert done.text == "Hi"
    assert "no token counts" in done.notes[0].what


def test_extra_body_goes_along(wire, ask):
    llm = OpenAILLM("m", base_url=f"{wire.url}/v1", extra_body={"top_k": 5})
    blocking.complete(llm, ask())
    assert wire.asked[-1].body["top_k"] == 5
    blocking.wait(llm.close())


def test_vectors_in_the_order_of_their_texts(llm, wire):
    texts = ["a", "two words", "three little words"]
    assert blocking.wait(llm.embed(texts)) == [vector(text) for text in texts]
    assert blocking.wait(llm.embed([])) == []
    assert len(wire.asked) == 1
    wire.script(failure(404), path="/v1/embeddings")
    with pytest.raises(NotAbleError, match="vectors"):
        blocking.wait(llm.embed(texts))
    wire.script(failure(400, "bad"), path="/v1/embeddings")
    with pytest.raises(BadRequestError):
        blocking.wait(llm.embed(texts))


def answer(**body):
    return Raw(body=json.dumps(body).encode(), headers={"content-type": "application/json"})


def test_tokens_counted_as_vllm_does(llm, wire, ask):
    wire.script(answer(tokens=[1, 2, 3], count=3, max_model_len=99), path="/tokenize")
    assert llm.context is None
    assert blocking.wait(llm.count_tokens(ask(tools=TOOLS))) == 3
    assert wire.asked[-1].body["tools"] == TOOLS
    assert llm.context == 99


def test_tokens_counted_as_llama_cpp_does(llm, wire, ask):
    wire.script(answer(prompt="<s>user: Is it so?"), path="/apply-template")
    wire.script(lambda asked: answer(tokens=asked.body.get("content", "").split()), path="/tokenize")
    for calls in (3, 2):  # which way there is, is asked once
        before = len(wire.asked)
        assert blocking.wait(llm.count_tokens(ask())) == 4
        assert len(wire.asked) - before == calls


def test_who_cannot_count_says_so(llm, own, ask):
    assert llm.can.counts_tokens
    for _ in range(2):
        with pytest.raises(NotAbleError, match="count"):
            blocking.wait(llm.count_tokens(ask()))
    with pytest.raises(NotAbleError, match="count"):
        blocking.wait(own.count_tokens(ask()))
    assert not own.can.counts_tokens


def test_openais_tokens_are_counted_where_its_tokenizer_is_on_this_disk(tmp_path, monkeypatch, ask):
    """With the published arithmetic: 3 for each message, 3 for the reply's beginning. Nothing is fetched."""
    import tiktoken

    address = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert not OpenAILLM("gpt-4o", api_key="x").can.counts_tokens
    (tmp_path / hashlib.sha1(address.encode()).hexdigest()).write_text("there")
    words = SimpleNamespace(encode=lambda text, disallowed_special: text.split())
    monkeypatch.setattr(tiktoken, "get_encoding", {"o200k_base": words}.__getitem__)
    llm = OpenAILLM("gpt-4o", api_key="x")
    assert llm.can.counts_tokens
    assert blocking.wait(llm.count_tokens(ask("Is it so?"))) == 3 + (3 + 1 + 3)
    with pytest.raises(NotAbleError, match="not published"):
        blocking.wait(llm.count_tokens(ask(tools=TOOLS)))


def test_nothing_is_sent_before_the_first_call(wire):
    asyncio.run(OpenAILLM("m", base_url=f"{wire.url}/v1").close())
    assert wire.asked == []
