"""Tools, formats and reasoning over HTTP; the model is random, the grammar makes it behave."""

from __future__ import annotations

import json

import pytest
from tests.server.conftest import make_model, serving

from glasshouse.inference import LanguageModel
from glasshouse.inference.reply_parser import ReplyParser
from glasshouse.inference.reply_stream import ReplyStream
from glasshouse.inference.request import Delta, Finish
from glasshouse.tokenizer import Tokenizer
from glasshouse.tools.formats import HERMES, ReplyFormat

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
ZONE = {
    "type": "object",
    "properties": {"zone": {"enum": ["north", "south"]}},
    "required": ["zone"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "clock", "parameters": ZONE}},
    {"type": "function", "function": {"name": "compass", "parameters": ZONE}},
]
USES = [{"name": "clock", "input_schema": ZONE}, {"name": "compass", "input_schema": ZONE}]
TWO_CALLS = """Well.
<tool_call>
{"name": "clock", "arguments": {"zone": "north"}}
</tool_call>
<tool_call>
{"name": "compass", "arguments": {}}
</tool_call>"""


@pytest.fixture(scope="module")
def roomy():
    with serving(make_model(context=1024)) as running:
        yield running


def test_a_forced_call_streams_its_name_first_and_then_its_arguments(roomy):
    body = {"messages": HELLO, "tools": TOOLS, "tool_choice": "required", "max_tokens": 500, "seed": 1}
    whole = roomy.post(CHAT, **body).json["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    chunks = [data["choices"][0] for _, data in roomy.post(CHAT, **body, stream=True).events[:-1]]
    pieces = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", ())]
    first, *rest = [piece for piece in pieces if piece["index"] == 0]
    assert first["type"] == "function"
    assert first["id"].startswith("call_")
    assert first["function"]["arguments"] == ""
    arguments = "".join(piece["function"]["arguments"] for piece in rest)
    assert first["function"]["name"] == whole["message"]["tool_calls"][0]["function"]["name"]
    assert arguments == whole["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments)["zone"] in ("north", "south")
    assert all(set(piece) == {"index", "function"} for piece in rest)
    assert chunks[-1]["finish_reason"] == "tool_calls"


def test_a_forced_use_is_a_block_whose_json_adds_up(roomy):
    body = {"messages": HELLO, "tools": USES, "max_tokens": 500, "seed": 1}
    body["tool_choice"] = {"type": "tool", "name": "compass", "disable_parallel_tool_use": True}
    events = roomy.post("/v1/messages", **body, stream=True).events
    (start,) = [data for name, data in events if name == "content_block_start"]
    assert start["content_block"]["type"] == "tool_use"
    assert start["content_block"]["name"] == "compass"
    assert start["content_block"]["input"] == {}
    pieces = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert {piece["type"] for piece in pieces} == {"input_json_delta"}
    told = json.loads("".join(piece["partial_json"] for piece in pieces))
    assert told["zone"] in ("north", "south")
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"


def test_allowed_tools_are_the_only_ones_called(roomy):
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "compass"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    for seed in range(3):
        body = {"messages": HELLO, "tools": TOOLS, "tool_choice": choice, "max_tokens": 500, "seed": seed}
        calls = roomy.post(CHAT, **body).json["choices"][0]["message"]["tool_calls"]
        assert {call["function"]["name"] for call in calls} == {"compass"}


def test_tools_beside_a_format_leave_the_model_both(roomy):
    """A reply is calls, or a JSON text of the schema."""
    schema = {"type": "json_schema", "json_schema": {"name": "zone", "schema": ZONE}}
    for seed in range(6):
        body = {"messages": HELLO, "tools": TOOLS, "response_format": schema, "max_tokens": 300, "seed": seed}
        message = roomy.post(CHAT, **body).json["choices"][0]["message"]
        if message.get("tool_calls"):
            texts = [call["function"]["arguments"] for call in message["tool_calls"]]
        else:
            texts = [message["content"]]
        assert all(json.loads(text)["zone"] in ("north", "south") for text in texts)


def test_no_tools_are_called_where_none_is_the_choice(roomy):
    plain = roomy.post(CHAT, messages=HELLO, max_tokens=2).json["usage"]["prompt_tokens"]
    body = {"messages": HELLO, "tools": TOOLS, "tool_choice": "none", "max_tokens": 2}
    answer = roomy.post(CHAT, **body).json
    assert "tool_calls" not in answer["choices"][0]["message"]
    assert answer["usage"]["prompt_tokens"] == plain


def test_thinking_is_told_omitted_or_left_out_as_asked(roomy):
    body = {"messages": HELLO, "tools": USES, "tool_choice": {"type": "any"}, "max_tokens": 500}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    for seed in range(20):
        told = roomy.post("/v1/messages", **body, seed=seed, thinking=thinking).json["content"]
        if told[0]["type"] == "thinking":
            break
    else:
        pytest.fail("no reply of 20 began with thinking")
    assert told[0]["thinking"]
    assert roomy.service.signer.valid(told[0]["thinking"], told[0]["signature"])
    hidden = {**thinking, "display": "omitted"}
    omitted = roomy.post("/v1/messages", **body, seed=seed, thinking=hidden).json["content"]
    assert omitted[0]["thinking"] == ""
    assert roomy.service.signer.valid("", omitted[0]["signature"])
    bare = roomy.post("/v1/messages", **body, seed=seed).json["content"]
    assert [block["type"] for block in bare] == [block["type"] for block in told[1:]]


def parts(parallel: bool) -> ReplyStream:
    reply = ReplyStream(ReplyParser(ReplyFormat(HERMES, reasoning=True)), parallel)
    for place, piece in enumerate(TWO_CALLS):
        reply.feed(Delta(0, piece, (place,)))
    reply.feed(Delta(0, "", (), (), Finish("stop")))
    return reply


def test_a_reply_written_freely_is_read_for_its_calls():
    reply = parts(parallel=True)
    assert reply.text == "Well."
    assert [call.name for call in reply.calls] == ["clock", "compass"]
    assert json.loads(reply.calls[0].arguments) == {"zone": "north"}
    assert len({call.id for call in reply.calls}) == 2


def test_after_the_first_call_nothing_is_told_where_calls_may_not_be_parallel():
    reply = parts(parallel=False)
    assert [call.name for call in reply.calls] == ["clock"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "sun"}}}, "sun"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "clock"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "x", "parameters": {"type": "wish"}, "strict": True},
                    }
                ]
            },
            "x",
        ),
        ({"tools": TOOLS, "guided_regex": "a+"}, "JSON schema"),
    ],
)
def test_a_choice_that_is_none_is_a_400_that_says_why(roomy, body, words):
    answer = roomy.post(CHAT, messages=HELLO, **body)
    assert answer.status == 400
    assert words in answer.error["message"]


def test_a_template_that_knows_no_tools_is_a_400(model: LanguageModel):
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    own = model.tokenizer
    tokens = [own.token_bytes(token) for token in range(own.vocab_size)]
    with serving(LanguageModel(model.model, Tokenizer(tokens, own.special, chat_template=template))) as plain:
        told = plain.post(CHAT, messages=HELLO, tools=TOOLS)
        assert told.status == 400
        assert "knows no tools" in told.error["message"]
    with serving(LanguageModel(model.model, Tokenizer(tokens, own.special, chat_template=None))) as base:
        told = base.post("/v1/messages", messages=HELLO, max_tokens=1)
        assert told.status == 400
        assert "no chat template" in told.error["message"]
