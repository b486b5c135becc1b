"""How far a policy has gone from its reference, told from log-probabilities of sampled tokens alone.

KL(policy ‖ reference) = E[log policy(x) - log reference(x)] over x drawn from the policy. A full sum over
the vocabulary is exact and needs both models' logits; these estimators need one number a token
(J. Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html). With
r = reference(x) / policy(x):

    k1 = -log r            unbiased; single tokens, and means of few, can be negative
    k3 = r - 1 - log r     unbiased and never negative: k1 plus r - 1, whose mean is 0

They estimate the *value*. As a *loss* they differ: drawn from the policy itself, the mean gradient of k1 is
zero, and that of k3 is the gradient of KL(reference ‖ policy), the other direction (both are shown in
the tests). So PPO subtracts k1 from the reward, where no gradient flows through it, and GRPO
(arXiv:2402.03300, equation 4) adds k3 to the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from glasshouse.core.errors import ConfigError

GAIN = 0.1
"""K_β of arXiv:1909.08593, section 2: how much of the (clipped) error a step corrects."""

ERROR_LIMIT = 0.2
"""The same paper's clip of the proportional error: no step changes the coefficient by more than 2%."""


def k1(policy: Tensor, reference: Tensor) -> Tensor:
    """Naive estimate in nats of each token's KL, from log-probabilities of any one shape."""
    return policy - reference


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """Unbiased, non-negative estimate in nats of each token's KL, from log-probabilities of any one shape."""
    log_ratio = reference - policy
    # Where the two nearly agree, the difference rounds to a few last bits of either sign.
    return (log_ratio.expm1() - log_ratio).clamp(min=0)


def per_reply(per_token: Tensor, mask: Tensor) -> Tensor:
    """Sums over the tokens of each reply: (replies, tokens) and a bool mask of that shape -> (replies,)."""
    return per_token.masked_fill(~mask, 0).sum(-1)


@dataclass(frozen=True)
class FixedCoefficient:
    """A penalty that stays what it is."""

    value: float

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ConfigError(f"a KL coefficient of {self.value} rewards distance", fix="give 0 or more")

    def after(self, kl: float) -> Self:
        """The coefficient of the next step."""
        return self


@dataclass(frozen=True)
class AdaptiveCoefficient:
    """A penalty that is steered towards a KL of `target` nats a reply (arXiv:1909.08593, section 2).

    It has no state but `value`: a run that is continued with it goes on exactly.
    """

    value: float
    target: float
    gain: float = GAIN

    def __post_init__(self) -> None:
        if self.value <= 0 or self.target <= 0:
            raise ConfigError(
                f"an adaptive KL coefficient starts at {self.value} with target {self.target}",
                fix="give two positive numbers: it grows and shrinks by factors",
            )
        if not 0 < self.gain < 1 / ERROR_LIMIT:
            raise ConfigError(
                f"a gain of {self.gain}", fix=f"give a number between 0 and {1 / ERROR_LIMIT:g}"
            )

    def after(self, kl: float) -> Self:
        """The coefficient of the next step, when this one's mean KL was `kl` nats a reply."""
        error = max(-ERROR_LIMIT, min(ERROR_LIMIT, kl / self.target - 1))
        return replace(self, value=self.value * (1 + self.gain * error))
