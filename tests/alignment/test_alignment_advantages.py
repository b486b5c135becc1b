"""Rewards, advantages and returns against sums written out, and what padding must not do."""

import pytest
import torch

from glasshouse.alignment.advantages import gae, group_advantages, token_rewards, whiten
from glasshouse.core.errors import UsageError

LENGTHS = [5, 1, 8, 0, 3]
STARTS = [0, 3, 0, 2, 5]  # columns of prompt before each reply


@pytest.fixture
def replies():
    """(rewards, values, mask) of five replies, float64; what lies under the mask is NaN."""
    generator = torch.Generator().manual_seed(1)
    rewards, values = torch.randn(2, len(LENGTHS), max(LENGTHS), generator=generator, dtype=torch.float64)
    columns, starts = torch.arange(max(LENGTHS)), torch.tensor(STARTS)[:, None]
    mask = (columns >= starts) & (columns < starts + torch.tensor(LENGTHS)[:, None])
    return rewards.masked_fill(~mask, torch.nan), values.masked_fill(~mask, torch.nan), mask


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_the_double_sum_of_the_paper(replies, gamma, lam):
    """Advantage and return of each token, from δ's written out one by one; zeros beyond the end."""
    rewards, values, mask = replies
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    assert (advantages[~mask] == 0).all()
    assert (returns[~mask] == 0).all()
    for row, length in enumerate(LENGTHS):
        r, v = rewards[row, mask[row]].tolist(), [*values[row, mask[row]].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
            assert float(advantages[row, STARTS[row] + t]) == pytest.approx(expected, abs=1e-12)
            assert float(returns[row, STARTS[row] + t]) == pytest.approx(expected + v[t], abs=1e-12)


def test_with_lambda_one_returns_are_the_discounted_rewards(replies):
    """Whatever the values say."""
    rewards, values, mask = replies
    _, returns = gae(rewards, values, mask, gamma=0.9, lam=1.0)
    for row, length in enumerate(LENGTHS):
        r = rewards[row, mask[row]].tolist()
        for t in range(length):
            expected = sum(0.9 ** (k - t) * r[k] for k in range(t, length))
            assert float(returns[row, STARTS[row] + t]) == pytest.approx(expected)


def test_the_end_reward_falls_on_the_last_token_and_each_token_pays_its_kl():
    """By hand; a reply without tokens gets nothing, and padding nothing."""
    mask = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    kl = torch.tensor([[0.5, 1.0, torch.inf], [9.0, -1.0, 2.0], [torch.nan] * 3])
    given = token_rewards(torch.tensor([3.0, -1.0, 7.0]), kl, mask, coefficient=0.1)
    expected = torch.tensor([[-0.05, 2.9, 0.0], [0.0, 0.1, -1.2], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(given, expected)


def test_the_sum_of_token_rewards_is_the_reward_less_the_replys_kl():
    """The objective of RLHF, reply by reply."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    mask[0, :3] = False
    kl, rewards = torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)
    total = token_rewards(rewards, kl, mask, 0.3).sum(-1)
    torch.testing.assert_close(total, rewards - 0.3 * (kl * mask).sum(-1))


def test_whitening_sees_only_what_counts(replies):
    """Mean 0 and variance 1 under the mask, zeros outside."""
    rewards, _, mask = replies
    white = whiten(rewards, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-12)
    assert float(white[mask].var(correction=0)) == pytest.approx(1, rel=1e-6)
    assert (white[~mask] == 0).all()


def test_whitening_may_only_scale(replies):
    """Then zero stays zero, signs stay, and so do ratios."""
    rewards, _, mask = replies
    rewards = torch.where(rewards > 1, 0.0, rewards + 0.5)
    white = whiten(rewards, mask, centre=False)
    assert float(white[mask].square().mean()) == pytest.approx(1, rel=1e-6)
    assert torch.equal(white[mask].sign(), rewards[mask].sign())
    ratios = (white[mask] / rewards[mask]).nan_to_num(0)
    assert float(ratios.max()) == pytest.approx(float(ratios[ratios > 0].min()))


def test_whitening_nothing_and_equal_values_gives_zeros():
    """No division by zero."""
    assert whiten(torch.full((2, 3), 4.0), torch.ones(2, 3, dtype=torch.bool)).tolist() == [[0] * 3] * 2
    assert whiten(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0] * 3] * 2
    alike = whiten(torch.full((2, 3), 4.0), torch.ones(2, 3, dtype=torch.bool), centre=False)
    torch.testing.assert_close(alike, torch.ones(2, 3))


def test_group_advantages_compare_within_a_prompt():
    """Against the formulas, written out; other groups do not matter."""
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [5.0, 5.0, 5.0, 9.0]])
    centred = torch.tensor([[0.5, -0.5, -0.5, 0.5], [-1.0, -1.0, -1.0, 3.0]])
    torch.testing.assert_close(group_advantages(rewards, scale=False), centred)
    deviations = torch.tensor([[(4 * 0.25 / 3) ** 0.5], [(12 / 3) ** 0.5]])
    torch.testing.assert_close(group_advantages(rewards), centred / (deviations + 1e-4))
    torch.testing.assert_close(group_advantages(rewards[:1]), group_advantages(rewards)[:1])


def test_a_group_of_equals_teaches_nothing():
    """Zeros to the last bit, also where the mean of equal numbers is not that number."""
    rewards = torch.full((1, 3), 0.1)
    assert group_advantages(rewards).tolist() == [[0, 0, 0]]
    assert group_advantages(rewards, scale=False).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_groups_of_one_are_refused(shape):
    """There is nobody to compare with."""
    with pytest.raises(UsageError, match="at least two replies"):
        group_advantages(torch.zeros(shape))
