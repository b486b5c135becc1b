"""GRPO's loss (arXiv:2402.03300, equation 3): PPO's clipped ratio, group-relative advantages, a KL penalty.

One advantage a reply, shared by its tokens; no value head. How tokens are weighed decides what long replies
count:

    sequence  each reply is the mean of its tokens, each reply counts alike (the paper): a token of a long
              wrong reply is punished less than one of a short wrong reply
    token     each token counts alike (DAPO, arXiv:2503.14476, section 3.3): long replies count more
    constant  each token counts 1 / the longest possible reply (Dr. GRPO, arXiv:2503.20783): no bias by length
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from glasshouse.alignment.kl import k3
from glasshouse.alignment.ppo_loss import policy_loss
from glasshouse.core.errors import UsageError

Normalisation = Literal["sequence", "token", "constant"]


def token_weights(
    mask: Tensor, normalisation: Normalisation, longest: int | None = None
) -> tuple[Tensor, Tensor]:
    """(weights (replies, tokens) float32, counts (replies,) int64): the loss is a weighted sum over tokens,
    divided by the sum of the counts.

    `longest`: tokens of the longest possible reply, for "constant". Both sums add up over micro-batches.
    """
    if normalisation == "token":
        return mask.float(), mask.sum(-1)
    ones = torch.ones(len(mask), dtype=torch.int64, device=mask.device)
    if normalisation == "sequence":
        return mask / mask.sum(-1, keepdim=True).clamp(min=1), ones
    if longest is None or longest < int(mask.sum(-1).max()):
        raise UsageError(
            f"constant normalisation was given {longest} as the longest possible reply",
            fix="give the limit that replies were sampled with",
        )
    return mask / longest, ones


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    reference_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    correct_kl: bool = True,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Tensor:
    """The weighted sum over tokens, a scalar; divide by the counts that `token_weights` gave.

    logprobs (of the policy, with gradient), old_logprobs (of the policy that sampled), reference_logprobs
    and weights: (replies, tokens); advantages (replies,). Where weights are 0, log-probabilities must be
    finite and count nothing. Without `reference_logprobs` there is no penalty.

    `correct_kl` multiplies k3 by the ratio (DeepSeek-V3.2, arXiv:2512.02556): samples of the old policy are
    weighed as the new one would draw them, and the mean gradient is that of KL(policy ‖ reference). The
    paper's own penalty, without it, has the gradient of the other direction (kl.py).
    """
    loss = policy_loss(logprobs, old_logprobs, advantages[:, None], clip, clip_high)
    if reference_logprobs is not None:
        penalty = k3(logprobs, reference_logprobs)
        loss = loss + kl_coef * (penalty * (logprobs - old_logprobs).exp() if correct_kl else penalty)
    return torch.sum(loss * weights)
