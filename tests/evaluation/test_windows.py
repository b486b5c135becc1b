"""Bits per byte by position, against a sum over each token alone."""

import math

import pytest
import torch

from glasshouse.evaluation.windows import bits_per_byte_by_position, ranges
from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, initialise
from glasshouse.tokenizer import Tokenizer

CONTEXT = 16


@pytest.fixture(scope="module")
def model():
    tokenizer = Tokenizer.train([], 265)
    config = ModelConfig(
        vocab_size=265,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        max_position_embeddings=CONTEXT,
    )
    made = initialise(config, 1)
    with torch.no_grad():
        made.lm_head.weight.normal_(0, 1, generator=torch.Generator().manual_seed(2))
    return LanguageModel(made, tokenizer)


def piece(model, text):
    return [model.tokenizer.bos_id, *model.tokenizer.encode(text)]


def bits(model, context, token):
    """Of one token after its context, straight from the logits."""
    return -float(model.logits([context])[0, -1].log_softmax(-1)[token]) / math.log(2)


def test_ranges_are_the_old_window_and_doublings():
    assert ranges(512, 1024) == [(0, 512), (512, 1024)]
    assert ranges(64, 300) == [(0, 64), (64, 128), (128, 256), (256, 300)]


def test_within_the_window_every_token_sees_all_before_it(model):
    """A row per part, a ratio of sums over the pieces; a part that no piece reaches is None."""
    pieces = [piece(model, text) for text in ("abcdefghi", "zyx wvu tsr q")]
    found = bits_per_byte_by_position(model, pieces, [(0, 4), (4, 10), (10, 16), (16, 32)])
    for (first, end), estimate in zip([(0, 4), (4, 10)], found, strict=False):
        total = [bits(model, p[:t], p[t]) for p in pieces for t in range(max(first, 1), min(end, len(p)))]
        assert estimate.value == pytest.approx(sum(total) / len(total), rel=1e-4)  # a byte a token
        assert estimate.n == 2
    assert found[2].n == 1
    assert found[3] is None


def test_beyond_the_window_a_token_sees_at_least_half_a_window(model):
    """The model moves on by half windows: the token at 16 sees the 8 before it, the one at 23 sees 15."""
    text = piece(model, "the quick brown fox jumps over the dog")
    (found,) = bits_per_byte_by_position(model, [text], [(16, 24)])
    total = [bits(model, text[8:t], text[t]) for t in range(16, 24)]
    assert found.value == pytest.approx(sum(total) / 8, rel=1e-4)


def test_a_model_may_be_told_to_read_less(model):
    """A window of 4 moves on by 2: the same as for a model that has no more."""
    text = piece(model, "quick fox")
    (found,) = bits_per_byte_by_position(model, [text], [(0, 6)], window=4)
    seen = [text[:1], text[:2], text[:3], text[2:4], text[2:5]]
    total = [bits(model, context, text[t + 1]) for t, context in enumerate(seen)]
    assert found.value == pytest.approx(sum(total) / 5, rel=1e-4)


def test_special_tokens_stand_for_no_bytes(model):
    text = [*piece(model, "ab"), model.tokenizer.bos_id]
    (found,) = bits_per_byte_by_position(model, [text], [(0, 8)])
    total = [bits(model, text[: t + 1], text[t + 1]) for t in range(3)]
    assert found.value == pytest.approx(sum(total) / 2, rel=1e-4)
