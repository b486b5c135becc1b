"""Rollouts: what the policy itself says, the same under every grouping, and scored as training scores it."""

import pytest
import torch

from glasshouse.alignment.rollouts import Reply, make_rows, sample_replies, score_rows, token_logprobs
from glasshouse.core.errors import UsageError
from glasshouse.data import IGNORE
from glasshouse.model import initialise
from glasshouse.tokenizer import Tokenizer

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]


@pytest.fixture(scope="module")
def tokenizer():
    """Plain bytes and the special tokens."""
    return Tokenizer.train([], 265)


@pytest.fixture(scope="module")
def model(small_model):
    """Weights large enough that its distributions are not flat."""
    return small_model(noise=0.3).eval()


def sample(model, tokenizer, prompts=PROMPTS, seeds=(1, 2, 3), group=4, tokens=8):
    return sample_replies(model, tokenizer, prompts, seeds[: len(prompts)], group, tokens)


def test_samples_are_a_function_of_weights_and_seeds(model, tokenizer):
    """Twice the same; other seeds, other replies; replies within a group differ."""
    first = sample(model, tokenizer)
    assert first == sample(model, tokenizer)
    assert first != sample(model, tokenizer, seeds=(4, 5, 6))
    assert all(len({reply.ids for reply in group}) > 1 for group in first)


def test_a_reply_does_not_depend_on_what_is_sampled_beside_it(model, tokenizer):
    """Each prompt alone gives the groups of all prompts together."""
    together = sample(model, tokenizer)
    alone = [sample(model, tokenizer, [p], (i + 1,))[0] for i, p in enumerate(PROMPTS)]
    assert together == alone


def test_replies_follow_the_policys_distribution(model, tokenizer):
    """First tokens of 4,000 replies against the exact probabilities, by Pearson's chi squared."""
    (group,) = sample(model, tokenizer, [PROMPTS[0]], (7,), group=4000, tokens=1)
    with torch.no_grad():
        probabilities = model(torch.tensor([PROMPTS[0]]))[0, -1].softmax(-1).double()
    counts = torch.bincount(torch.tensor([reply.ids[0] for reply in group]), minlength=len(probabilities))
    often = probabilities * len(group) >= 5
    expected = probabilities[often] * len(group)
    chi_squared = float(((counts[often] - expected) ** 2 / expected).sum())
    degrees = int(often.sum())
    assert degrees > 20
    assert chi_squared < degrees + 4 * (2 * degrees) ** 0.5


def test_a_reply_holds_the_token_that_ended_it(model, tokenizer):
    """With a head that ends at once, each reply is that token alone, and says nothing."""
    ending = initialise(model.config, 0)
    ending.load_state_dict(model.state_dict())
    with torch.no_grad():  # of the last state one number is left, and its sign points to the end
        ending.model.norm.weight.zero_()
        ending.model.norm.weight[0] = 1
        ending.lm_head.weight.zero_()
        sign = ending.hidden(torch.tensor([PROMPTS[0]]))[0, -1, 0].sign()
        ending.lm_head.weight[tokenizer.end_of_turn_id, 0] = 1000 * sign
    (group,) = sample(ending, tokenizer, [PROMPTS[0]], (1,))
    assert {(r.ids, r.text, r.ended) for r in group} == {((tokenizer.end_of_turn_id,), "", True)}


def test_prompts_without_tokens_are_refused(model, tokenizer):
    """With one clear line, and no engine left behind."""
    with pytest.raises(UsageError, match="empty"):
        sample(model, tokenizer, [[]], (1,))


def test_rows_align_each_reply_with_the_state_before_it():
    """By hand: a short and a long row."""
    rows = make_rows([Reply((1, 2), (3, 4), "", True), Reply((5,), (6,), "", False)])
    assert rows.inputs.tolist() == [[1, 2, 3], [5, 0, 0]]
    assert rows.targets.tolist() == [[IGNORE, 3, 4], [6, IGNORE, IGNORE]]
    assert rows.segments.tolist() == [[0, 0, 0], [0, -1, -1]]
    assert rows.mask.tolist() == [[False, True, True], [True, False, False]]


def test_scores_are_those_of_each_row_alone(model, tokenizer):
    """Padded rows together, a few at once, and plain forward passes agree; padding scores 0."""
    replies = [reply for group in sample(model, tokenizer) for reply in group]
    rows = make_rows(replies)
    scores = score_rows(model, rows)
    torch.testing.assert_close(scores, score_rows(model, rows, at_once=5), rtol=1e-5, atol=1e-5)
    assert (scores[~rows.mask] == 0).all()
    for row, reply in enumerate(replies):
        text = torch.tensor([[*reply.prompt, *reply.ids]])
        with torch.no_grad():
            logprobs = model(text)[0].log_softmax(-1)
        start = len(reply.prompt) - 1
        alone = [float(logprobs[start + i, token]) for i, token in enumerate(reply.ids)]
        torch.testing.assert_close(scores[row][rows.mask[row]], torch.tensor(alone), rtol=1e-4, atol=1e-4)


def test_scores_with_a_gradient_are_the_same_numbers(model):
    """To rounding: with gradients, other kernels may run."""
    rows = make_rows([Reply((1, 2), (3, 4, 5), "", True), Reply((5,), (6,), "", False)])
    with_gradient = token_logprobs(model, rows.inputs, rows.targets, rows.segments)
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient.detach(), score_rows(model, rows), rtol=1e-5, atol=1e-5)
