"""Rows kept from fine-tuning: which they are, and bits per byte of what should be learnt of them."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, initialise
from glasshouse.pipeline.held_out import HeldOut, bits_per_byte, exchanges, split
from glasshouse.tokenizer import Tokenizer


def chat(question, answer):
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "source": "chats",
    }


def parts(rows, fraction=0.05):
    found = {"train": [], "held out": []}
    for part, row in split(lambda: iter(rows), fraction):
        found[part].append(row)
    return found["train"], found["held out"]


@given(st.lists(st.integers(0, 40), max_size=60), st.sampled_from([0.02, 0.05, 0.3]), st.randoms())
def test_the_share_follows_from_the_rows_alone(numbers, fraction, rng):
    """Nothing is lost, equal rows stay together, the order does not count, and ten rows give one."""
    rows = [chat(f"{n}?", str(n)) if n % 2 else {"text": f"page {n}"} for n in numbers]
    train, held = parts(rows, fraction)
    different = len(set(numbers))
    if different >= 10:
        assert sorted(map(json.dumps, train + held)) == sorted(map(json.dumps, rows))
        assert not {json.dumps(row) for row in train} & {json.dumps(row) for row in held}
        assert len({json.dumps(row) for row in held}) == max(1, round(fraction * different))
        shuffled = rng.sample(rows, len(rows))
        assert sorted(map(json.dumps, parts(shuffled, fraction)[1])) == sorted(map(json.dumps, held))
    assert train or not rows


def test_of_few_rows_the_ends_of_documents_are_held_out():
    book = " ".join(str(i) for i in range(500))
    train, held = parts([{"text": book, "id": "book"}, chat("a", "b")], 0.1)
    assert train[0]["text"] + held[0]["text"] == book
    assert len(held[0]["text"]) == pytest.approx(0.1 * len(book), abs=1)
    assert (len(train), len(held)) == (2, 1)
    assert parts([chat("a", "b")] * 9)[1] == []


def test_without_a_share_every_row_is_learnt_from():
    rows = [chat(str(n), "b") for n in range(30)]
    assert parts(rows, 0.0) == (rows, [])


@pytest.fixture(scope="module")
def model():
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    made = initialise(ModelConfig(vocab_size=265, max_position_embeddings=64, **shape), 0)
    with torch.no_grad():
        made.lm_head.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    return LanguageModel(made, Tokenizer.train([], 265))


def reference(model, ids, counted):
    """Bits of the counted tokens of one sequence, from its logits."""
    logprobs = model.logits([ids])[0].log_softmax(-1)
    return -sum(float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids)) if counted[i]) / math.log(2)


def test_of_a_conversation_the_assistants_words_count(model):
    """Bits of every reply and its end of turn, given what precedes, over the bytes of the replies."""
    row = chat("a?", "bé")
    encoded = model.tokenizer.encode_chat(row["messages"])
    expected = reference(model, encoded.ids, encoded.assistant_mask) / len("bé".encode())
    found = bits_per_byte(model, HeldOut([row], 64), 10_000)
    assert found is not None
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.n == 1


def test_of_a_document_everything_counts_in_windows(model):
    """Each token once, the closing boundary too; no window is longer than the rows of training."""
    text = "The owl of the seventh house sleeps."
    ids = [model.tokenizer.bos_id, *model.tokenizer.encode(text), model.tokenizer.eos_id]
    for length, window in ((16, 16), (64, 63)):  # 63 and one more fill the context
        bits = sum(
            reference(model, piece := ids[at : at + window + 1], [True] * len(piece))
            for at in range(0, len(ids) - 1, window)
        )
        found = bits_per_byte(model, HeldOut([{"text": text}], length), 10_000)
        assert found is not None
        assert found.value == pytest.approx(bits / len(text), rel=1e-4)


def test_rows_that_cannot_be_scored_are_no_probe(model):
    assert bits_per_byte(model, HeldOut([], 64), 100) is None
    assert bits_per_byte(model, HeldOut([chat("too long " * 20, "b")], 64), 10_000) is None


def test_samples_are_whole_exchanges_that_fit(model):
    rows = [{"text": "a page"}, chat("x" * 80, "y"), *(chat(f"{n // 2}?", str(n // 2)) for n in range(18))]
    found = exchanges(model, rows, 8)
    assert [prompt["good"] for prompt in found] == ["0", "1", "2", "3"]
    assert found[0]["prompt"] == [{"role": "user", "content": "0?"}]
