"""Ollama's native API: above all, the window is asked for and known."""

from __future__ import annotations

import json

import pytest
from tests.llm.scripted_server import Raw, Reply, failure, rate_limited, vector

from glasshouse.llm import Request, blocking
from glasshouse.llm.errors import BadRequestError, NotAbleError, RateLimitedError, ServerFaultError
from glasshouse.llm.ollama import WINDOW, OllamaLLM

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.fixture
def make(wire):
    made = []

    def make(**settings):
        made.append(OllamaLLM("m", base_url=wire.url, **settings))
        return made[-1]

    yield make
    for llm in made:
        blocking.wait(llm.close())


@pytest.fixture
def llm(make):
    return make()


def show(parameters="", most: int | None = 40960):
    info = {"general.architecture": "qwen3"} | ({"qwen3.context_length": most} if most else {})
    return Raw(body=json.dumps({"model_info": info, "parameters": parameters}).encode())


@pytest.mark.parametrize(
    ("wanted", "told", "window"),
    [
        (None, show("num_ctx 16384\nstop x"), 16384),  # the model's own file
        (4096, show("num_ctx 16384"), 4096),  # the user's word
        (None, show(), WINDOW),  # nobody's word: one that is known all the same
        (None, show(most=2048), 2048),  # no more than the model has
        (100_000, show(), 40960),
        (5000, show(most=None), 5000),
    ],
)
def test_the_window_is_sent_and_known(wanted, told, window, make, wire, ask):
    """Left to itself the server cuts longer prompts silently, to a window that depends on the machine."""
    wire.script(told, path="/api/show")
    llm = make(context=wanted)
    for _ in range(2):
        blocking.complete(llm, ask())
    assert wire.asked[-1].body["options"]["num_ctx"] == window
    assert (wire.asked[-1].body["truncate"], wire.asked[-1].body["shift"]) == (False, False)
    assert llm.context == window
    assert [asked.path for asked in wire.asked] == ["/api/show", "/api/chat", "/api/chat"]


def test_a_request_in_full(llm, wire):
    made = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at": "owl"}'}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    request = Request.parse(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Look."}, picture]},
                {"role": "assistant", "content": None, "tool_calls": [made]},
                {"role": "tool", "tool_call_id": "t1", "content": "an owl"},
            ],
            "max_new_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 3,
            "stop": ["END"],
            "tools": TOOLS,
            "output_schema": {"type": "object"},
        }
    )
    blocking.complete(llm, request)
    body = wire.asked[-1].body
    assert body["options"] == {
        "num_ctx": 8192,
        "num_predict": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["END"],
    }
    assert (body["tools"], body["format"], body["stream"]) == (TOOLS, {"type": "object"}, False)
    assert body["messages"] == [
        {"role": "user", "content": "Look.", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "t1", "function": {"name": "look", "arguments": {"at": "owl"}}}],
        },
        {"role": "tool", "content": "an owl", "tool_call_id": "t1", "tool_name": "look"},
    ]


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_reply_in_full(way, llm, wire, ask):
    wire.script(
        Reply("The owl.", reasoning="Let me look.", tool_calls=(("look", '{"at": "owl"}'),), usage=(40, 7, 0))
    )
    if way == "streamed":
        *pieces, last = blocking.stream(llm, ask(tools=TOOLS))
        done = last.completion
        assert "".join(piece.text for piece in pieces) == done.text
        assert "".join(piece.reasoning for piece in pieces) == done.reasoning
    else:
        done = blocking.complete(llm, ask(tools=TOOLS))
    assert (done.text, done.reasoning, done.finish) == ("The owl.", "Let me look.", "tool_calls")
    function = done.tool_calls[0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("look", {"at": "owl"})
    assert (done.usage.prompt_tokens, done.usage.new_tokens) == (40, 7)


def test_logprobs_where_the_server_tells_them(llm, wire, ask):
    wire.script(Reply("The owl.", logprobs=(-0.5, -0.25)))
    done = blocking.complete(llm, ask(logprobs=2))
    assert [score.logprob for score in done.logprobs] == [-0.5, -0.25]
    assert wire.asked[-1].body["top_logprobs"] == 2
    wire.script(Reply("The owl."))
    done = blocking.complete(llm, ask(logprobs=2))
    assert (done.logprobs, done.ignored) == (None, ("logprobs",))


def test_a_tool_cannot_be_forced(llm, wire, ask):
    assert blocking.complete(llm, ask(tools=TOOLS, tool_choice="required")).ignored == ("tool_choice",)
    assert blocking.complete(llm, ask(tools=TOOLS, tool_choice="auto")).ignored == ()
    assert blocking.complete(llm, ask(tools=TOOLS, tool_choice="none")).ignored == ()
    assert "tools" not in wire.asked[-1].body


def test_a_model_that_is_not_there(llm, wire, ask):
    wire.script(Raw(404, b'{"error": "model \'m\' not found"}'), path="/api/show")
    with pytest.raises(BadRequestError, match="ollama pull m"):
        blocking.complete(llm, ask())


def test_a_failed_question_for_the_window_is_asked_again(llm, wire, ask):
    wire.script(rate_limited("3"), failure(500), show(), path="/api/show")
    with pytest.raises(RateLimitedError):
        blocking.complete(llm, ask())
    with pytest.raises(ServerFaultError):
        blocking.complete(llm, ask())
    assert blocking.complete(llm, ask()).text == "Yes."


def test_vectors_and_no_counts(llm, wire, ask):
    assert blocking.wait(llm.embed(["a", "b c"])) == [vector("a"), vector("b c")]
    assert blocking.wait(llm.embed([])) == []
    with pytest.raises(NotAbleError):
        blocking.wait(llm.count_tokens(ask()))
    assert not llm.can.counts_tokens


def test_extra_body_goes_along(make, wire, ask):
    blocking.complete(make(extra_body={"think": False, "options": {"top_k": 5}}), ask())
    assert wire.asked[-1].body["think"] is False
    assert (wire.asked[-1].body["options"]["top_k"], wire.asked[-1].body["options"]["num_ctx"]) == (5, 8192)
