"""The losses of PPO and GRPO: closed forms, finite differences, and where the gradient must vanish."""

import math

import pytest
import torch

from glasshouse.alignment.grpo_loss import grpo_loss, token_weights
from glasshouse.alignment.ppo_loss import entropy, is_clipped, policy_loss, value_loss
from glasshouse.core.errors import UsageError

LENGTHS = [4, 1, 6]


@pytest.fixture
def batch():
    """(logprobs, old, reference, advantages, mask) of three replies, float64; padding holds zeros."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    draws = torch.randn(3, *mask.shape, generator=generator, dtype=torch.float64)
    old = -2 + draws[0]
    logprobs, reference = old + 0.3 * draws[1], old + 0.3 * draws[2]
    advantages = torch.tensor([1.5, -0.7, -1.1], dtype=torch.float64)
    return *(x.masked_fill(~mask, 0) for x in (logprobs, old, reference)), advantages, mask


def test_the_policy_loss_is_the_papers_formula(batch):
    """Token by token with Python's own arithmetic, with equal and with unequal clips."""
    logprobs, old, _, advantages, mask = batch
    for low, high in ((0.2, None), (0.1, 0.3)):
        loss = policy_loss(logprobs, old, advantages[:, None], low, high)
        for row, column in mask.nonzero().tolist():
            ratio = math.exp(logprobs[row, column] - old[row, column])
            held = min(max(ratio, 1 - low), 1 + (low if high is None else high))
            expected = -min(ratio * advantages[row], held * advantages[row])
            assert float(loss[row, column]) == pytest.approx(float(expected), abs=1e-12)


def test_clipped_tokens_are_those_without_a_gradient(batch):
    """And both kinds occur in the batch."""
    logprobs, old, _, advantages, mask = batch
    logprobs.requires_grad_()
    (gradient,) = torch.autograd.grad(policy_loss(logprobs, old, advantages[:, None]).sum(), logprobs)
    clipped = is_clipped(logprobs, old, advantages[:, None])
    assert torch.equal(clipped[mask], (gradient == 0)[mask])
    assert 0 < int(clipped[mask].sum()) < int(mask.sum())


def test_at_the_first_step_the_gradient_is_reinforce(batch):
    """Ratios are one: minus advantage times the gradient of the log-probability."""
    _, old, _, advantages, _ = batch
    logprobs = old.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(policy_loss(logprobs, old, advantages[:, None]).sum(), logprobs)
    torch.testing.assert_close(gradient, -advantages[:, None].expand_as(old))


@pytest.mark.parametrize("clip", [0.2, None])
def test_the_value_loss_is_the_larger_error(clip):
    """By hand: within the clip, beyond it towards the return, and beyond it away from the return."""
    values, old = torch.tensor([0.1, 1.0, -1.0]), torch.zeros(3)
    returns = torch.tensor([1.0, 1.0, 1.0])
    clipped = torch.tensor([0.9**2, 0.8**2, 2.0**2]) / 2
    plain = torch.tensor([0.9**2, 0.0, 2.0**2]) / 2
    torch.testing.assert_close(value_loss(values, old, returns, clip), plain if clip is None else clipped)


def test_entropy_of_known_distributions():
    """Uniform: log n. One token for sure: 0. Excluded tokens add nothing."""
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, -torch.inf]])
    torch.testing.assert_close(entropy(logits), torch.tensor([math.log(4), 0.0, math.log(2)]))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(entropy(logits).sum(), logits)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: policy_loss(x, torch.zeros_like(x), torch.tensor([1.0, -1.0, 2.0], dtype=x.dtype)).sum(),
        lambda x: value_loss(x, torch.zeros_like(x), torch.tensor([1.0, -1.0, 2.0], dtype=x.dtype)).sum(),
        lambda x: entropy(x),
    ],
)
def test_gradients_agree_with_finite_differences(loss):
    """In float64, away from the kinks of the clips."""
    x = torch.tensor([0.05, -0.5, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x,))


@pytest.mark.parametrize("correct_kl", [False, True])
@pytest.mark.parametrize("normalisation", ["sequence", "token", "constant"])
def test_the_grpo_loss_is_its_closed_form(batch, normalisation, correct_kl):
    """Within 1e-5 of the formula written out with loops, in float32."""
    *tensors, mask = batch
    logprobs, old, reference, advantages = (x.float() for x in tensors)
    weights, counts = token_weights(mask, normalisation, longest=8)
    penalty = {"reference_logprobs": reference, "kl_coef": 0.1, "correct_kl": correct_kl}
    loss = grpo_loss(logprobs, old, advantages, weights, **penalty) / counts.sum()
    replies = []
    for row, length in enumerate(LENGTHS):
        terms = []
        for t in range(length):
            ratio = math.exp(logprobs[row, t] - old[row, t])
            surrogate = min(ratio * advantages[row], min(max(ratio, 0.8), 1.2) * advantages[row])
            log_ratio = float(reference[row, t] - logprobs[row, t])
            weight = ratio if correct_kl else 1
            terms.append(float(surrogate) - 0.1 * weight * (math.exp(log_ratio) - log_ratio - 1))
        replies.append(terms)
    expected = {
        "sequence": sum(sum(terms) / len(terms) for terms in replies) / len(replies),
        "token": sum(map(sum, replies)) / sum(LENGTHS),
        "constant": sum(map(sum, replies)) / (8 * len(replies)),
    }[normalisation]
    assert float(loss) == pytest.approx(-expected, abs=1e-5)


@pytest.mark.parametrize("normalisation", ["sequence", "token", "constant"])
def test_the_grpo_gradient_agrees_with_finite_differences(batch, normalisation):
    """By the policy's log-probabilities, with both clips and the penalty at work."""
    logprobs, old, reference, advantages, mask = batch
    weights, counts = token_weights(mask, normalisation, longest=8)
    weights = weights.double()

    def loss(x):
        penalty = {"reference_logprobs": reference, "kl_coef": 0.1}
        return grpo_loss(x, old, advantages, weights, clip=0.1, clip_high=0.25, **penalty) / counts.sum()

    assert torch.autograd.gradcheck(loss, (logprobs.requires_grad_(),))


@pytest.mark.parametrize("correct_kl", [False, True])
def test_the_penaltys_mean_gradient_is_that_of_a_kl(correct_kl):
    """Over samples of an older policy, in closed form: corrected it is KL(policy ‖ reference)'s, whatever the
    older policy was; without, and on the policy's own samples, KL(reference ‖ policy)'s."""
    generator = torch.Generator().manual_seed(4)
    logits, other, sampler = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    policy, reference = logits.log_softmax(-1), other.log_softmax(-1)
    old = sampler.log_softmax(-1) if correct_kl else policy.detach()
    none = torch.zeros(1, dtype=torch.float64)
    penalty = {"reference_logprobs": reference[None], "kl_coef": 1.0, "correct_kl": correct_kl}
    loss = grpo_loss(policy[None], old[None], none, old.exp()[None], **penalty)
    first, second = (policy, reference) if correct_kl else (reference, policy)
    kl = (first.exp() * (first - second)).sum()
    gradients = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, kl)]
    torch.testing.assert_close(*gradients)


def test_weights_give_equal_replies_or_equal_tokens():
    """A reply of one token against one of four; a reply without tokens weighs nothing."""
    mask = torch.arange(4) < torch.tensor([4, 1, 0])[:, None]
    weights = {
        kind: token_weights(mask, kind, 4)[0].sum(-1).tolist() for kind in ("sequence", "token", "constant")
    }
    assert weights == {"sequence": [1, 1, 0], "token": [4, 1, 0], "constant": [1, 0.25, 0]}


@pytest.mark.parametrize("longest", [None, 3])
def test_constant_weights_need_the_true_limit(longest):
    """Else replies would weigh more than one."""
    with pytest.raises(UsageError, match="longest possible reply"):
        token_weights(torch.ones(2, 4, dtype=torch.bool), "constant", longest)


def test_parts_of_a_batch_add_up(batch):
    """Sums over micro-batches are the sum over the batch."""
    logprobs, old, reference, advantages, mask = batch
    weights, _ = token_weights(mask, "sequence")

    def loss(rows):
        kwargs = {"reference_logprobs": reference[rows], "kl_coef": 0.1}
        return grpo_loss(logprobs[rows], old[rows], advantages[rows], weights[rows], **kwargs)

    torch.testing.assert_close(loss(slice(0, 1)) + loss(slice(1, 3)), loss(slice(0, 3)))
