"""Evaluation of a model of the user's own text: which text is read, and what is shown of it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from glasshouse.evaluation import Estimate
from glasshouse.pipeline.documents import DocumentWriter
from glasshouse.pipeline.held_out import STRETCH, stretches
from glasshouse.pipeline.stages.corpus import STATISTICS, VALIDATION
from glasshouse.pipeline.stages.evaluate import as_json, held_out_texts, text_prompts


@given(st.text(st.sampled_from("ab \n\u00e9"), max_size=200).map(lambda text: text * 300))
def test_stretches_are_the_text_cut_at_white_space(text):
    pieces = list(stretches(text))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= STRETCH for piece in pieces)
    if " " in text[:100]:
        assert all(piece[-1] in " \n" for piece in pieces[:-1])


def test_held_out_texts_come_from_all_documents(tmp_path):
    with DocumentWriter(tmp_path / VALIDATION) as writer:
        for name in "abcd":
            writer.write({"text": f"{name} " * 40 * STRETCH})
    (tmp_path / STATISTICS).write_text(json.dumps({"validation": {"bytes": 320 * STRETCH}}))
    texts = held_out_texts(tmp_path / VALIDATION, 100 * STRETCH)
    assert {text[0] for text in texts} == set("abcd")
    assert 60 * STRETCH < sum(map(len, texts)) < 140 * STRETCH
    assert texts == held_out_texts(tmp_path / VALIDATION, 100 * STRETCH)
    assert len(held_out_texts(tmp_path / VALIDATION, 1)) == 1  # never nothing


def test_prompts_go_on_as_the_text_does():
    text = " ".join(str(i) for i in range(2000))
    prompts = text_prompts([text] * 9)
    assert len(prompts) == 4
    for prompt in prompts:
        assert prompt["prompt"] + prompt["good"] in text
    assert text_prompts(["short"]) == []


def test_an_interval_of_one_observation_is_unknown():
    assert as_json({"x": Estimate(1.0, float("-inf"), float("inf"), 1)}) == {
        "x": {"value": 1.0, "low": None, "high": None, "n": 1}
    }
