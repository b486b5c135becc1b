"""Estimators of KL: right on average, of the right sign, with the gradients that the docstring says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.alignment.kl import AdaptiveCoefficient, FixedCoefficient, k1, k3, per_reply
from glasshouse.core.errors import ConfigError


def distributions(seed, vocab=7, spread=1.0):
    """Two sets of log-probabilities (vocab), float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(2, vocab, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1)


def exact(policy, reference):
    """KL over the whole vocabulary."""
    return (policy.exp() * (policy - reference)).sum()


@pytest.mark.parametrize("estimate", [k1, k3])
@pytest.mark.parametrize("seed", range(5))
def test_the_mean_over_the_vocabulary_is_the_exact_kl(estimate, seed):
    """Weighted by the policy's probabilities, in closed form: both estimators are unbiased."""
    policy, reference = distributions(seed)
    mean = (policy.exp() * estimate(policy, reference)).sum()
    torch.testing.assert_close(mean, exact(policy, reference))


def test_two_tokens_by_hand():
    """p = (1/2, 1/2), q = (1/4, 3/4): log-ratios log 2 and log 2/3."""
    policy, reference = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    torch.testing.assert_close(k1(policy, reference), torch.tensor([2.0, 2 / 3]).log())
    by_hand = torch.tensor([0.5 - 1, 1.5 - 1]) + torch.tensor([2.0, 2 / 3]).log()
    torch.testing.assert_close(k3(policy, reference), by_hand)


@pytest.mark.parametrize("estimate", [k1, k3])
def test_sampled_means_approach_the_exact_kl(estimate):
    """100,000 draws agree within four standard errors."""
    policy, reference = distributions(3)
    generator = torch.Generator().manual_seed(4)
    drawn = torch.multinomial(policy.exp(), 100_000, replacement=True, generator=generator)
    values = estimate(policy, reference)[drawn]
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean() - exact(policy, reference)) < 4 * error


def test_k3_spreads_less_than_k1_where_the_models_are_near():
    """Which is why it is worth its exponential."""
    policy, reference = distributions(5, spread=0.2)

    def variance(values):
        mean = (policy.exp() * values).sum()
        return (policy.exp() * (values - mean) ** 2).sum()

    assert variance(k3(policy, reference)) < 0.1 * variance(k1(policy, reference))


@given(st.floats(-60, 0, width=32), st.floats(-60, 0, width=32))
def test_k3_is_never_negative(policy, reference):
    """Whatever the two log-probabilities are, in float32."""
    value = k3(torch.tensor(policy), torch.tensor(reference))
    assert value >= 0
    assert torch.isfinite(value)


def test_k3_is_never_negative_where_both_nearly_agree():
    """Differences down to the last bit, where rounding decides the sign."""
    policy = torch.full((10_000,), -1.0)
    reference = policy + torch.linspace(-1e-4, 1e-4, 10_000)
    assert (k3(policy, reference) >= 0).all()
    assert (k1(policy, reference) < 0).any()


@pytest.mark.parametrize("estimate", [k1, k3])
def test_gradients_agree_with_finite_differences(estimate):
    """By the policy's and by the reference's log-probabilities, float64."""
    policy, reference = distributions(6)
    policy.requires_grad_()
    reference.requires_grad_()
    assert torch.autograd.gradcheck(estimate, (policy, reference))


def test_as_losses_k1_pulls_nowhere_and_k3_towards_the_other_direction():
    """Mean gradients by the logits: zero, and that of KL(reference ‖ policy)."""
    logits = torch.randn(7, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    logits.requires_grad_()
    _, reference = distributions(8)
    policy = logits.log_softmax(-1)
    weights = policy.exp().detach()  # the draws are data: no gradient flows through how often they come

    def gradient(loss):
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    torch.testing.assert_close(gradient((weights * k1(policy, reference)).sum()), torch.zeros_like(logits))
    other = (reference.exp() * (reference - policy)).sum()
    torch.testing.assert_close(gradient((weights * k3(policy, reference)).sum()), gradient(other))


def test_a_replys_sum_counts_its_own_tokens_only():
    """What lies under the mask's zeros may be anything."""
    values = torch.tensor([[1.0, 2.0, float("inf")], [4.0, float("nan"), 5.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert per_reply(values, mask).tolist() == [3.0, 4.0]


def test_the_adaptive_coefficient_moves_towards_its_target():
    """Up when the KL is above, down when below, still when it is met, by at most gain · 0.2 a step."""
    start = AdaptiveCoefficient(0.1, target=6.0)
    assert start.after(6.0) == start
    assert start.after(6.6).value == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert start.after(600).value == pytest.approx(0.1 * 1.02)
    assert start.after(-600).value == pytest.approx(0.1 * 0.98)


def test_the_adaptive_coefficient_settles_where_the_policy_answers():
    """A policy whose KL is 1 / coefficient ends at the target."""
    coefficient = AdaptiveCoefficient(1.0, target=5.0)
    for _ in range(2000):
        coefficient = coefficient.after(1 / coefficient.value)
    assert 1 / coefficient.value == pytest.approx(5.0, rel=1e-6)


def test_a_fixed_coefficient_stays():
    """Whatever the KL does."""
    assert FixedCoefficient(0.05).after(1e9) == FixedCoefficient(0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: FixedCoefficient(-0.1),
        lambda: AdaptiveCoefficient(0.0, 6.0),
        lambda: AdaptiveCoefficient(0.1, 0.0),
        lambda: AdaptiveCoefficient(0.1, 6.0, gain=5.0),
    ],
)
def test_coefficients_that_mean_nothing_are_refused(wrong):
    """With one line that names the fix."""
    with pytest.raises(ConfigError, match="Fix:"):
        wrong()
