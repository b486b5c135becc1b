"""POST /v1/messages, event by event, and count_tokens."""

from __future__ import annotations

import pytest

from glasshouse.server.signatures import Signer

PATH = "/v1/messages"
HELLO = [{"role": "user", "content": "Hello"}]


def test_a_stream_has_its_named_events_in_order(server):
    answer = server.post(PATH, messages=HELLO, max_tokens=8, stream=True, seed=3)
    names = [name for name, _ in answer.events]
    assert all(name == data["type"] for name, data in answer.events)
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[3:-3]) == {"content_block_delta"}
    start = answer.events[0][1]["message"]
    assert start["content"] == []
    assert start["stop_reason"] is None
    assert start["usage"]["output_tokens"] == 0
    end = answer.events[-2][1]
    assert end["delta"]["stop_reason"] == "max_tokens"
    assert end["usage"]["output_tokens"] == 8


def test_a_stream_says_what_the_whole_message_says(server):
    body = {"messages": HELLO, "max_tokens": 20, "seed": 11}
    whole = server.post(PATH, **body).json
    events = server.post(PATH, **body, stream=True).events
    text = "".join(data["delta"]["text"] for name, data in events if name == "content_block_delta")
    assert [{"type": "text", "text": text}] == whole["content"]


def test_input_tokens_are_those_that_count_tokens_counts(server):
    body = {"messages": HELLO, "system": "Be brief"}
    usage = server.post(PATH, **body, max_tokens=2).json["usage"]
    counted = server.post(f"{PATH}/count_tokens", **body).json
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted["input_tokens"]


def test_a_stop_sequence_is_named(server):
    whole = server.post(PATH, messages=HELLO, max_tokens=60, seed=2).json
    text = whole["content"][0]["text"]
    stop = text[6:8]
    cut = server.post(PATH, messages=HELLO, max_tokens=60, seed=2, stop_sequences=["zzzz", stop]).json
    assert cut["stop_reason"] == "stop_sequence"
    assert cut["stop_sequence"] == stop
    assert cut["content"][0]["text"] == text[: text.index(stop)]


def test_a_full_context_is_its_own_reason(server):
    nearly = [{"role": "user", "content": "x " * 118}]
    answer = server.post(PATH, messages=nearly, max_tokens=1000, temperature=0).json
    assert answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"] == 256
    assert answer["stop_reason"] == "model_context_window_exceeded"


def test_the_last_message_of_the_assistant_is_continued(server, model):
    beginning = [*HELLO, {"role": "assistant", "content": "Ada Moor was"}]
    usage = server.post(PATH, messages=beginning, max_tokens=2).json["usage"]
    rendered = model.tokenizer.render(HELLO, add_generation_prompt=True) + "Ada Moor was"
    expected = len(model.tokenizer.encode_with_special(rendered))
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == expected


def test_consecutive_turns_of_a_role_are_one_turn(server):
    split = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "there"}]
    joined = [{"role": "user", "content": "Hello\nthere"}]
    counts = [server.post(f"{PATH}/count_tokens", messages=m).json for m in (split, joined)]
    assert counts[0] == counts[1]


def test_thinking_that_we_signed_comes_back_and_any_other_does_not(server):
    signer: Signer = server.service.signer
    for thinking, signature, status in [
        ("I think", signer.sign("I think"), 200),
        ("I thought", signer.sign("I think"), 400),
        ("I think", "bm90IG91cnM=", 400),
    ]:
        block = {"type": "thinking", "thinking": thinking, "signature": signature}
        said = {"role": "assistant", "content": [block, {"type": "text", "text": "Yes"}]}
        answer = server.post(PATH, messages=[*HELLO, said, *HELLO], max_tokens=2)
        assert answer.status == status
        if status == 400:
            assert "signature" in answer.error["message"]


def test_a_prompt_longer_than_the_context_has_anthropics_words(server):
    answer = server.post(PATH, messages=[{"role": "user", "content": "owl " * 400}], max_tokens=5)
    assert answer.status == 400
    assert answer.json["type"] == "error"
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["message"].startswith("prompt is too long")
    assert answer.json["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": HELLO}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": [], "max_tokens": 1}, "messages"),
        ({"messages": HELLO, "max_tokens": 1, "temperature": 1.5}, "temperature"),
        ({"messages": [{"role": "assistant", "content": "x"}], "max_tokens": 1}, "user"),
        (
            {"messages": [*HELLO, {"role": "assistant", "content": "x "}], "max_tokens": 1},
            "trailing whitespace",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}], "max_tokens": 1},
            "text only",
        ),
    ],
)
def test_what_cannot_be_answered_is_an_invalid_request(server, body, words):
    answer = server.post(PATH, **body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert words in answer.error["message"]


def test_a_model_that_is_not_served_is_a_not_found_error(server):
    answer = server.ask("POST", PATH, {"model": "other", "messages": HELLO, "max_tokens": 1})
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")


def test_models_are_listed_in_the_dialect_of_who_asks(server):
    assert server.get("/v1/models").json["object"] == "list"
    told = server.get("/v1/models", **{"anthropic-version": "2023-06-01"}).json
    assert told["data"][0]["type"] == "model"
    assert told["first_id"] == told["last_id"] == "tiny"
    assert server.get("/v1/models/tiny").json["id"] == "tiny"
    assert server.get("/v1/models/none").status == 404
