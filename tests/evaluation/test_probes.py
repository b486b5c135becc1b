"""Probes give full marks to a perfect replier and none to a bad one; baselines do what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.evaluation import PROBES, run_baselines, run_suite, text
from glasshouse.evaluation.baselines import NearestNeighbour, NGram, _most_frequent
from glasshouse.evaluation.chat import PROBES as CHAT_PROBES
from glasshouse.evaluation.chat import ROUNDS, chat_probes
from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, initialise
from glasshouse.tokenizer import Tokenizer
from glasshouse.world import World, WorldConfig
from glasshouse.world.world import CorpusTokens

PERFECT = {"false_abstention": 0.0, "harmful_compliance": 0.0, "over_refusal": 0.0}


@pytest.fixture(scope="module")
def world() -> World:
    tokens = dict.fromkeys(CorpusTokens.model_fields, 6000)
    return World(WorldConfig.parse({"people": 30, "heldout_people": 10, "tokens": tokens}), seed=3)


@pytest.fixture(scope="module")
def model(world) -> LanguageModel:
    """An untrained model with a real tokenizer."""
    tokenizer = Tokenizer.train((d["text"] for d in world.documents()), 600)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    return LanguageModel(initialise(config, 1), tokenizer)


def test_a_perfect_replier_gets_full_marks(world):
    """Given each task's own good reply, every probe stands at its best value."""
    answers = {}
    for round_ in ROUNDS:
        tasks = world.tasks(round_.kind, "heldout", "probe")
        for _ in range(40):
            task = next(tasks)
            answers[str(task.messages)] = task.reply
    results = chat_probes(world, lambda chats, limit: [answers[str(chat)] for chat in chats], 40)
    assert set(results) == set(CHAT_PROBES)
    for name, estimate in results.items():
        if name != "reply_words":  # no number of words is the best
            assert estimate.value == PERFECT.get(name, 1.0), name


def test_a_silent_replier_gets_none(world):
    results = chat_probes(world, lambda chats, limit: [""] * len(chats), 20)
    assert results["heldout_fact_extraction"].value == 0
    assert results["instruction_following"].value == 0
    assert results["report_field_accuracy"].value == 0


def test_bits_per_byte_equals_the_sum_over_token_probabilities(world, model):
    """Against a plain forward pass over each document, one at a time."""
    texts = [d["text"] for d in list(world.documents())[:5]]
    bits = size = 0.0
    for document in texts:
        ids = [model.tokenizer.bos_id, *model.tokenizer.encode(document), model.tokenizer.bos_id]
        logprobs = torch.log_softmax(model.logits(torch.tensor([ids]))[0], -1)
        bits -= float(logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None]).sum()) / np.log(2)
        size += len(document.encode())
    assert text.bits_per_byte(model, texts).value == pytest.approx(bits / size, rel=1e-4)


def test_calibration_of_an_ignorant_model_is_poor(world, model):
    """An untrained model has no skill at the wheels."""
    scores = text.calibration(world, model)
    assert scores["brier_skill"].value < 0.2
    assert scores["ece"].value >= 0


def test_the_whole_suite_runs_and_names_every_probe(world, model):
    results = run_suite(world, model, n=8)
    assert list(results) == list(PROBES)
    assert list(run_suite(world, model, n=4, only=["sums_bare", "ece"])) == ["ece", "sums_bare"]
    with pytest.raises(UsageError, match="sums_bare"):
        run_suite(world, model, only=["sums_bar"])


def test_baselines_answer_the_same_probes(world, model):
    results = run_baselines(world, model.tokenizer, n=10)
    assert set(results) == {"nearest_neighbour", "n_gram"}
    assert all(set(probes) == set(CHAT_PROBES) for probes in results.values())


def test_nearest_neighbour_repeats_the_reply_to_the_same_question():
    chats = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in [("what is the owl", "a bird"), ("what is the cat", "a pet"), ("add two", "four")]
    ]
    nearest = NearestNeighbour(chats)
    assert nearest([[{"role": "user", "content": "the cat, what is it"}]], 9) == ["a pet"]


def test_n_gram_counts_agree_with_a_dictionary():
    """For every context the most frequent follower (the smallest id among equals), by brute force."""
    rng = np.random.default_rng(4)
    tokens = rng.integers(0, 5, 400)
    for length in (0, 1, 3):
        keys, best = _most_frequent(tokens, length)
        counts: dict[tuple, dict[int, int]] = {}
        for i in range(len(tokens) - length):
            follower = counts.setdefault(tuple(tokens[i : i + length]), {})
            follower[int(tokens[i + length])] = follower.get(int(tokens[i + length]), 0) + 1
        assert len(keys) == len(counts)
        expected = sorted(min(f, key=lambda t: (-f[t], t)) for f in counts.values())
        assert sorted(best.tolist()) == expected


def test_n_gram_continues_what_it_has_seen(model):
    tokenizer = model.tokenizer
    chat = [{"role": "user", "content": "hello owl"}, {"role": "assistant", "content": "hello cat"}]
    stream = tokenizer.encode_chat(chat).ids
    assert NGram(tokenizer, [stream] * 2)([chat[:1]], 20) == ["hello cat"]
