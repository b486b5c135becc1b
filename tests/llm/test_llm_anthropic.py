"""Anthropic's messages: conversations and tools translated both ways, thoughts, refusals, counts."""

from __future__ import annotations

import pytest
from tests.llm.scripted_server import Reply, failure, unsupported

from glasshouse.llm import Request, blocking
from glasshouse.llm.anthropic_backend import AnthropicLLM
from glasshouse.llm.errors import BadRequestError, NotAbleError

PARAMETERS = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
TOOLS = [{"type": "function", "function": {"name": "look", "description": "Look.", "parameters": PARAMETERS}}]


@pytest.fixture
def llm(wire):
    llm = AnthropicLLM("m", api_key="sk-ant-test", base_url=wire.url)
    yield llm
    blocking.wait(llm.close())


def text(words):
    return {"type": "text", "text": words}


def call(id, arguments):
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}}


def test_a_conversation_with_tools_in_their_shape(llm, wire):
    request = Request.parse(
        {
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Look twice."},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [call("t1", '{"at": "owl"}'), call("t2", '{"at": "elk"}')],
                },
                {"role": "tool", "tool_call_id": "t1", "content": "an owl"},
                {"role": "tool", "tool_call_id": "t2", "content": "an elk"},
                {"role": "system", "content": "Be kind."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "And?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                        {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}},
                    ],
                },
            ],
            "max_new_tokens": 9,
            "stop": ["END"],
            "tools": TOOLS,
            "tool_choice": "required",
        }
    )
    blocking.complete(llm, request)
    assert wire.asked[-1].body == {
        "model": "m",
        "max_tokens": 9,
        "stream": False,
        "system": "Be short.\n\nBe kind.",
        "stop_sequences": ["END"],
        "tools": [{"name": "look", "description": "Look.", "input_schema": PARAMETERS}],
        "tool_choice": {"type": "any"},
        "messages": [
            {"role": "user", "content": [text("Look twice.")]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "owl"}},
                    {"type": "tool_use", "id": "t2", "name": "look", "input": {"at": "elk"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [text("an owl")]},
                    {"type": "tool_result", "tool_use_id": "t2", "content": [text("an elk")]},
                    text("And?"),
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/x.png"}},
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("look", {"type": "tool", "name": "look"}),
    ],
)
def test_which_tool(choice, sent, llm, wire, ask):
    blocking.complete(llm, ask(tools=TOOLS, tool_choice=choice))
    assert wire.asked[-1].body["tool_choice"] == sent


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_reply_in_full(way, llm, wire, ask):
    wire.script(
        Reply("The owl.", reasoning="Let me look.", tool_calls=(("look", '{"at": "owl"}'), ("look", "{}")))
    )
    request = ask(tools=TOOLS)
    if way == "streamed":
        *pieces, last = blocking.stream(llm, request)
        done = last.completion
        assert "".join(piece.text for piece in pieces) == done.text
        assert "".join(piece.reasoning for piece in pieces) == done.reasoning
        assert len(pieces) == 5
    else:
        done = blocking.complete(llm, request)
    assert (done.text, done.reasoning, done.finish) == ("The owl.", "Let me look.", "tool_calls")
    told = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in done.tool_calls]
    assert told == [("toolu_0", "look", '{"at": "owl"}'), ("toolu_1", "look", "{}")]
    assert (done.model, done.id) == ("m-as-served", "req_scripted")

    # Thoughts that came with a call go back with it, signed as they were: the API asks for them.
    messages = [
        *request.messages,
        {"role": "assistant", "content": done.text, "tool_calls": list(done.tool_calls[:1])},
        {"role": "tool", "tool_call_id": "toolu_0", "content": "an owl"},
    ]
    blocking.complete(llm, Request.parse({"messages": messages, "tools": TOOLS}))
    sent = wire.asked[-1].body["messages"][1]["content"]
    thought = {"type": "thinking", "thinking": "Let me look.", "signature": "c2lnbmVk"}
    assert sent[:2] == [thought, text("The owl.")]
    assert sent[2]["id"] == "toolu_0"


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_how_replies_end(way, llm, wire, ask):
    for word, finish in (
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
    ):
        wire.script(Reply("x", finish=word))
        if way == "streamed":
            *_, last = blocking.stream(llm, ask())
            done = last.completion
        else:
            done = blocking.complete(llm, ask())
        assert done.finish == finish


def test_what_this_api_has_not_is_told_and_not_sent(llm, wire, ask):
    """Its version 2026-10-21 answers 400 to a temperature, and never had a seed."""
    done = blocking.complete(llm, ask(temperature=0.5, top_p=0.5, seed=1, logprobs=0))
    assert set(done.ignored) == {"temperature", "top_p", "seed", "logprobs"}
    assert set(wire.asked[-1].body) == {"model", "messages", "max_tokens", "stream"}
    assert (llm.can.temperature, llm.can.top_p, llm.can.seed, llm.can.logprobs) == (False,) * 4
    assert blocking.complete(llm, ask()).ignored == ()


def test_a_schema_is_kept_by_the_api(llm, wire, ask):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    done = blocking.complete(llm, ask(output_schema=schema))
    sent = wire.asked[-1].body["output_config"]["format"]
    assert sent == {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}
    assert done.ignored == ()


def test_a_model_without_schemas(llm, wire, ask):
    wire.script(unsupported("output_config"), Reply("Yes."))
    done = blocking.complete(llm, ask(output_schema={"type": "object"}))
    assert (done.text, done.ignored) == ("Yes.", ("output_schema",))
    assert not llm.can.output_schema
    blocking.complete(llm, ask(output_schema={"type": "object"}))
    assert len(wire.asked) == 3


def test_cached_tokens_are_part_of_the_prompt(llm, wire, ask):
    wire.script(Reply("Yes.", usage=(100, 2, 60)))
    usage = blocking.complete(llm, ask()).usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.cache_write_tokens) == (100, 60, 0)
    *_, last = blocking.stream(llm, ask())
    assert last.completion.usage == usage


def test_tokens_are_counted_by_the_api(llm, wire, ask):
    assert blocking.wait(llm.count_tokens(ask("one two three", tools=TOOLS, max_new_tokens=5))) == 3
    assert wire.asked[-1].path == "/v1/messages/count_tokens"
    assert "max_tokens" not in wire.asked[-1].body
    wire.script(failure(500), path="/v1/messages/count_tokens")
    with pytest.raises(Exception, match="500"):
        blocking.wait(llm.count_tokens(ask()))


def test_what_cannot_be_sent(llm, wire, ask):
    with pytest.raises(NotAbleError, match="vectors"):
        blocking.wait(llm.embed(["x"]))
    broken = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": "", "tool_calls": [call("t1", '{"at": ')]},
        {"role": "tool", "tool_call_id": "t1", "content": "?"},
    ]
    with pytest.raises(BadRequestError, match="arguments"):
        blocking.complete(llm, Request.parse({"messages": broken}))
    audio = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]
    with pytest.raises(BadRequestError, match="input_audio"):
        blocking.complete(llm, Request.parse({"messages": audio}))
    assert wire.asked == []


def test_extra_body_goes_along(wire, ask):
    thinking = {"thinking": {"type": "adaptive"}}
    llm = AnthropicLLM("m", api_key="x", base_url=wire.url, extra_body=thinking)
    blocking.complete(llm, ask())
    assert wire.asked[-1].body["thinking"] == {"type": "adaptive"}
    blocking.wait(llm.close())
