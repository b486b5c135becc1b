"""POST /v1/chat/completions, event by event."""

from __future__ import annotations

import pytest

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def test_a_stream_tells_the_role_first_and_ends_with_reason_usage_and_done(server):
    body = {"messages": HELLO, "max_tokens": 8, "seed": 3, "stream": True}
    answer = server.post(PATH, **body, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = (data for _, data in answer.events)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 8
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in chunks[1:])
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert all(chunk["usage"] is None for chunk in chunks)
    assert len({chunk["id"] for chunk in [*chunks, usage]}) == 1


def test_a_stream_without_usage_asked_for_has_none(server):
    answer = server.post(PATH, messages=HELLO, max_tokens=4, stream=True)
    assert all("usage" not in data for _, data in answer.events[:-1])


def test_a_stream_says_what_the_whole_reply_says(server):
    body = {"messages": HELLO, "max_tokens": 24, "seed": 5, "n": 2, "logprobs": True, "top_logprobs": 2}
    whole = server.post(PATH, **body).json
    chunks = [data["choices"][0] for _, data in server.post(PATH, **body, stream=True).events[:-1]]
    for choice in whole["choices"]:
        own = [chunk for chunk in chunks if chunk["index"] == choice["index"]]
        assert "".join(c["delta"].get("content", "") for c in own) == choice["message"]["content"]
        told = [token for c in own if c["logprobs"] for token in c["logprobs"]["content"]]
        assert told == choice["logprobs"]["content"]


def test_logprobs_hold_bytes_and_alternatives(server):
    answer = server.post(PATH, messages=HELLO, max_tokens=5, logprobs=True, top_logprobs=3, ignore_eos=True)
    content = answer.json["choices"][0]["logprobs"]["content"]
    assert len(content) == 5
    for token in content:
        assert len(token["top_logprobs"]) == 3
        assert token["logprob"] <= token["top_logprobs"][0]["logprob"]
    text = b"".join(bytes(token["bytes"]) for token in content).decode("utf-8", errors="replace")
    assert text == answer.json["choices"][0]["message"]["content"]


def test_no_logprobs_unless_asked_for(server):
    assert server.post(PATH, messages=HELLO, max_tokens=3).json["choices"][0]["logprobs"] is None


def test_developer_means_system_and_parts_are_joined(server):
    plain = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello there"}]
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief"}]},
        {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]},
    ]
    told = [server.post(PATH, messages=m, max_tokens=8, temperature=0).json for m in (plain, parts)]
    assert told[0]["choices"] == told[1]["choices"]
    assert told[0]["usage"]["prompt_tokens"] == told[1]["usage"]["prompt_tokens"]


def test_a_reply_goes_on_where_the_last_message_ends(server, model):
    beginning = [*HELLO, {"role": "assistant", "content": "Ada Moor was"}]
    answer = server.post(PATH, messages=beginning, continue_final_message=True, max_tokens=4, temperature=0)
    rendered = model.tokenizer.render(HELLO, add_generation_prompt=True) + "Ada Moor was"
    assert answer.json["usage"]["prompt_tokens"] == len(model.tokenizer.encode_with_special(rendered))


def test_unknown_fields_are_ignored_and_named_in_a_header(server):
    answer = server.post(PATH, messages=HELLO, max_tokens=2, user="someone", frobnicate=[1])
    assert answer.status == 200
    assert answer.headers["x-ignored-fields"] == "frobnicate, user"
    assert server.post(PATH, messages=HELLO, max_tokens=2).headers["x-ignored-fields"] is None
    strange = {" a b\n": 1, "é": 2, "x" * 995: 3, " ": 4}
    answer = server.post(PATH, messages=HELLO, max_tokens=2, **strange)
    assert answer.status == 200
    assert answer.headers["x-ignored-fields"].startswith("?, ?a?b?, xxx")


def test_every_answer_names_its_request_and_the_overhead(server):
    answer = server.post(PATH, messages=HELLO, max_tokens=2)
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    assert float(answer.headers["x-glasshouse-overhead-ms"]) >= 0
    assert server.get("/nowhere").headers["x-request-id"].startswith("req_")


def test_a_prompt_longer_than_the_context_has_openais_code(server):
    answer = server.post(PATH, messages=[{"role": "user", "content": "owl " * 400}])
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert "maximum context length is 256 tokens" in answer.error["message"]


def test_a_model_that_is_not_served_is_a_404(server):
    answer = server.ask("POST", PATH, {"model": "gpt-9", "messages": HELLO})
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert "tiny" in answer.error["message"]


def test_more_new_tokens_than_the_context_holds_are_cut_to_it(server):
    answer = server.post(PATH, messages=HELLO, max_tokens=10**9, ignore_eos=True)
    usage = answer.json["usage"]
    assert usage["total_tokens"] == 256
    assert answer.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": HELLO, "n": 0}, "n"),
        ({"messages": HELLO, "n": 10**30}, "n"),
        ({"messages": HELLO, "temperature": -1}, "temperature"),
        ({"messages": HELLO, "temperature": "hot"}, "temperature"),
        ({"messages": HELLO, "top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": HELLO, "continue_final_message": True}, "assistant"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "text only",
        ),
    ],
)
def test_what_cannot_be_answered_is_a_400_that_says_why(server, body, words):
    answer = server.post(PATH, **body)
    assert answer.status == 400
    assert words in answer.error["message"]
