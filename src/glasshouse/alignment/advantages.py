"""From rewards to advantages: how much better a token, or a reply, was than expected.

Everything is (replies, tokens) unless said otherwise. `mask` is bool, and true on a reply's own tokens,
which have no gap between them; where it is false, before and after, results are 0. No gradient flows
through any of these numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glasshouse.core.errors import UsageError

WHITEN_EPS = 1e-8
"""Added to a variance before its root: equal values become zeros, not an error."""

GROUP_EPS = 1e-4
"""Added to a group's deviation, as trl does."""


@torch.no_grad()
def token_rewards(rewards: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Each token pays `coefficient` times its KL; the last one also gets the reply's reward.

    rewards (replies,), kl (replies, tokens) in nats, as `kl.k1` or `kl.k3` gives it
    (InstructGPT's equation 2, arXiv:2203.02155, token by token). A reply without a token earns nothing.
    """
    per_token = (-coefficient * kl).masked_fill(~mask, 0)
    some = mask.any(-1)
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * columns).amax(-1)[:, None]  # (replies, 1)
    return per_token.scatter_add(-1, last, (rewards * some)[:, None].to(per_token.dtype))


@torch.no_grad()
def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """(advantages, returns) by generalised advantage estimation (arXiv:1506.02438, equation 16).

    δ_t = reward_t + γ value_{t+1} - value_t with nothing after the last token, and the advantage is
    Σ_k (γλ)^k δ_{t+k}. `values` are the expected returns before each token is chosen; returns are
    advantages + values, what a value head should have said (λ-returns).
    """
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    advantages = torch.zeros_like(values)
    following = after = torch.zeros_like(values[:, 0])  # the advantage and the value one token on
    for t in reversed(range(values.shape[1])):
        # Both are zero beyond a reply's end, where rewards and values are.
        following = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * following
        after = values[:, t]
        advantages[:, t] = following
    advantages = advantages.masked_fill(~mask, 0)  # before a reply's beginning
    return advantages, advantages + values


@torch.no_grad()
def whiten(values: Tensor, mask: Tensor, *, centre: bool = True) -> Tensor:
    """Values with mean 0 and mean square 1 over everything that the mask counts.

    Without `centre` they are only scaled: what was 0 stays 0, and no sign changes.
    """
    if not mask.any():
        return torch.zeros_like(values)
    shifted = values - values[mask].mean() if centre else values
    scale = (shifted[mask].square().mean() + WHITEN_EPS).rsqrt()
    return (shifted * scale).masked_fill(~mask, 0)


@torch.no_grad()
def group_advantages(rewards: Tensor, *, scale: bool = True) -> Tensor:
    """GRPO's advantages: each reply against the other replies to its prompt, (prompts, group) -> the same.

    Rewards less their group's mean, and with `scale` over the group's deviation (arXiv:2402.03300,
    section 4.1.2). Without it (Dr. GRPO, arXiv:2503.20783) a prompt on which nearly all replies are
    equal does not weigh more than others. Groups in which all are equal give zeros: nothing to learn.
    Raises UsageError for groups of one.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise UsageError(
            f"rewards of shape {list(rewards.shape)} have no groups to compare",
            fix="sample at least two replies to each prompt",
        )
    centred = rewards - rewards.mean(1, keepdim=True)
    # Equal rewards may differ from their own mean by a last bit, which a division would blow up.
    centred = centred.masked_fill((rewards == rewards[:, :1]).all(1, keepdim=True), 0)
    return centred / (rewards.std(1, keepdim=True) + GROUP_EPS) if scale else centred
