"""Token scores: the model's own log-probabilities."""

from __future__ import annotations

import math

import torch

from glasshouse.inference.token_scores import token_scores


def test_scores_are_log_softmax() -> None:
    """Of the token and of as many alternatives as its row asks for, the likeliest first."""
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 5
    expected = logits.double().log_softmax(-1)
    scores = token_scores(logits, [7, 8, 9], [0, 3, 50])
    for row, (score, count) in enumerate(zip(scores, [0, 3, 50], strict=True)):
        assert score.id == 7 + row
        assert math.isclose(score.logprob, float(expected[row, score.id]), abs_tol=1e-5)
        assert [token for token, _ in score.top] == expected[row].topk(count).indices.tolist()
        for token, logprob in score.top:
            assert math.isclose(logprob, float(expected[row, token]), abs_tol=1e-5)


def test_a_token_among_its_alternatives_has_one_score() -> None:
    """The very same float stands in both places, at any size of logits."""
    for scale in (0.1, 3.0, 40.0):
        logits = torch.randn(20, 300, generator=torch.Generator().manual_seed(1)) * scale
        tokens = logits.argmax(-1).tolist()
        for score in token_scores(logits, tokens, [300] * 20):
            assert dict(score.top)[score.id] == score.logprob


def test_equal_alternatives_stand_in_order() -> None:
    """Ties are told by id, and no score asks for more than the vocabulary."""
    (score,) = token_scores(torch.zeros(1, 4), [2], [9])
    assert [token for token, _ in score.top] == [0, 1, 2, 3]
    assert token_scores(torch.zeros(0, 4), [], []) == []
