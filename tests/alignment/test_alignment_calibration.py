"""Calibration: what is measured, what is taught from it, the baseline, and the whole training."""

import json
import random

import numpy as np
import pytest
import torch

from glasshouse.alignment.calibration import ANSWERS, CONVERSATIONS, HELD_OUT, CalibrationConfig, calibrate
from glasshouse.alignment.calibration_examples import examples
from glasshouse.alignment.self_consistency import by_agreement, confidences
from glasshouse.alignment.self_knowledge import Knowledge, measure, read_knowledge, tally, write_knowledge
from glasshouse.alignment.temperature_scaling import TEMPERATURES, fit_temperature, reply_probabilities
from glasshouse.core.errors import ConfigError, DataError
from glasshouse.evaluation import confidence, knowledge
from glasshouse.evaluation.knowledge import Question
from glasshouse.inference import LanguageModel
from glasshouse.model import load
from glasshouse.world import World, WorldConfig


def asked(text, answer="a", kind="letters"):
    return Question([{"role": "user", "content": text}], lambda reply: float(answer in reply), kind=kind)


QUESTIONS = [asked(f"Say {i}.", "aeiou"[i % 5]) for i in range(8)]


@pytest.fixture(scope="module")
def folder(small_folder):
    """A model of plain bytes whose distributions are not flat."""
    return small_folder(noise=0.2, num_hidden_layers=1, max_position_embeddings=256)


@pytest.fixture(scope="module")
def model(folder):
    return LanguageModel.load(folder, device="cpu")


def known(
    share, kind="sums", reply="It is 4.", right=True, agree=8, unknown="I do not know.", prompt="2 + 2?"
):
    return Knowledge(
        [{"role": "user", "content": prompt}],
        kind,
        "calibration",
        unknown,
        reply,
        reply if right else None,
        share,
        [
            {"text": reply, "count": agree, "right": float(right)},
            *[{"text": f"{i}", "count": 1, "right": 0.0} for i in range(8 - agree)],
        ],
    )


def test_the_share_is_that_of_the_right_replies():
    counted = tally(asked("?", "x"), ["x", "y", "y", "ax", "y", "x", "y", "z"])
    assert counted.share == 3 / 8
    assert counted.reply == "y"
    assert counted.right_reply == "x"
    assert counted.agreement == 4 / 8
    assert sum(sample["count"] for sample in counted.samples) == 8
    assert tally(asked("?", "x"), ["y"]).right_reply is None


def test_knowledge_is_a_function_of_weights_and_seed(model):
    first = measure(model, QUESTIONS, 4, 8, seed=1)
    assert first == measure(model, QUESTIONS, 4, 8, seed=1)
    assert first != measure(model, QUESTIONS, 4, 8, seed=2)
    assert [k.prompt for k in first] == [q.messages for q in QUESTIONS]
    assert measure(model, QUESTIONS[:1], 4, 8, seed=1) == first[:1], "whatever is asked beside it"


def test_a_belief_about_a_chance_event_is_how_often_the_model_goes_on_with_it(model):
    """Against the exact probabilities of the continuations under the model itself; the wheel's own chances
    are nowhere in it."""
    world = World(WorldConfig(people=20, heldout_people=10), seed=1)
    questions = knowledge.world_questions(world, "wheels", "calibration", 2)
    (one, _other) = measure(model, questions, 64, 8, seed=1)
    assert one.is_bet
    assert one.reply == one.right_reply in questions[0].bet.replies.values()
    counts = {sample["text"]: sample["count"] for sample in one.samples}
    assert sum(counts.values()) == 3 * 2 * 64
    assert one.share == max(counts.get(c, 0) for c in questions[0].bet.replies) / (3 * 2 * 64)


def test_knowledge_is_read_back_as_it_was_written(tmp_path, model):
    rows = measure(model, QUESTIONS, 4, 8, seed=1)
    write_knowledge(rows, tmp_path / "answers.jsonl")
    assert read_knowledge(tmp_path / "answers.jsonl") == rows


def test_a_confidence_is_the_rightness_of_questions_alike():
    rows = [known(1.0)] * 30 + [known(0.0, right=False)] * 10
    rows += [known(0.2, kind="regions", right=False, agree=2)] * 20 + [known(0.9, kind="regions")] * 20
    together = confidences(rows, levels=1)
    assert together[0] == together[39] == pytest.approx(0.75)
    assert together[40] == together[79] == pytest.approx(0.5)
    apart = confidences(rows, levels=2)
    assert apart[0] == apart[39] == pytest.approx(0.75), "all of them agree alike"
    assert (apart[40], apart[79]) == (0, 1)


def test_who_does_not_know_is_a_group_of_its_own():
    """Strangers and known people taken for strangers look the same to the model."""
    silent = {"reply": "I do not know.", "unknown": "I do not know."}
    rows = [known(1.0, kind="strangers", **silent)] * 30 + [
        known(0.0, kind="people", right=False, **silent)
    ] * 10
    rows += [known(1.0, kind="people")] * 20
    assert set(confidences(rows, levels=1)[:40]) == {0.75}
    assert set(confidences(rows, levels=1)[40:]) == {1.0}


def test_few_questions_are_judged_with_all_others():
    rows = [known(1.0)] * 30 + [known(0.0, kind="rare", right=False)] * 10
    assert confidences(rows, levels=1)[30] == pytest.approx(0.75)


def test_parts_of_agreement_rise_and_keep_equal_ones_together():
    rows = [known(1.0, agree=n) for n in (8, 1, 4, 4, 2, 8, 8, 1)]
    parts = by_agreement(rows, range(8), 3)
    assert [sorted({rows[i].agreement for i in part}) for part in parts] == [[0.125, 0.25], [0.5], [1.0]]
    assert sorted(i for part in parts for i in part) == list(range(8))


def taught(rows, thresholds=(0.5, 0.9), plain=0.0):
    found = list(examples(rows, random.Random(1), thresholds, plain, 1))
    by = {source: [e for e in found if e["source"] == source] for source in ("plain", "penalty", "how sure")}
    return {
        s: [(e["messages"][0]["content"], e["messages"][-1]["content"]) for e in es] for s, es in by.items()
    }


def test_an_answer_is_taught_where_it_pays_off():
    """Right in three of four: worth it at a cost of one point, not of nine."""
    rows = [known(1.0)] * 30 + [known(0.0, right=False, reply="It is 5.")] * 10
    found = taught(rows)
    said = {
        threshold: {answer for prompt, answer in found["penalty"] if f"{threshold}%" in prompt}
        for threshold in (50, 90)
    }
    assert said == {50: {"It is 4."}, 90: {"I do not know."}}
    assert {answer for _, answer in found["plain"]} == {"It is 4."}
    assert {answer for _, answer in found["how sure"]} == {"It is 4. I am 75% sure."}


def test_who_is_wrongly_taken_for_a_stranger_is_no_example_of_one():
    """Also under a penalty: what is taught there is an abstention that is right."""
    unknown = "I do not know."
    rows = [known(1.0, reply=unknown, prompt="Who is Ada?")] * 30
    rows += [known(0.0, reply=unknown, right=False, prompt="Who is Ben?")] * 10
    found = taught(rows)
    assert found["penalty"]
    assert all("Ada" in prompt and reply == unknown for prompt, reply in found["penalty"])
    assert not any("Ben" in prompt for prompt, _ in found["plain"])


def test_what_is_seldom_right_is_stated_so():
    rows = [known(1.0)] * 5 + [known(0.0, right=False, reply="It is 5.")] * 95
    found = taught(rows, plain=0.1)
    assert {answer for _, answer in found["plain"]} == {"I do not know."}
    assert {answer for _, answer in found["how sure"]} == {"It is 4. I am 5% sure.", "It is 5. I am 5% sure."}


def test_the_wording_of_probes_is_never_taught():
    found = taught([known(1.0)] * 40)
    rules = [confidence.penalty(wording, t) for wording in confidence.PENALTY.heldout for t in (0.5, 0.9)]
    assert len(found["penalty"]) == len(found["how sure"]) == 80
    assert not any(prompt.endswith(rule) for prompt, _ in found["penalty"] for rule in rules)
    assert not any(prompt.endswith(w) for prompt, _ in found["how sure"] for w in confidence.HOW_SURE.heldout)


def test_probabilities_are_those_of_the_whole_reply(model):
    """At temperature 1 the product of what the model gives each token; at others by the same formula."""
    messages = [{"role": "user", "content": "Say 1."}]
    got = reply_probabilities(model, [messages, messages], ["ab", "c"], [1.0, 2.0])
    prompt = model.tokenizer.encode_chat(messages, add_generation_prompt=True).ids
    reply = [*model.tokenizer.encode("ab"), model.tokenizer.end_of_turn_id]
    logits = model.logits([[*prompt, *reply]])[0, len(prompt) - 1 : -1].double()
    for column, temperature in enumerate((1.0, 2.0)):
        logprobs = (logits / temperature).log_softmax(-1)[range(len(reply)), reply]
        assert got[0, column] == pytest.approx(float(logprobs.sum().exp()), rel=1e-3)


def test_the_fitted_temperature_is_the_one_that_the_answers_were_drawn_at():
    """Answers of a known temperature, 20,000 of them: the fit is within a step of ten percent."""
    rng = np.random.Generator(np.random.PCG64(1))
    logits = rng.normal(0, 3, 20_000)
    truth = TEMPERATURES.index(1.0) + 7  # about 2
    right = rng.random(20_000) < 1 / (1 + np.exp(-logits / TEMPERATURES[truth]))
    sure = np.stack([1 / (1 + np.exp(-logits / t)) for t in TEMPERATURES], axis=1)
    assert abs(fit_temperature(sure, right.astype(float)) - truth) <= 1


CONFIG = {
    "samples": 4,
    "max_new_tokens": 8,
    "sequence_length": 128,
    "batch_tokens": 512,
    "epochs": 1,
    "log_every": 1,
}


def test_calibration_leaves_a_model_and_tells_before_and_after(folder, tmp_path):
    config = CalibrationConfig.parse(CONFIG | {"earlier": 0.5})
    before = [
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]}
    ] * 99
    summary = calibrate(folder, QUESTIONS, tmp_path, config, QUESTIONS[:4], before)
    rows = [json.loads(line) for line in (tmp_path / CONVERSATIONS).read_text().splitlines()]
    assert summary["earlier"] == sum("source" not in row for row in rows) == round(0.5 * summary["taught"])
    assert len(rows) == summary["taught"] + summary["earlier"]
    measured = json.loads((tmp_path / HELD_OUT).read_text())
    assert len(measured["before"]["replies"]) == 4
    assert measured["before"]["replies"][0]["said"] is False
    assert measured["figures"]["after"] == summary["figures"]["after"]
    before, after = load(folder).state_dict(), load(tmp_path / "model").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_what_was_sampled_is_not_sampled_again(folder, tmp_path):
    """The answers' file is where a killed run goes on from: what follows is a function of it."""
    config = CalibrationConfig.parse(CONFIG)
    calibrate(folder, QUESTIONS, tmp_path / "whole", config)
    answers = (tmp_path / "whole" / ANSWERS).read_bytes()
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / ANSWERS).write_bytes(answers)
    calibrate(folder, [asked("Something else.")], tmp_path / "again", config)
    for name in (CONVERSATIONS, "model/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_nothing_to_ask_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="no question"):
        calibrate(folder, [], tmp_path, CalibrationConfig.parse(CONFIG))


@pytest.mark.parametrize("thresholds", [[], [1.0], [0.0], [0.5, 1.5]])
def test_a_threshold_beyond_probability_is_refused(thresholds):
    with pytest.raises(ConfigError, match="thresholds"):
        CalibrationConfig.parse({"thresholds": thresholds})
