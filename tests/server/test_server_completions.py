"""POST /v1/completions, above all what lm-eval's `local-completions` reads from it."""

from __future__ import annotations

import math

import pytest
import torch

from glasshouse.inference import LanguageModel

PATH = "/v1/completions"


def scores(answer):
    return [choice["logprobs"] for choice in answer.json["choices"]]


def asked_by_lm_eval(server, prompt, logprobs=1):
    """The payload of lm-eval's LocalCompletionsAPI._create_payload for a loglikelihood."""
    body = {"prompt": prompt, "temperature": 0, "max_tokens": 1, "logprobs": logprobs, "seed": 1234}
    return server.post(PATH, echo=True, **body)


def test_every_prompt_token_and_one_new_one_have_a_position_and_the_first_has_no_score(server):
    for prompt in ([[30, 40, 50, 60]], [[300, 301], [10, 11, 12, 13, 14]]):
        for ids, told in zip(prompt, scores(asked_by_lm_eval(server, prompt)), strict=True):
            assert {len(column) for column in told.values()} == {len(ids) + 1}
            assert told["token_logprobs"][0] is None
            assert told["top_logprobs"][0] is None
            assert all(isinstance(score, float) for score in told["token_logprobs"][1:])


def test_the_new_token_has_its_position_even_where_it_ends_the_text(server, model: LanguageModel):
    ended = 0
    for first in range(9, 300):
        ids = [first, first + 1]
        logits = model.logits([ids])[0, -1]
        if int(logits.argmax()) in model.stop_ids:
            answer = asked_by_lm_eval(server, [ids])
            assert len(scores(answer)[0]["tokens"]) == 3
            assert answer.json["choices"][0]["finish_reason"] == "stop"
            assert answer.json["choices"][0]["text"] == model.tokenizer.decode(ids)
            ended += 1
            if ended == 2:
                return
    pytest.skip("no prompt of two tokens ends at once under this model")


def test_scores_are_those_of_the_model(server, model: LanguageModel):
    ids = [30, 40, 50, 60, 70, 80]
    told = scores(asked_by_lm_eval(server, [ids]))[0]["token_logprobs"]
    logprobs = model.logits([ids])[0].log_softmax(-1)
    expected = [float(logprobs[place, token]) for place, token in enumerate(ids[1:])]
    assert told[1:-1] == pytest.approx(expected, abs=1e-4)
    assert told[-1] == pytest.approx(float(logprobs[-1].max()), abs=1e-4)


def test_a_token_that_is_the_likeliest_has_the_very_number_of_the_maximum(server, model: LanguageModel):
    ids = [30]
    for _ in range(6):
        ids.append(int(model.logits([ids])[0, -1].argmax()))
    told = scores(asked_by_lm_eval(server, [ids]))[0]
    for chosen, top in zip(told["token_logprobs"][1:-1], told["top_logprobs"][1:-1], strict=True):
        assert chosen == max(top.values())


def test_alternatives_hold_the_token_itself_and_no_two_share_a_name(server):
    told = scores(asked_by_lm_eval(server, [[200, 210, 220, 230]], logprobs=5))[0]
    columns = zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
    for token, chosen, top in list(columns)[1:]:
        assert top[token] == chosen
        assert 5 <= len(top) <= 6


def test_a_batch_is_answered_in_its_order_and_as_one_by_one(server):
    prompts = [[30 + length] * length for length in range(1, 9)]
    together = asked_by_lm_eval(server, prompts)
    assert [choice["index"] for choice in together.json["choices"]] == list(range(8))
    for prompt, told in zip(prompts, scores(together), strict=True):
        alone = scores(asked_by_lm_eval(server, [prompt]))[0]
        assert told["token_logprobs"][1:] == pytest.approx(alone["token_logprobs"][1:], abs=1e-4)


def test_no_new_token_with_echo_gives_the_prompt_alone(server):
    answer = server.post(PATH, prompt=[30, 40, 50], max_tokens=0, echo=True, logprobs=1)
    choice = answer.json["choices"][0]
    assert len(choice["logprobs"]["tokens"]) == 3
    assert choice["finish_reason"] == "length"
    assert answer.json["usage"]["completion_tokens"] == 0


def test_a_text_with_echo_is_scored_as_it_stands(server, model: LanguageModel):
    text = "Ada Moor was born"
    told = scores(asked_by_lm_eval(server, text))[0]
    ids = model.tokenizer.encode(text)
    assert told["tokens"][:-1] == [model.tokenizer.decode([token]) for token in ids]
    assert told["text_offset"][:-1] == [len(model.tokenizer.decode(ids[:end])) for end in range(len(ids))]


def test_a_text_without_echo_begins_a_document(server, model: LanguageModel):
    answer = server.post(PATH, prompt="Ada Moor", max_tokens=8, temperature=0, ignore_eos=True)
    assert answer.json["usage"]["prompt_tokens"] == len(model.tokenizer.encode("Ada Moor")) + 1
    bare = server.post(PATH, prompt="Ada Moor", max_tokens=8, temperature=0, add_special_tokens=False)
    assert bare.json["usage"]["prompt_tokens"] == len(model.tokenizer.encode("Ada Moor"))


def test_no_text_is_the_beginning_of_a_document(server, model: LanguageModel):
    for echo in (False, True):
        answer = server.post(PATH, prompt="", max_tokens=1, echo=echo, seed=10**40)
        assert answer.json["usage"]["prompt_tokens"] == 1


def test_streamed_pieces_are_the_whole_text(server):
    body = {"prompt": ["Ada Moor", "To be"], "max_tokens": 12, "temperature": 0, "logprobs": 1, "echo": True}
    whole = server.post(PATH, **body).json
    answer = server.post(PATH, **body, stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = (data for _, data in answer.events)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    for choice in whole["choices"]:
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in own) == choice["text"]
        tokens = [token for piece in own for token in piece["logprobs"]["tokens"]]
        assert tokens == choice["logprobs"]["tokens"]
        assert [piece["finish_reason"] for piece in own][-1] == choice["finish_reason"]


def test_one_seed_gives_one_text_and_choices_differ(server):
    body = {"prompt": "Ada", "max_tokens": 12, "temperature": 1, "n": 3, "seed": 7, "ignore_eos": True}
    first, again = server.post(PATH, **body).json, server.post(PATH, **body).json
    assert [c["text"] for c in first["choices"]] == [c["text"] for c in again["choices"]]
    assert len({c["text"] for c in first["choices"]}) == 3


def test_a_bias_forces_a_token(server, model: LanguageModel):
    token = model.tokenizer.encode("owl")[0]
    answer = server.post(PATH, prompt="Ada", max_tokens=3, logit_bias={str(token): 100}, temperature=0)
    assert answer.json["choices"][0]["text"] == model.tokenizer.decode([token] * 3)


def test_a_stop_string_ends_the_text_before_it(server):
    whole = server.post(PATH, prompt="Ada", max_tokens=40, temperature=0, ignore_eos=True).json
    text = whole["choices"][0]["text"]
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    cut = server.post(PATH, prompt="Ada", max_tokens=40, temperature=0, ignore_eos=True, stop=[stop]).json
    assert cut["choices"][0]["text"] == text[: text.index(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": [319, 320]}, "outside the vocabulary of 320"),
        ({"prompt": [1] * 257}, "maximum context length is 256"),
        ({"prompt": "x", "logit_bias": {"4000": 1}}, "outside the vocabulary"),
        ({"prompt": "x", "guided_regex": "a", "guided_choice": ["b"]}, "one format at a time"),
        ({"prompt": "x", "temperature": 2.1}, "temperature"),
        ({"prompt": []}, "prompt"),
        ({}, "prompt"),
    ],
)
def test_what_cannot_be_answered_is_a_400_that_says_why(server, body, words):
    answer = server.post(PATH, **body)
    assert answer.status == 400
    assert words in answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"


def test_an_impossible_score_is_a_number():
    from glasshouse.inference.token_names import finite

    assert finite(-math.inf) == -9999.0
    assert finite(float(torch.tensor(-1.5))) == -1.5
