"""PPO's losses, token by token (arXiv:1707.06347), for a policy and its value head.

Everything is (replies, tokens) or any other shape in common; who sums decides what counts. The articles'
"PPO loss" -log π · advantage has no ratio and no clip: it is right for one step from fresh samples, and
wrong from the second step on the same samples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Tensor:
    """-min(ratio · A, clip(ratio, 1 - clip, 1 + clip_high) · A), equation 7 of the paper.

    `old_logprobs` are those of the policy that sampled. Where the ratio has gone beyond the clip in the
    direction that the advantage A rewards, the gradient is zero: no update from one set of samples goes far.
    A larger `clip_high` (default: as `clip`) lets unlikely tokens rise further (DAPO, arXiv:2503.14476,
    section 3.1).
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -torch.minimum(ratio * advantages, clipped * advantages)


@torch.no_grad()
def is_clipped(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Tensor:
    """Which tokens `policy_loss` gives no gradient, because they have gone far enough already; bool."""
    ratio = (logprobs - old_logprobs).exp()
    above = (ratio > 1 + (clip if clip_high is None else clip_high)) & (advantages > 0)
    return above | ((ratio < 1 - clip) & (advantages < 0))


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None = 0.2) -> Tensor:
    """Half the squared error of the value head; with `clip` the larger of it and that of a clipped step.

    The clipped one (of the paper's authors' code, see arXiv:2005.12729) keeps values within `clip` of
    what they were when the replies were sampled.
    """
    error = (values - returns) ** 2
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns) ** 2)
    return error / 2


def entropy(logits: Tensor) -> Tensor:
    """Of the next token's distribution, in nats: logits (..., vocab) -> (...); float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logprobs = logits.log_softmax(-1)
    # A token that is excluded (-inf) adds nothing; 0 · -inf would be NaN, and so would its gradient.
    return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0)).sum(-1)
