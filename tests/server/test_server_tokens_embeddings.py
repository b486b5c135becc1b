"""The tokenizer over HTTP as lm-eval's RemoteTokenizer uses it, and vectors."""

from __future__ import annotations

import base64
import struct

import pytest
import torch
from torch.nn import functional


def test_a_special_tokens_name_is_that_token_as_lm_eval_expects(server, model):
    told = server.get("/tokenizer_info").json
    assert told["eos_token"] == "<|endoftext|>"
    assert "<|im_start|>" in told["chat_template"]
    answer = server.ask("POST", "/tokenize", {"prompt": told["eos_token"], "add_special_tokens": False})
    assert answer.json["tokens"] == [model.tokenizer.eos_id]


def test_tokens_come_back_as_their_text(server, model):
    text = "Où est née Zoé? <|endoftext|>🦉"
    told = server.ask("POST", "/tokenize", {"prompt": text, "return_token_strs": True}).json
    assert told["tokens"] == model.tokenizer.encode_with_special(text)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 256
    assert server.ask("POST", "/detokenize", {"tokens": told["tokens"]}).json == {"prompt": text}


def test_a_conversation_is_tokenized_as_the_chat_reads_it(server, model):
    messages = [{"role": "user", "content": "Hello"}]
    told = server.ask("POST", "/tokenize", {"messages": messages}).json
    assert told["tokens"] == model.tokenizer.encode_chat(messages, add_generation_prompt=True).ids
    bare = server.ask("POST", "/tokenize", {"messages": messages, "add_generation_prompt": False}).json
    assert bare["tokens"] == model.tokenizer.encode_chat(messages).ids


def test_an_id_outside_the_vocabulary_is_a_400(server):
    assert server.ask("POST", "/detokenize", {"tokens": [320]}).status == 400
    assert server.ask("POST", "/detokenize", {"tokens": [-1]}).status == 400
    assert server.ask("POST", "/detokenize", {"tokens": [2**70]}).status == 400


def test_a_vector_is_the_mean_of_the_last_hidden_states_with_length_one(server, model):
    ids = [30, 40, 50, 60]
    told = server.post("/v1/embeddings", input=[ids, [70, 80]]).json
    assert [item["index"] for item in told["data"]] == [0, 1]
    with torch.inference_mode():
        hidden = model.model.hidden(torch.tensor([ids]))[0].float().mean(0)
    expected = functional.normalize(hidden, dim=-1).tolist()
    assert told["data"][0]["embedding"] == pytest.approx(expected, abs=1e-5)
    assert told["usage"]["prompt_tokens"] == 4 + 2


def test_base64_holds_the_same_numbers(server):
    plain = server.post("/v1/embeddings", input="Ada").json["data"][0]["embedding"]
    packed = server.post("/v1/embeddings", input="Ada", encoding_format="base64").json["data"][0]["embedding"]
    raw = base64.b64decode(packed)
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(plain, abs=1e-7)


def test_fewer_dimensions_are_a_shorter_vector_of_length_one(server):
    vector = server.post("/v1/embeddings", input="Ada", dimensions=8).json["data"][0]["embedding"]
    assert len(vector) == 8
    assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-5)
    assert server.post("/v1/embeddings", input="Ada", dimensions=33).status == 400


def test_a_text_that_is_too_long_is_a_400(server):
    assert server.post("/v1/embeddings", input="owl " * 500).error["code"] == "context_length_exceeded"
